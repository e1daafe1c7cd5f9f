/** Errors a caller can act on: one class, one table of stable codes. */

/** What each code means to a command line (exit status, as ipvsadm's) and to HTTP. */
export const errorCodes = {
  SERVICE_EXISTS: { exit: 255, http: 409, text: 'Service already exists' },
  NO_SERVICE: { exit: 255, http: 404, text: 'No such service' },
  SERVER_EXISTS: { exit: 255, http: 409, text: 'Destination already exists' },
  NO_SERVER: { exit: 255, http: 404, text: 'No such destination' },
  NO_CONNECTION: { exit: 255, http: 404, text: 'No such connection' },
  SERVICE_NOT_DEFINED: { exit: 255, http: 404, text: 'Service not defined' },
  NO_SCHEDULER: { exit: 255, http: 400, text: 'Scheduler or persistence engine not found' },
  RANGE: { exit: 255, http: 400, text: 'Numerical result out of range' },
  INVALID: { exit: 255, http: 400, text: 'Invalid argument' },
  TABLE_FULL: { exit: 255, http: 507, text: 'No space left in the table' },
  LAYOUT: { exit: 255, http: 500, text: 'The table has another layout' },
  NATIVE: { exit: 255, http: 500, text: 'A system call failed' },
  VERIFIER: { exit: 255, http: 500, text: 'The kernel refused a program' },
  UNSUPPORTED: { exit: 255, http: 501, text: 'Not supported on this system' },
  PERMISSION: { exit: 2, http: 403, text: 'Permission denied (you must be root)' },
  CHANGED: { exit: 255, http: 412, text: 'It has changed meanwhile' },
  NO_TABLE: { exit: 255, http: 503, text: 'There is no table at present' },
  USAGE: { exit: 2, http: 400, text: 'Wrong usage' },
  MANIFEST: { exit: 1, http: 400, text: 'Bad manifest' },
  CONFIG: { exit: 1, http: 400, text: 'Bad configuration' },
  API: { exit: 1, http: 502, text: 'The Kubernetes API server cannot be used' },
} as const

export type ErrorCode = keyof typeof errorCodes

/** The one error class. `code` is stable; `detail` holds what and where (call and errno, file and line, ...). */
export class LbError extends Error {
  readonly code: ErrorCode
  readonly detail: Readonly<Record<string, unknown>>

  constructor(code: ErrorCode, message?: string, detail: Record<string, unknown> = {}, cause?: unknown) {
    super(message ?? errorCodes[code].text, cause === undefined ? undefined : { cause })
    this.name = 'LbError'
    this.code = code
    this.detail = detail
  }
}
