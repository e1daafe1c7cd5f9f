/** Running short commands of the system: ip, ethtool, bpvsadm. */
import { spawn } from 'node:child_process'
import { LbError } from '../model/errors.ts'

export interface CommandOptions {
  /** Text for the command's standard input. */
  readonly input?: string
  /** The command is killed after this time. Default: 60,000 ms. */
  readonly timeoutMs?: number
  readonly env?: NodeJS.ProcessEnv
  readonly cwd?: string
}

export interface CommandResult {
  /** Exit status; null when a signal ended the command. */
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command to its end. Rejects (NATIVE) only when it cannot be started; a status is for the caller to judge. */
export function run(file: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      timeout: options.timeoutMs ?? 60_000,
      killSignal: 'SIGKILL',
      env: options.env,
      cwd: options.cwd,
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.once('error', (cause) => {
      reject(new LbError('NATIVE', `${file}: ${cause.message}`, { call: 'spawn', file }, cause))
    })
    child.once('close', (status, signal) => resolve({ status, signal, stdout, stderr }))
    // A command that ends without reading its input closes the pipe: its status tells what was wrong.
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

/** Runs a command that has to succeed and returns its output. NATIVE with the command line, its status and its words. */
export async function must(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await run(file, args, options)
  if (result.status === 0) return result.stdout
  const words = (result.stderr || result.stdout).trim()
  const ended = result.status === null ? `signal ${result.signal}` : `status ${result.status}`
  const input = options.input === undefined ? '' : ` < ${JSON.stringify(options.input)}`
  throw new LbError('NATIVE', `${file} ${args.join(' ')}: ${ended}: ${words}${input}`, { file, args, ...result })
}
