/** Tells when a file no longer says what it said. */
import { readFileSync } from 'node:fs'
import type { Timers } from './ports.ts'

const lookMs = 2000

/**
 * Looks at the file every two seconds, and calls back once when its text is another. While it cannot be read, as in the
 * middle of an update, nothing has changed. Without a file: does nothing.
 */
export function followFile(
  file: { readonly path: string; readonly text: string } | undefined,
  timers: Timers,
  onChange: () => void,
  read: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): { close(): void } {
  if (file === undefined) return { close: () => {} }
  const timer = timers.every(lookMs, () => {
    let text: string
    try {
      text = read(file.path)
    } catch {
      return
    }
    if (text === file.text) return
    timer.cancel()
    onChange()
  })
  return { close: () => timer.cancel() }
}
