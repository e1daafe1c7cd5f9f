/** Tells what was applied: a change that comes alone at once, many in a row in sums, a few lines a second. */
import type { Log } from '../observe/log.ts'
import type { Timers } from './ports.ts'

/** What one apply did, or several. */
export interface AppliedLine {
  /** Wanted in all. */
  readonly services: number
  readonly servers: number
  readonly added: number
  readonly changed: number
  readonly removed: number
  readonly failed: number
  readonly ms: number
}

export class AppliedLog {
  readonly #log: Log
  readonly #timers: Timers
  readonly #pauseMs: number
  #saidMs = Number.NEGATIVE_INFINITY
  #waiting: AppliedLine | undefined
  #timer: { cancel(): void } | undefined

  /** `pauseMs`: from one line to the next; 0: every apply has its own. */
  constructor(log: Log, timers: Timers, pauseMs: number) {
    this.#log = log
    this.#timers = timers
    this.#pauseMs = pauseMs
  }

  say(line: AppliedLine): void {
    this.#waiting = this.#waiting === undefined ? line : sumOf(this.#waiting, line)
    const restMs = this.#saidMs + this.#pauseMs - this.#timers.now()
    if (restMs <= 0) this.flush()
    else this.#timer ??= this.#timers.after(restMs, () => this.flush())
  }

  /** Says what waits. */
  flush(): void {
    this.#timer?.cancel()
    this.#timer = undefined
    const line = this.#waiting
    if (line === undefined) return
    this.#waiting = undefined
    this.#saidMs = this.#timers.now()
    this.#log.info({ ...line, ms: roundMs(line.ms) }, 'applied')
  }
}

/** To a tenth. */
export function roundMs(ms: number): number {
  return Math.round(ms * 10) / 10
}

function sumOf(before: AppliedLine, last: AppliedLine): AppliedLine {
  return {
    ...last,
    added: before.added + last.added,
    changed: before.changed + last.changed,
    removed: before.removed + last.removed,
    ms: before.ms + last.ms,
  }
}
