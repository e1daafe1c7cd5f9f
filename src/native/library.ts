/** The one place where koffi loads the shared library (native/ and libbpf in one), and how its results are checked. */
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { getSystemErrorMap } from 'node:util'
import type koffi from 'koffi'
import type { LibraryHandle } from 'koffi'
import { LbError } from '../model/errors.ts'

/** A C function's type, as koffi writes it: result and arguments. */
export type Signature = readonly [result: string, ...parameters: readonly string[]]

/** Errno numbers that this layer tells apart. */
export const errno = constants.errno as Readonly<
  Record<
    | 'EPERM'
    | 'ENOENT'
    | 'EAGAIN'
    | 'EACCES'
    | 'EBUSY'
    | 'EEXIST'
    | 'ENODEV'
    | 'EINVAL'
    | 'EOPNOTSUPP'
    | 'EAFNOSUPPORT'
    | 'EMSGSIZE'
    | 'EPROTONOSUPPORT'
    | 'ENOMEM',
    number
  >
>

const ROOT = new URL('../../', import.meta.url)

/** Path of a file that the build makes, from the checkout or the installed package. */
export function buildPath(name: string): string {
  return fileURLToPath(new URL(`build/${name}`, ROOT))
}

let loaded: typeof koffi | undefined

/**
 * koffi, from the first call on: a command that is only wrong does not wait for it. It is required and not imported, which
 * takes Node half the time.
 */
export function ffi(): typeof koffi {
  loaded ??= createRequire(import.meta.url)('koffi') as typeof koffi
  return loaded
}

let library: LibraryHandle | undefined

function open(): LibraryHandle {
  if (library !== undefined) return library
  const path = buildPath('native/libbpvs.so')
  if (!existsSync(path)) throw new LbError('UNSUPPORTED', `${path} is missing: run the build first`, { path })
  library = ffi().load(path)
  library.func('bpvs_log_init', 'void', [])()
  return library
}

/** Binds a table, name -> signature; each function is looked up when it is first called. */
export function bind<T>(signatures: Readonly<Record<keyof T & string, Signature>>): T {
  const bound: Record<string, (...args: unknown[]) => unknown> = {}
  for (const [name, [result, ...parameters]] of Object.entries<Signature>(signatures)) {
    let target: ((...args: unknown[]) => unknown) | undefined
    bound[name] = (...args) => (target ??= open().func(name, result, parameters))(...args)
  }
  return bound as T
}

/** The errno that the last libbpf call which returned null has left. */
export function lastErrno(): number {
  return ffi().errno()
}

/** "ENOENT" and "no such file or directory" of an errno. */
export function describeErrno(number: number): { name: string; text: string } {
  const [name, text] = getSystemErrorMap().get(-number) ?? [`errno ${number}`, 'unknown error']
  return { name, text }
}

/** The error of a failed call: PERMISSION for EPERM and EACCES, else NATIVE; detail {call, errno, name}. */
export function nativeError(call: string, number: number, what = ''): LbError {
  const { name, text } = describeErrno(number)
  const denied = number === errno.EPERM || number === errno.EACCES
  const message = `${what === '' ? '' : `${what}: `}${call}: ${text} (${name})`
  return new LbError(denied ? 'PERMISSION' : 'NATIVE', denied ? `${message}; root is needed` : message, {
    call,
    errno: number,
    name,
  })
}

/** Passes a result through, or throws if it is a negative errno. `what` says on what object, for the message. */
export function check(result: number | bigint, call: string, what?: string): number {
  const value = Number(result)
  if (value < 0) throw nativeError(call, -value, what)
  return value
}

/** Passes a pointer through, or throws by errno if it is null. */
export function checkPointer<T extends bigint>(pointer: T | null, call: string, what?: string): T {
  if (pointer === null || pointer === 0n) throw nativeError(call, lastErrno(), what)
  return pointer
}

/** Memory at an address as an ArrayBuffer that shares it. The caller keeps the memory mapped for as long. */
export function viewMemory(address: bigint, bytes: number): ArrayBuffer {
  return ffi().view(address, bytes)
}
