/** Mirrors the objects of one kind: asks the API server as the plan says, and tells a sink what there is. */
import { LbError } from '../../model/errors.ts'
import type { ApiResponse, ApiServer } from './api-server.ts'
import { ItemSplitter, LineSplitter } from './json-stream.ts'
import { type Outcome, ReflectorPlan, type ReflectorRequest } from './reflector-plan.ts'

/** Objects as the API server sends them. */
export interface KubeSink {
  /** A list begins. What was known stays known. */
  beginList(): void
  /** An object of the list, or one that came or changed. */
  set(object: unknown): void
  remove(object: unknown): void
  /** The list is whole: what it did not have is gone. */
  endList(): void
}

/** Which objects: the path of their kind, and selectors. */
export interface Resource {
  readonly path: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
  /** Asked for as long as the server knows it: it narrows what the sink could do without. */
  readonly preferredFieldSelector?: string
  /** Older servers do not have the kind: no trouble. */
  readonly optional?: boolean
}

export interface ReflectorClock {
  now(): number
  after(ms: number, run: () => void): { cancel(): void }
  /** From 0 up to 1. */
  random(): number
}

/** Waits so long, or until the signal. */
export function sleep(clock: ReflectorClock, signal: AbortSignal, ms: number): Promise<void> {
  if (ms === 0 || signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const wake = (): void => {
      timer.cancel()
      signal.removeEventListener('abort', wake)
      resolve()
    }
    const timer = clock.after(ms, wake)
    signal.addEventListener('abort', wake)
  })
}

export interface ReflectorOptions {
  readonly resource: Resource
  readonly api: ApiServer
  readonly sink: KubeSink
  readonly clock: ReflectorClock
  /** An attempt failed; undefined: things go well again. */
  readonly onTrouble: (error: unknown) => void
}

/** Without a byte for so long an answer counts as lost; a watch, once it is there, may be silent. */
const idleMs = 30_000
/** How long a watch is asked for, seconds; up to twice that, so that not all end at once. */
const watchS = 300
/** A server that lets a watch run longer than asked for has forgotten it. */
const graceMs = 30_000
/** Of an answer that refuses, as much is read. */
const refusalBytes = 65_536

/** What the server marks the end of a streamed list with. */
const initialEventsEnd = 'k8s.io/initial-events-end'

interface WatchEvent {
  readonly type?: unknown
  readonly object?: {
    readonly code?: unknown
    readonly message?: unknown
    readonly metadata?: {
      readonly resourceVersion?: unknown
      readonly annotations?: Readonly<Record<string, unknown>>
    }
  }
}

/** Ends a request that is silent for too long. */
class Watchdog {
  readonly #clock: ReflectorClock
  readonly #limit = new AbortController()
  #timer: { cancel(): void } | undefined

  constructor(clock: ReflectorClock) {
    this.#clock = clock
  }

  get signal(): AbortSignal {
    return this.#limit.signal
  }

  /** From now on this long; what was said before no longer counts. */
  wait(ms: number): void {
    this.#timer?.cancel()
    this.#timer = this.#clock.after(ms, () => this.#limit.abort(new Error(`no data for ${ms / 1000} s`)))
  }

  close(): void {
    this.#timer?.cancel()
  }
}

export class Reflector {
  readonly #options: ReflectorOptions
  readonly #plan: ReflectorPlan
  readonly #stop = new AbortController()
  #resource: Resource
  #troubled = false

  constructor(options: ReflectorOptions) {
    this.#resource = options.resource
    this.#options = options
    this.#plan = new ReflectorPlan(() => options.clock.random())
  }

