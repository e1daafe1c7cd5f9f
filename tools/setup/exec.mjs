/** Running other programs during setup: silent when they work, their whole output when they fail. */
import { spawnSync } from 'node:child_process'

/** What stops setup. Its message is one clear line; `output` is what the program that failed has said. */
export class SetupError extends Error {
  /**
   * @param {string} message
   * @param {string} [output]
   */
  constructor(message, output = '') {
    super(message)
    this.output = output
  }
}

/**
 * Tells the user what is being done. Standard output stays for what the user has asked for.
 * @param {string} text
 */
export function say(text) {
  process.stderr.write(`bpvs: ${text}\n`)
}

/**
 * Runs a program to its end.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {{ status: number | null, output: string }} what it printed, on both streams
 * @throws {SetupError} if it can't be started
 */
export function run(command, args, options = {}) {
  const done = spawnSync(command, args, {
    ...options,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (done.error) throw new SetupError(`can't run ${command}: ${done.error.message}`)
  if (done.signal) throw new SetupError(`${command} was ended by ${done.signal}`, done.stdout + done.stderr)
  return { status: done.status, output: done.stdout + done.stderr }
}

/**
 * Runs a program that must succeed.
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @throws {SetupError} if it can't be started or fails
 */
export function mustRun(command, args, options) {
  const { status, output } = run(command, args, options)
  if (status !== 0) throw new SetupError(`${command} failed with status ${status}`, output)
}
