/** Server-sent events: that the table was edited, by anybody. Looks only while somebody listens. */
import type { FastifyReply } from 'fastify'
import { RequestError } from './problem.ts'

export interface FeedOptions {
  /** Count of edits; undefined: there is no table at present. */
  readonly generation: () => bigint | undefined
  readonly every: (ms: number, run: () => void) => { cancel(): void }
}

const lookMs = 250
/** A comment goes out so often, for what stands between to keep the connection. */
const restMs = 15_000
const mostListeners = 64
/** A listener that has so much waiting reads no more. */
const mostWaiting = 65_536

export class ChangeFeed {
  readonly #options: FeedOptions
  readonly #listeners = new Set<(text: string) => void>()
  #timer: { cancel(): void } | undefined
  #seen: bigint | undefined
  #quietMs = 0

  constructor(options: FeedOptions) {
    this.#options = options
  }

  /** Sends the state at present, and every later one: several edits may be one event. Undefined: there are too many. */
  listen(send: (text: string) => void): { cancel(): void } | undefined {
    if (this.#listeners.size >= mostListeners) return undefined
    if (this.#timer === undefined) {
      this.#seen = this.#options.generation()
      this.#timer = this.#options.every(lookMs, () => this.#look())
    }
    this.#listeners.add(send)
    send(eventText(this.#seen))
    return { cancel: () => this.#drop(send) }
  }

  #drop(send: (text: string) => void): void {
    this.#listeners.delete(send)
    if (this.#listeners.size > 0) return
    this.#timer?.cancel()
    this.#timer = undefined
  }

  #look(): void {
    const now = this.#options.generation()
    this.#quietMs += lookMs
    if (now !== this.#seen) this.#tell(eventText(now))
    else if (this.#quietMs >= restMs) this.#tell(':\n\n')
    this.#seen = now
  }

  #tell(text: string): void {
    this.#quietMs = 0
    for (const send of [...this.#listeners]) send(text)
  }
}

function eventText(generation: bigint | undefined): string {
  if (generation === undefined) return 'event: no-table\ndata: {}\n\n'
  return `event: table\nid: ${generation}\ndata: {"generation":"${generation}"}\n\n`
}

/** Answers with the feed, until the client goes. */
export function streamEvents(feed: ChangeFeed, reply: FastifyReply): void {
  const { raw } = reply
  const listening = feed.listen((text) => {
    if (!raw.headersSent) raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
    if (raw.writableLength > mostWaiting) raw.destroy()
    else raw.write(text)
  })
  if (listening === undefined) throw new RequestError(429, `at most ${mostListeners} listeners`)
  reply.hijack()
  raw.once('close', () => listening.cancel())
}

/** What the OpenAPI document says of it. */
export const eventsOperation = {
  operationId: 'watchTable',
  summary: 'Server-sent events: `table` with the generation, at once and after edits; `no-table` while there is none',
  responses: {
    200: { description: 'OK', content: { 'text/event-stream': { schema: { type: 'string' } } } },
    429: { description: 'Too Many Requests' },
  },
} as const