  /** Follows until it is closed. Never rejects. */
  async run(): Promise<void> {
    const { clock } = this.#options
    while (!this.#stop.signal.aborted) {
      const request = this.#plan.next()
      const started = clock.now()
      const outcome = await this.#perform(request)
      if (!this.#stop.signal.aborted)
        await sleep(this.#options.clock, this.#stop.signal, this.#plan.ended(outcome, clock.now() - started))
    }
  }

  close(): void {
    this.#stop.abort()
  }

  async #perform(request: ReflectorRequest): Promise<Outcome> {
    const { clock, api } = this.#options
    const seconds = Math.round(watchS * (1 + clock.random()))
    const dog = new Watchdog(clock)
    dog.wait(idleMs)
    try {
      const signal = AbortSignal.any([this.#stop.signal, dog.signal])
      const response = await api.get(requestPath(this.#resource, request, seconds), signal)
      if (response.status !== 200) return await this.#refused(request, response)
      if (request.kind === 'page') return await this.#readPage(request.continueToken, response, dog)
      return await this.#readWatch(request.kind, response, dog, seconds * 1000 + graceMs)
    } catch (error) {
      this.#trouble(dog.signal.aborted ? new LbError('API', String(dog.signal.reason), {}, dog.signal.reason) : error)
      return { kind: 'failed', retryAfterMs: 0 }
    } finally {
      dog.close()
    }
  }

  async #refused(request: ReflectorRequest, { status, retryAfterMs, body }: ApiResponse): Promise<Outcome> {
    const message = await readMessage(body)
    if (status === 404 && this.#resource.optional === true) {
      this.#trouble(undefined)
      return { kind: 'absent' }
    }
    if (status === 410 || isTooNew(status, message)) return { kind: 'expired' }
    if (request.kind === 'stream' && (status === 400 || status === 422)) return { kind: 'unsupported' }
    if (status === 400 && this.#resource.preferredFieldSelector !== undefined) {
      // A server from before Kubernetes 1.31 does not know every field.
      const { preferredFieldSelector: _, ...resource } = this.#resource
      this.#resource = resource
    }
    this.#trouble(new LbError('API', `the API server answers ${status}: ${message}`, { status }))
    return { kind: 'failed', retryAfterMs }
  }

  async #readPage(continueToken: string, { body }: ApiResponse, dog: Watchdog): Promise<Outcome> {
    const { sink } = this.#options
    if (continueToken === '') sink.beginList()
    const items = new ItemSplitter()
    for await (const chunk of body) {
      dog.wait(idleMs)
      for (const item of items.push(chunk)) sink.set(parseJson(item))
    }
    const envelope = items.envelope()
    if (envelope.continueToken === '') sink.endList()
    this.#trouble(undefined)
    return { kind: 'page', ...envelope }
  }

  async #readWatch(
    kind: 'stream' | 'watch',
    { body }: ApiResponse,
    dog: Watchdog,
    longestMs: number,
  ): Promise<Outcome> {
    if (kind === 'stream') this.#options.sink.beginList()
    else this.#trouble(undefined)
    const lines = new LineSplitter()
    const ends = this.#options.clock.now() + longestMs
    const watch = (): void => dog.wait(this.#plan.listed ? Math.max(0, ends - this.#options.clock.now()) : idleMs)
    watch()
    try {
      for await (const chunk of body) {
        for (const line of lines.push(chunk)) {
          const outcome = this.#take(parseJson(line) as WatchEvent)
          if (outcome !== undefined) return outcome
        }
        watch()
      }
    } catch (error) {
      return this.#silent(error, dog, lines.broken)
    }
    if (lines.broken) throw new LbError('API', 'the watch ended within an event')
    return { kind: 'closed' }
  }

  /**
   * A watch that is over its time has ended. A streamed list that has no end, with no event half told, is a server's that
   * took it for a plain watch.
   */
  #silent(error: unknown, dog: Watchdog, broken: boolean): Outcome {
    if (!dog.signal.aborted || broken) throw error
    return { kind: this.#plan.listed ? 'closed' : 'unsupported' }
  }

  /** One event; the outcome if it ends the watch. */
  #take({ type, object }: WatchEvent): Outcome | undefined {
    const { sink } = this.#options
    const resourceVersion = object?.metadata?.resourceVersion
    if (type === 'ERROR') return this.#watchError(object)
    if (typeof resourceVersion !== 'string') throw new LbError('API', 'an event has no resourceVersion')
    if (type === 'ADDED' || type === 'MODIFIED') sink.set(object)
    else if (type === 'DELETED') sink.remove(object)
    else if (type !== 'BOOKMARK') throw new LbError('API', `an event of unknown type ${JSON.stringify(type)}`)
    if (type === 'BOOKMARK' && !this.#plan.listed && object?.metadata?.annotations?.[initialEventsEnd] === 'true') {
      sink.endList()
      this.#plan.completed(resourceVersion)
      this.#trouble(undefined)
    }
    this.#plan.noted(resourceVersion)
    return undefined
  }

  #watchError(status: WatchEvent['object']): Outcome {
    if (status?.code === 410) return { kind: 'expired' }
    this.#trouble(
      new LbError('API', `the API server ended a watch: ${String(status?.message)}`, { status: status?.code }),
    )
    return { kind: 'failed', retryAfterMs: 0 }
  }

