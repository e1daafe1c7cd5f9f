/** Waiting between attempts: longer after each failure, up to a bound, and never in step with other clients. Pure. */

export interface BackoffLimits {
  /** Before the first retry, milliseconds. */
  readonly firstMs: number
  readonly lastMs: number
}

/** What a server may ask for at most: a Retry-After of days is a mistake. */
const longestAskedMs = 300_000

export class Backoff {
  readonly #limits: BackoffLimits
  readonly #random: () => number
  #failures = 0

  /** `random` gives numbers from 0 up to 1. */
  constructor(limits: BackoffLimits, random: () => number) {
    this.#limits = limits
    this.#random = random
  }

  /** Failures since the last success. */
  get failures(): number {
    return this.#failures
  }

  succeeded(): void {
    this.#failures = 0
  }

  /** How long to wait after one more failure, milliseconds: never less than the server asked for. */
  failed(askedMs = 0): number {
    const { firstMs, lastMs } = this.#limits
    const wait = Math.min(firstMs * 2 ** Math.min(this.#failures, 30), lastMs)
    this.#failures++
    const jittered = wait / 2 + (wait / 2) * this.#random()
    const asked = Math.min(askedMs, longestAskedMs)
    return asked > jittered ? asked + firstMs * this.#random() : jittered
  }
}
