/** What libbpf and the verifier say of a failed load, as an error that can be read. Pure. */
import { LbError } from '../model/errors.ts'
import { errno, nativeError } from './library.ts'

/** Lines of the verifier's log that the message shows: the reason is at the end. */
const SHOWN_LINES = 12

/** What a failed load means: EACCES with a verifier's log is no lack of permission. */
export function loadError(path: string, number: number, log: string): LbError {
  const lines = log.split('\n').filter((line) => line.trim() !== '')
  const missing = /^(?:unknown|invalid) func (?:unknown)?(\S+)$/m.exec(log)?.[1]
  const detail = { call: 'bpf_object__load', errno: number, path, log }
  if (missing !== undefined) {
    return new LbError('UNSUPPORTED', `this kernel has no BPF helper ${missing} for this program`, detail)
  }
  const start = lines.findIndex((line) => line.includes('BEGIN PROG LOAD LOG'))
  if (start >= 0) {
    const program = /prog '(\w+)'/.exec(lines[start] ?? '')?.[1] ?? path
    const end = lines.findIndex((line) => line.includes('END PROG LOAD LOG'))
    const shown = lines.slice(Math.max(start + 1, end - SHOWN_LINES), end)
    return new LbError('VERIFIER', `the kernel refused program ${program}:\n${shown.join('\n')}`, {
      ...detail,
      program,
    })
  }
  const { code, message } = nativeError('bpf_object__load', number, path)
  if (number === errno.EPERM) return new LbError('PERMISSION', message, detail)
  return new LbError(code, `${message}\n${lines.slice(-SHOWN_LINES).join('\n')}`, detail)
}
