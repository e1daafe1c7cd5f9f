/** Streams of requests: so many at a time, at a rate, until a count or until stopped. */
import { Agent } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { dnsQuery, httpGet } from './clients.ts'
import type { DnsLoadOptions, HttpLoadOptions, LoadOptions, Outcome } from './host-api.ts'
import { type Report, Tally } from './tally.ts'

/** Sends one request and tells who answered. */
type Request = () => Promise<Outcome<{ readonly server: string }>>

/** A sender that is late by more than this has missed its turns: it does not make up for them in a burst. */
const maxLateMs = 250

/** One stream of requests. */
export class Load {
  /** Resolves when the stream is over. */
  readonly done: Promise<void>
  readonly #tally = new Tally()
  readonly #options: LoadOptions
  readonly #request: Request
  readonly #stopped = new AbortController()
  #started = 0
  #nextTurn = performance.now()

  constructor(options: LoadOptions, request: Request, end: () => void = () => {}) {
    this.#options = options
    this.#request = request
    const senders = Array.from({ length: options.concurrency ?? 1 }, () => this.#send())
    this.done = Promise.all(senders).then(end)
  }

  report(reset: boolean): Report {
    return this.#tally.report(reset)
  }

  /** Sends no further request; `done` resolves when those in flight have ended. */
  stop(): void {
    this.#stopped.abort()
  }

  async #send(): Promise<void> {
    for (;;) {
      if (this.#stopped.signal.aborted || this.#started >= (this.#options.count ?? Infinity)) return
      this.#started += 1
      if (!(await this.#turn())) return
      this.#tally.sent()
      const start = performance.now()
      const outcome = await this.#request()
      if ('value' in outcome) this.#tally.answered(outcome.value.server, performance.now() - start)
      else this.#tally.failed(outcome.error)
    }
  }

  /** Waits for this sender's turn at the asked rate; false when the stream was stopped meanwhile. */
  async #turn(): Promise<boolean> {
    if (this.#options.ratePerSecond === undefined) return true
    const now = performance.now()
    const turn = Math.max(this.#nextTurn, now - maxLateMs)
    this.#nextTurn = turn + 1000 / this.#options.ratePerSecond
    if (turn <= now) return true
    return delay(turn - now, true, { signal: this.#stopped.signal }).catch(() => false)
  }
}

/** Starts a stream of HTTP requests. */
export function httpLoad(options: HttpLoadOptions): Load {
  if (options.keepAlive !== true) return new Load(options, () => httpGet(options))
  const agent = new Agent({ keepAlive: true, maxSockets: options.concurrency ?? 1 })
  return new Load(
    options,
    () => httpGet(options, agent),
    () => agent.destroy(),
  )
}

/** Starts a stream of DNS questions. */
export function dnsLoad(options: DnsLoadOptions): Load {
  return new Load(options, () => dnsQuery(options))
}
