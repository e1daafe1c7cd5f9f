/** The files of one table's pin directory: what is there, what it means, how it goes away. */
import { mkdirSync, readdirSync, rmdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { layoutVersion } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import { closeFd, lock, openDirectory, unlock } from './shim.ts'

/** Directories in a pin directory are marks. Those that say what the table is are made last and removed first. */
const LAYOUT_MARK = 'layout-'
const BUILD_MARK = 'build-'
/** Locked by a sync daemon, whose role follows, as long as it lives. */
export const SYNC_MARK = 'sync-'

/** `absent`: no table, or one that nobody finished making. */
export type TableState = { readonly kind: 'absent' } | { readonly kind: 'ready'; readonly build: string | undefined }

function isNodeError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

/** The error of a file operation: PERMISSION for EACCES and EPERM, else NATIVE. */
export function fileError(error: unknown): unknown {
  if (!isNodeError(error)) return error
  const denied = error.code === 'EACCES' || error.code === 'EPERM'
  const detail = { call: error.syscall, errno: -(error.errno ?? 0), path: error.path }
  return new LbError(
    denied ? 'PERMISSION' : 'NATIVE',
    denied ? `${error.message}; root is needed` : error.message,
    detail,
    error,
  )
}

/** Names in a directory; undefined if there is none. PERMISSION. */
export function listDirectory(dir: string): string[] | undefined {
  try {
    return readdirSync(dir)
  } catch (error) {
    if (isNodeError(error) && error.code === 'ENOENT') return undefined
    throw fileError(error)
  }
}

/** Looks at a pin directory. LAYOUT if the table was made by a version that lays it out otherwise. */
export function inspect(dir: string): TableState {
  const names = listDirectory(dir) ?? []
  const version = names.find((name) => name.startsWith(LAYOUT_MARK))?.slice(LAYOUT_MARK.length)
  if (version === undefined) return { kind: 'absent' }
  if (version !== layoutVersion) {
    throw new LbError('LAYOUT', `${dir} has layout ${version}, this program knows ${layoutVersion}: unload it first`, {
      dir,
      found: version,
      expected: layoutVersion,
    })
  }
  return { kind: 'ready', build: names.find((name) => name.startsWith(BUILD_MARK))?.slice(BUILD_MARK.length) }
}

/** Notes which build of the programs is in force. */
export function markBuild(dir: string, build: string): void {
  for (const name of listDirectory(dir) ?? []) if (name.startsWith(BUILD_MARK)) rmdirSync(join(dir, name))
  mkdirSync(join(dir, `${BUILD_MARK}${build}`), { mode: 0o700 })
}

/** Says that the table is complete: until then nobody adopts it. */
export function markReady(dir: string): void {
  mkdirSync(join(dir, `${LAYOUT_MARK}${layoutVersion}`), { mode: 0o700 })
}

/**
 * Unpins everything in a directory, marks first, and removes it, with whatever another version has put there. Links must be
 * off already if order matters.
 */
export function removePins(dir: string): void {
  const names = listDirectory(dir)
  if (names === undefined) return
  const isMark = (name: string): boolean => [LAYOUT_MARK, BUILD_MARK, SYNC_MARK].some((mark) => name.startsWith(mark))
  try {
    for (const name of names.filter(isMark)) rmdirSync(join(dir, name))
    for (const name of names.filter((name) => !isMark(name))) rmSync(join(dir, name), { force: true, recursive: true })
    rmdirSync(dir)
  } catch (error) {
    throw fileError(error)
  }
}

/** The pin's name of a map: sections of globals (".rodata") lose their dot, which bpffs does not allow. */
export function mapPin(name: string): string {
  return name.startsWith('.') ? `lb_${name.slice(1)}` : name
}

/** Runs `fn` with the lock on a directory, which is made if it is missing. */
export function withDirectoryLock<T>(dir: string, fn: () => T): T {
  for (;;) {
    makeDirectory(dir)
    const fd = openDirectory(dir)
    try {
      if (!lock(fd)) continue /* removed while we waited: by an unload */
      try {
        return fn()
      } finally {
        unlock(fd)
      }
    } finally {
      closeFd(fd)
    }
  }
}

/** Makes a directory for root alone; it may exist. */
export function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir, { mode: 0o700 })
  } catch (error) {
    if (!isNodeError(error) || error.code !== 'EEXIST') throw fileError(error)
  }
}

/** Removes a directory if nothing is in it. */
export function removeIfEmpty(dir: string): void {
  if (listDirectory(dir)?.length === 0) rmdirSync(dir)
}

/** Names of all tables (network namespace cookies) under a directory. */
export function tableNames(tablesDir: string): string[] {
  return (listDirectory(tablesDir) ?? []).filter((name) => /^\d+$/.test(basename(name)))
}
