/**
 * Writes events to the API server: one after the other, not too many, each only once as long as it comes again soon (then it
 * becomes a series). Nothing waits for it and nothing fails by it: what cannot be written is forgotten.
 */
import { LbError } from '../../model/errors.ts'
import {
  type EventSink,
  eventName,
  eventNamespace,
  eventObject,
  eventText,
  type KubeEvent,
  seriesPatch,
} from '../events.ts'
import type { ApiWriter } from './api-server.ts'
import { Backoff } from './backoff.ts'
import { readMessage, type ReflectorClock, sleep } from './reflector.ts'

export interface EventRecorderOptions {
  readonly api: ApiWriter
  readonly clock: ReflectorClock
  /** Milliseconds since 1970. */
  readonly wallMs: () => number
  readonly host: string
  /** Events cannot be written; undefined: they can again. */
  readonly onTrouble: (error: unknown) => void
}

/** So many are written at once, then one a second. */
const burst = 25
const perTokenMs = 1000
/** More than these wait for nobody: the oldest is forgotten. */
const longestQueue = 500
/** What came before this is another series. As client-go's recorder. */
const seriesMs = 360_000
const mostSeries = 2000
const mostTries = 8
const answerMs = 30_000
/** After so many refusals in a row the server is left alone for a while: it does not let us write events. */
const mostRefusals = 3
const silentMs = 600_000

/** An event that was recorded. */
interface Series {
  readonly event: KubeEvent
  name: string
  count: number
  atMs: number
  timeMs: number
  /** It waits to be written. */
  queued: boolean
  written: boolean
}

export class EventRecorder implements EventSink {
  readonly #options: EventRecorderOptions
  readonly #backoff: Backoff
  readonly #stop = new AbortController()
  /** By eventText, the one longest unused first. */
  readonly #series = new Map<string, Series>()
  #queue: Series[] = []
  #running = false
  #tokens = burst
  #filledMs: number
  #silentUntilMs = Number.NEGATIVE_INFINITY
  #refusals = 0
  #names = 0n
  #troubled = false

  constructor(options: EventRecorderOptions) {
    this.#options = options
    this.#backoff = new Backoff({ firstMs: 1000, lastMs: 60_000 }, () => options.clock.random())
    this.#filledMs = options.clock.now()
  }

  record(event: KubeEvent): void {
    const { clock, wallMs } = this.#options
    const now = clock.now()
    if (this.#stop.signal.aborted || this.isSilent) return
    const text = eventText(event)
    const known = this.#series.get(text)
    const series = known !== undefined && now - known.atMs < seriesMs ? known : this.#begin(event)
    series.count++
    series.atMs = now
    series.timeMs = wallMs()
    this.#series.delete(text)
    this.#series.set(text, series)
    for (const [oldest] of this.#series) {
      if (this.#series.size <= mostSeries) break
      this.#series.delete(oldest)
    }
    this.#enqueue(series)
  }

  /** The server has refused events, and for a while none is written. */
  get isSilent(): boolean {
    return this.#options.clock.now() < this.#silentUntilMs
  }

  /** Writes nothing more. */
  close(): void {
    this.#stop.abort()
    this.#queue = []
  }

  #begin(event: KubeEvent): Series {
    const timeMs = this.#options.wallMs()
    const name = eventName(event, BigInt(Math.floor(timeMs)) * 1_000_000n + this.#names++)
    return { event, name, count: 0, atMs: 0, timeMs, queued: false, written: false }
  }

  #enqueue(series: Series): void {
    if (series.queued) return
    series.queued = true
    this.#queue.push(series)
    if (this.#queue.length > longestQueue) this.#forget(this.#queue.shift())
    if (!this.#running) void this.#run()
  }

  #forget(series: Series | undefined): void {
    if (series !== undefined) series.queued = false
  }

  async #run(): Promise<void> {
    this.#running = true
    for (let series = this.#queue.shift(); series !== undefined; series = this.#queue.shift()) {
      await this.#takeToken()
      series.queued = false
      await this.#write(series)
    }
    this.#running = false
  }

  async #takeToken(): Promise<void> {
    const { clock } = this.#options
    const fill = (): void => {
      const more = Math.floor((clock.now() - this.#filledMs) / perTokenMs)
      this.#filledMs += more * perTokenMs
      this.#tokens = Math.min(burst, this.#tokens + more)
    }
    for (fill(); this.#tokens === 0; fill()) {
      await sleep(this.#options.clock, this.#stop.signal, perTokenMs)
      if (this.#stop.signal.aborted) return
    }
    this.#tokens--
  }

  /** Tries a few times, unless the server says that it will not have it. */
  async #write(series: Series): Promise<void> {
    for (let tries = 1; !this.#stop.signal.aborted; tries++) {
      let askedMs = 0
      try {
        const { status, retryAfterMs, message } = await this.#send(series)
        // It is there: an earlier try came through.
        if (status < 300 || status === 409) return this.#wrote(series)
        this.#trouble(new LbError('API', `the API server answers ${status}: ${message}`, { status }))
        if (status === 404 && series.written) series.written = false
        else if (!isPassing(status)) return this.#refused()
        askedMs = retryAfterMs
      } catch (error) {
        if (this.#stop.signal.aborted) return
        this.#trouble(error)
      }
      if (tries === mostTries) return
      await sleep(this.#options.clock, this.#stop.signal, this.#backoff.failed(askedMs))
    }
  }

  async #send({ event, name, written, count, timeMs }: Series) {
    const { api, host, clock } = this.#options
    const path = `/apis/events.k8s.io/v1/namespaces/${eventNamespace(event)}/events`
    const limit = new AbortController()
    const timer = clock.after(answerMs, () => limit.abort(new Error(`no answer for ${answerMs / 1000} s`)))
    const signal = AbortSignal.any([this.#stop.signal, limit.signal])
    try {
      const { status, retryAfterMs, body } = written
        ? await api.send('PATCH', `${path}/${name}`, seriesPatch(count, timeMs), signal)
        : await api.send('POST', path, eventObject(event, name, host, timeMs), signal)
      return { status, retryAfterMs, message: await readMessage(body) }
    } finally {
      timer.cancel()
    }
  }

  #wrote(series: Series): void {
    series.written = true
    this.#refusals = 0
    this.#backoff.succeeded()
    this.#trouble(undefined)
  }

  #refused(): void {
    this.#refusals++
    if (this.#refusals < mostRefusals) return
    this.#silentUntilMs = this.#options.clock.now() + silentMs
    for (const series of this.#queue) this.#forget(series)
    this.#queue = []
    this.#series.clear()
  }

  #trouble(error: unknown): void {
    if (error === undefined ? this.#troubled : !this.#troubled) this.#options.onTrouble(error)
    this.#troubled = error !== undefined
  }
}

/** Whether it may go better another time. */
function isPassing(status: number): boolean {
  return status === 401 || status === 408 || status === 429 || status >= 500
}
