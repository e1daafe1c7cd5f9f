/** bpvsd in the lab's director. */
import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { LbError } from '../model/errors.ts'
import type { LogLevel } from '../observe/log.ts'
import { projectFile } from './project.ts'
import type { Topology } from './topology.ts'

const levels: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal']

/** Whether a level is as grave as another, or graver. */
export function isAtLeast(level: LogLevel, other: LogLevel): boolean {
  return levels.indexOf(level) >= levels.indexOf(other)
}

/** A line of bpvsd's log, reduced to what the lab shows. */
export interface LogLine {
  readonly level: LogLevel
  readonly text: string
}

/** Fields of a log line that say nothing about what happened. */
const commonFields = new Set(['level', 'time', 'pid', 'hostname', 'name', 'msg', 'v'])

function fieldText(value: unknown): string {
  if (typeof value === 'object' && value !== null && 'message' in value) return String(value.message)
  return typeof value === 'string' ? value : JSON.stringify(value)
}

/** Reads a line of the log; a line that is no JSON object is an error's bare text. */
export function parseLogLine(line: string): LogLine {
  try {
    const fields: unknown = JSON.parse(line)
    if (typeof fields !== 'object' || fields === null) return { level: 'error', text: line }
    const { level = 'info', msg = '', problem } = fields as { level?: LogLevel; msg?: string; problem?: string }
    // A manifest's problem says it all: file, line, object and reason.
    if (problem !== undefined) return { level, text: `${msg}: ${problem}` }
    const rest = Object.entries(fields).filter(([key]) => !commonFields.has(key))
    return { level, text: [msg, ...rest.map(([key, value]) => `${key}=${fieldText(value)}`)].join(' ') }
  } catch {
    return { level: 'error', text: line }
  }
}

export class Bpvsd {
  readonly #child: ChildProcess
  readonly #lastWords: string[] = []
  /** Resolves after bpvsd's first apply; rejects (NATIVE, with its last words) when it ends before. */
  readonly ready: Promise<void>
  /** Resolves when it has ended, with how. */
  readonly ended: Promise<string>
  isReady = false

  constructor(topology: Topology, manifests: string, onLine: (line: LogLine) => void = () => {}) {
    const args = ['--manifests', manifests, '--admin-socket=']
    this.#child = topology.spawn('director', projectFile('bin/bpvsd'), args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.ended = new Promise((resolve) => {
      this.#child.once('error', ({ message }) => resolve(message))
      this.#child.once('close', (status, signal) => resolve(signal === null ? `status ${status}` : `signal ${signal}`))
    })
    this.ready = new Promise((resolve, reject) => {
      this.#onEachLine((line) => {
        onLine(line)
        this.isReady ||= /^ready\b/.test(line.text)
        if (this.isReady) resolve()
      })
      void this.ended.then((how) => {
        const words = this.#lastWords.join('\n  ')
        reject(new LbError('NATIVE', `bpvsd ended with ${how} before it was ready:\n  ${words}`, { how }))
      })
    })
    // Whoever waits gets the rejection; nobody has to.
    this.ready.catch(() => {})
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Sends a signal and waits for the end. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#child.kill(signal)
    await this.ended
  }

  /** Asks it to end, and makes it after three seconds. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 3_000)
    await this.kill('SIGTERM')
    clearTimeout(timer)
  }

  #onEachLine(handle: (line: LogLine) => void): void {
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue
      createInterface({ input: stream }).on('line', (text) => {
        const line = parseLogLine(text)
        this.#lastWords.push(line.text)
        if (this.#lastWords.length > 12) this.#lastWords.shift()
        handle(line)
      })
    }
  }
}
