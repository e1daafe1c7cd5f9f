/** Which bpvs this is. */
import { readFileSync } from 'node:fs'

/** As package.json has it: 0.1.0. */
export function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { version: string }
  return version
}
