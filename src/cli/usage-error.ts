/** Errors of the command line itself. */
import { LbError } from '../model/errors.ts'

/**
 * A wrong command line: exit status 2, or as given. `detail.exit` holds it; `detail.final` tells that a restore ends
 * there. The message is printed with a newline after it.
 */
export function usageError(message: string, exit = 2, final = true): LbError {
  return new LbError('USAGE', message, { exit, final })
}