  #trouble(error: unknown): void {
    // What is closed breaks off whatever it is doing: no trouble.
    if (this.#stop.signal.aborted || (error === undefined && !this.#troubled)) return
    this.#troubled = error !== undefined
    this.#options.onTrouble(error)
  }
}

/** All objects of a resource that has few, in one answer. Throws API. */
export async function listOnce(
  api: ApiServer,
  resource: Resource,
  clock: ReflectorClock,
  stop: AbortSignal,
): Promise<unknown[]> {
  const dog = new Watchdog(clock)
  dog.wait(idleMs)
  try {
    const request = { kind: 'page', resourceVersion: '0', limit: 0, continueToken: '' } as const
    const { status, body } = await api.get(requestPath(resource, request, 0), AbortSignal.any([stop, dog.signal]))
    if (status !== 200)
      throw new LbError('API', `the API server answers ${status}: ${await readMessage(body)}`, { status })
    const items = new ItemSplitter()
    const objects: unknown[] = []
    for await (const chunk of body) objects.push(...items.push(chunk).map(parseJson))
    items.envelope()
    return objects
  } finally {
    dog.close()
  }
}

/** `/api/v1/services?labelSelector=...&watch=1...` */
function requestPath(resource: Resource, request: ReflectorRequest, seconds: number): string {
  const { path, labelSelector, fieldSelector = resource.preferredFieldSelector } = resource
  const query = new URLSearchParams()
  if (labelSelector !== undefined) query.set('labelSelector', labelSelector)
  if (fieldSelector !== undefined) query.set('fieldSelector', fieldSelector)
  if (request.kind === 'page') {
    if (request.limit > 0) query.set('limit', String(request.limit))
    if (request.continueToken !== '') query.set('continue', request.continueToken)
  } else {
    query.set('watch', 'true')
    query.set('allowWatchBookmarks', 'true')
    query.set('timeoutSeconds', String(seconds))
  }
  if (request.kind === 'stream') {
    query.set('sendInitialEvents', 'true')
    query.set('resourceVersionMatch', 'NotOlderThan')
  }
  if (request.resourceVersion !== '') query.set('resourceVersion', request.resourceVersion)
  return `${path}?${query}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new LbError('API', `the API server sent what is not JSON: ${text.slice(0, 60)}`, {}, error)
  }
}

/** What a refusal says: the message of its Status, or the beginning of its text. */
export async function readMessage(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of body) {
    chunks.push(chunk)
    length += chunk.length
    if (length > refusalBytes) break
  }
  const text = Buffer.concat(chunks).toString('utf8')
  try {
    const { message } = JSON.parse(text) as { message?: unknown }
    if (typeof message === 'string') return message
  } catch {
    // Not a Status: a proxy's page, perhaps.
  }
  return text.slice(0, 200).trim()
}

/** The server's cache has not come so far yet, perhaps because it is another server than before. */
function isTooNew(status: number, message: string): boolean {
  return status === 504 && message.includes('Too large resource version')
}
