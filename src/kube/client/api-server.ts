/** Requests to the API server: the status, and the body as it arrives. */
import { type IncomingMessage, type RequestOptions, request as requestPlain } from 'node:http'
import { request as requestTls } from 'node:https'
import { LbError } from '../../model/errors.ts'
import type { Credentials } from './credentials.ts'

export interface ApiResponse {
  readonly status: number
  /** What Retry-After asks for, milliseconds; 0: nothing. */
  readonly retryAfterMs: number
  /** Throws API when the connection breaks or stays silent. */
  readonly body: AsyncIterable<Buffer>
}

/** The API server as the reflectors use it. */
export interface ApiServer {
  /** GETs a path with its query. Throws API when there is no answer; `signal` ends it, whatever it is doing. */
  get(path: string, signal: AbortSignal): Promise<ApiResponse>
}

/** The API server as the recorder of events uses it. */
export interface ApiWriter {
  /** Creates an object, or merges into one what a patch has. Throws API when there is no answer. */
  send(method: 'POST' | 'PATCH', path: string, object: object, signal: AbortSignal): Promise<ApiResponse>
}

/** A request that was answered, or not. */
export interface ApiRequest {
  readonly method: string
  /** Of the API server, with its port where the URL has one. */
  readonly host: string
  /** Undefined: there was no answer. */
  readonly status: number | undefined
  /** Until the head of the answer was there, milliseconds. */
  readonly tookMs: number
  /** It goes on, with what changes. */
  readonly watch: boolean
}

/** A dead peer is noticed in this time and some ten seconds more, also when nothing is sent. */
const keepAliveMs = 15_000
/** Credentials that the server refused are read anew, but not more often than this. */
const reloadMs = 1000

/** The API server by HTTP. Credentials are read with the first request, and anew when the server refuses them. */
export class HttpApiServer implements ApiServer, ApiWriter {
  readonly #load: () => Promise<Credentials>
  readonly #now: () => number
  readonly #onRequest: (request: ApiRequest) => void
  readonly #firstSent = Promise.withResolvers<void>()
  #credentials: { readonly loaded: Promise<Credentials>; readonly atMs: number } | undefined

  constructor(
    load: () => Promise<Credentials>,
    now: () => number = () => performance.now(),
    onRequest: (request: ApiRequest) => void = () => undefined,
  ) {
    this.#load = load
    this.#now = now
    this.#onRequest = onRequest
  }

  /** Fulfilled when the first request is on its way to the server. */
  get sent(): Promise<void> {
    return this.#firstSent.promise
  }

  get(path: string, signal: AbortSignal): Promise<ApiResponse> {
    return this.#request({ method: 'GET', headers: {} }, path, '', signal)
  }

  send(method: 'POST' | 'PATCH', path: string, object: object, signal: AbortSignal): Promise<ApiResponse> {
    const body = JSON.stringify(object)
    const type = method === 'POST' ? 'application/json' : 'application/merge-patch+json'
    const headers = { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) }
    return this.#request({ method, headers }, path, body, signal)
  }

  async #request(
    { method, headers }: Pick<RequestOptions, 'method' | 'headers'>,
    path: string,
    body: string,
    signal: AbortSignal,
  ): Promise<ApiResponse> {
    const { server, apply } = await this.#current()
    const options: RequestOptions = { headers: {} }
    await apply(options)
    options.method = method
    options.headers = { ...options.headers, ...headers, Accept: 'application/json', 'User-Agent': 'bpvsd' }
    const base = server.pathname.replace(/\/$/, '')
    const url = new URL(`${base}${path}`, server)
    const startMs = this.#now()
    const tell = (status: number | undefined): void => {
      const watch = url.searchParams.get('watch') !== null
      this.#onRequest({ method: method ?? 'GET', host: url.host, status, tookMs: this.#now() - startMs, watch })
    }
    let response: IncomingMessage
    try {
      response = await send(url, { ...options, signal }, body, this.#firstSent.resolve)
    } catch (error) {
      if (!signal.aborted) tell(undefined)
      throw error
    }
    const status = response.statusCode ?? 0
    tell(status)
    if (status === 401) this.#refused()
    return { status, retryAfterMs: retryAfter(response, Date.now()), body: bodyOf(response) }
  }

  async #current(): Promise<Credentials> {
    this.#credentials ??= { loaded: this.#load(), atMs: this.#now() }
    const { loaded } = this.#credentials
    try {
      return await loaded
    } catch (error) {
      this.#credentials = undefined
      throw error
    }
  }

  #refused(): void {
    if (this.#credentials !== undefined && this.#now() - this.#credentials.atMs >= reloadMs) {
      this.#credentials = undefined
    }
  }
}

/** Resolves when the head of the answer is there. */
function send(url: URL, options: RequestOptions, body: string, onSent: () => void): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? requestTls : requestPlain)(url, options)
    request.setSocketKeepAlive(true, keepAliveMs)
    request.on('finish', onSent)
    request.on('error', (error) => reject(broken(error)))
    request.on('response', resolve)
    request.end(body)
  })
}

async function* bodyOf(response: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of response) yield chunk as Buffer
  } catch (error) {
    throw broken(error)
  }
}

function broken(error: unknown): LbError {
  const reason = error instanceof Error ? error.message : String(error)
  return new LbError('API', `the API server cannot be reached: ${reason}`, {}, error)
}

/** Seconds or a date; 0 for anything else. */
function retryAfter({ headers }: IncomingMessage, nowMs: number): number {
  const text = headers['retry-after']
  if (text === undefined) return 0
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const date = Date.parse(text)
  return Number.isNaN(date) ? 0 : Math.max(0, date - nowMs)
}
