/** How often something may happen: a bucket that fills at a steady rate. Pure: it is told the time. */

export interface RateLimitOptions {
  readonly perSecond: number
  /** As many at once, after a pause. */
  readonly burst: number
}

export class RateLimit {
  readonly #options: RateLimitOptions
  #left: number
  #lastMs = 0

  constructor(options: RateLimitOptions) {
    this.#options = options
    this.#left = options.burst
  }

  /** Takes one. 0: it may be; else the milliseconds until there is one again. */
  take(nowMs: number): number {
    const { perSecond, burst } = this.#options
    this.#left = Math.min(burst, this.#left + ((nowMs - this.#lastMs) * perSecond) / 1000)
    this.#lastMs = nowMs
    if (this.#left < 1) return ((1 - this.#left) * 1000) / perSecond
    this.#left--
    return 0
  }
}
