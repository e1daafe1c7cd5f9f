/** Reads one manifest file as text, within limits and without ever blocking on what is no file. */
import { isUtf8 } from 'node:buffer'
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from 'node:fs'

export type FileText =
  | { readonly ok: true; readonly text: string; readonly version: string }
  | { readonly ok: false; readonly reason: string }

/** Differs from one version of a file to the next, without reading it. Links are followed. Throws what stat throws. */
export function fileVersion(path: string): string {
  return versionOf(statSync(path, { bigint: true }))
}

/** The whole text, or why not, as a sentence for the owner of the file. */
export function readText(path: string, maxBytes: number): FileText {
  let fd: number
  try {
    if (!statSync(path).isFile()) return { ok: false, reason: 'is not a regular file' }
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    return { ok: false, reason: `cannot be read: ${reasonOf(error)}` }
  }
  try {
    return readOpen(fd, maxBytes)
  } catch (error) {
    return { ok: false, reason: `cannot be read: ${reasonOf(error)}` }
  } finally {
    closeSync(fd)
  }
}

/** `no such file or directory`, as far as the error is one of the system. */
export function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return /^[A-Z0-9]+: ([^,]+)/.exec(message)?.[1] ?? message
}

function readOpen(fd: number, maxBytes: number): FileText {
  const stat = fstatSync(fd, { bigint: true })
  if (stat.size > BigInt(maxBytes)) {
    return { ok: false, reason: `has ${stat.size} bytes, more than the limit of ${maxBytes} (maxManifestBytes)` }
  }
  const bytes = Buffer.alloc(Number(stat.size))
  let length = 0
  while (length < bytes.length) {
    const n = readSync(fd, bytes, length, bytes.length - length, length)
    if (n === 0) break
    length += n
  }
  const content = bytes.subarray(0, length)
  const zero = content.indexOf(0)
  if (zero !== -1) return { ok: false, reason: `is not text (a zero byte at offset ${zero})` }
  if (!isUtf8(content)) return { ok: false, reason: 'is not UTF-8 text' }
  return { ok: true, text: content.toString('utf8').replace(/^\uFEFF/, ''), version: versionOf(stat) }
}

function versionOf(stat: { dev: bigint; ino: bigint; size: bigint; mtimeNs: bigint; ctimeNs: bigint }): string {
  return `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}:${stat.ctimeNs}`
}
