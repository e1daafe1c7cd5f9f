/**
 * An API server for tests, over real HTTP: lists with pages, watches with bookmarks and streaming lists, versions that
 * expire, tokens; and everything that can go wrong between it and a client.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { TestEvents } from './api-events.ts'

/** An object as the API has it. */
export interface ApiObject {
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
    readonly uid?: string
  }
  readonly [field: string]: unknown
}

type Stored = ApiObject & { readonly metadata: { readonly resourceVersion: string } }

interface Change {
  readonly version: number
  readonly before: Stored | undefined
  readonly after: Stored | undefined
}

/** A kind's objects and their history. */
interface Collection {
  readonly kind: string
  readonly apiVersion: string
  readonly objects: Map<string, Stored>
  readonly changes: Change[]
}

interface Watch {
  readonly response: ServerResponse
  readonly collection: Collection
  readonly selects: (object: Stored) => boolean
}

export interface ApiRequest {
  readonly method: string
  readonly path: string
  readonly query: URLSearchParams
  readonly authorization: string | undefined
}

/** An answer in place of the right one. */
export interface Fault {
  readonly status: number
  readonly message?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** As much of a streamed list is written at once. */
const pieceLength = 65_536

const kinds = {
  '/api/v1/services': { kind: 'Service', apiVersion: 'v1' },
  '/api/v1/nodes': { kind: 'Node', apiVersion: 'v1' },
  '/apis/discovery.k8s.io/v1/endpointslices': { kind: 'EndpointSlice', apiVersion: 'discovery.k8s.io/v1' },
  '/apis/networking.k8s.io/v1/servicecidrs': { kind: 'ServiceCIDR', apiVersion: 'networking.k8s.io/v1' },
} as const
type Kind = (typeof kinds)[keyof typeof kinds]['kind']

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

export class TestApiServer {
  readonly requests: ApiRequest[] = []
  readonly events = new TestEvents()
  /** Asked before every answer; a fault is answered in place of it. */
  fault: (request: ApiRequest) => Fault | 'reset' | 'silence' | undefined = () => undefined
  /** Knows streaming lists; without, it refuses them as old servers do. */
  streams: boolean | 'ignores' = true
  /** Bytes that are written at once, with a turn of the event loop between; 0: as they come. */
  chunkBytes = 0
  /** Tokens that are accepted; undefined: anybody may ask. */
  tokens: readonly string[] | undefined
  /** Answers a watch of a version that is gone with a status, not with an event. */
  goneByStatus = false
  /** Has ServiceCIDRs. */
  hasServiceCidrs = true
  /** Knows the field selector for cluster IPs. */
  knowsClusterIp = true
  readonly #server: Server
  readonly #collections: Readonly<Record<Kind, Collection>>
  readonly #watches = new Set<Watch>()
  readonly #within: (open: () => void) => void
  #version = 100
  #oldest = 0
  #port = 0

  private constructor(within: (open: () => void) => void) {
    this.#within = within
    const collection = ({ kind, apiVersion }: { kind: string; apiVersion: string }): Collection => {
      return { kind, apiVersion, objects: new Map(), changes: [] }
    }
    this.#collections = {
      Service: collection(kinds['/api/v1/services']),
      Node: collection(kinds['/api/v1/nodes']),
      EndpointSlice: collection(kinds['/apis/discovery.k8s.io/v1/endpointslices']),
      ServiceCIDR: collection(kinds['/apis/networking.k8s.io/v1/servicecidrs']),
    }
    this.#server = createServer((request, response) => void this.#answer(request, response))
  }

  /** `within` runs what opens the socket: in a network namespace, perhaps. */
  static async start(t: Teardown, within = (open: () => void): void => open()): Promise<TestApiServer> {
    const server = new TestApiServer(within)
    await server.listen()
    t.teardown(() => server.stop())
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  /** Watches that are open. */
  get watches(): number {
    return this.#watches.size
  }

  /** Serves, at the same port as before if it did before. */
  async listen(): Promise<void> {
    // Without a name to look up the socket is made at once, before `within` returns.
    this.#within(() => this.#server.listen(this.#port))
    await once(this.#server, 'listening')
    this.#port = (this.#server.address() as AddressInfo).port
  }

  /** Ends every connection and serves no more. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#server.closeAllConnections()
    this.#watches.clear()
    await closed
  }

  /** Creates or changes an object; returns its version. */
  set(kind: Kind, object: ApiObject): string {
    const collection = this.#collections[kind]
    const key = keyOf(object)
    const before = collection.objects.get(key)
    const version = ++this.#version
    const after = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } }
    collection.objects.set(key, after)
    this.#publish(collection, { version, before, after })
    return String(version)
  }

  delete(kind: Kind, namespace: string, name: string): void {
    const collection = this.#collections[kind]
    const before = collection.objects.get(`${namespace}/${name}`)
    if (before === undefined) throw new Error(`there is no ${kind} ${namespace}/${name}`)
    collection.objects.delete(`${namespace}/${name}`)
    this.#publish(collection, { version: ++this.#version, before, after: undefined })
  }

  /** Forgets all history: older versions can be neither watched nor continued. */
  compact(): void {
    this.#oldest = ++this.#version
    for (const { changes } of Object.values(this.#collections)) changes.length = 0
  }

  /** Sends a bookmark on every watch. */
  bookmark(): void {
    for (const { response, collection } of this.#watches) response.write(`${this.#bookmarkOf(collection, false)}\n`)
  }

  /** Ends every watch in good order. */
  closeWatches(): void {
    for (const { response } of this.#watches) response.end()
  }

  /** Breaks every watch off in the middle of an event. */
  breakWatches(): void {
    for (const { response } of this.#watches) {
      response.write('{"type":"MODIFIED","object":{"metadata":{"na')
      setImmediate(() => response.destroy())
    }
  }

  /** Sends a line on every watch of a kind. */
  sendRaw(kind: Kind, text: string): void {
    for (const { response, collection } of this.#watches) if (collection.kind === kind) response.write(`${text}\n`)
  }

  #publish(collection: Collection, change: Change): void {
    collection.changes.push(change)
    for (const watch of this.#watches) {
      if (watch.collection === collection) this.#tell(watch, change)
    }
  }

  #tell({ response, collection, selects }: Watch, { version, before, after }: Change): void {
    const was = before !== undefined && selects(before)
    const is = after !== undefined && selects(after)
    if (!was && !is) return
    const type = is ? (was ? 'MODIFIED' : 'ADDED') : 'DELETED'
    const object = is ? after : before
    const withVersion = { ...object, metadata: { ...object?.metadata, resourceVersion: String(version) } }
    response.write(`${JSON.stringify({ type, object: typed(collection, withVersion) })}\n`)
  }

  #bookmarkOf({ kind, apiVersion }: Collection, end: boolean): string {
    const annotations = end ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}
    const metadata = { resourceVersion: String(this.#version), creationTimestamp: null, ...annotations }
    return JSON.stringify({ type: 'BOOKMARK', object: { kind, apiVersion, metadata, spec: {} } })
  }

  async #answer(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(message.url ?? '', 'http://api')
    const { authorization } = message.headers
    const request = { method: message.method ?? '', path: url.pathname, query: url.searchParams, authorization }
    this.requests.push(request)
    const fault = this.fault(request) ?? this.#unauthorized(authorization)
    if (fault === 'silence') return
    if (fault === 'reset') response.destroy()
    else if (fault !== undefined) refuse(response, fault)
    else if (request.method === 'GET') await this.#serve(request, response)
    else await this.#write(request, message, response)
  }

  /** Creates an event, or merges a patch into one. */
  async #write({ method, path }: ApiRequest, message: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of message) chunks.push(chunk as Buffer)
    const answer = this.events.write(method, path, message.headers['content-type'], Buffer.concat(chunks).toString())
    if ('fault' in answer) return refuse(response, answer.fault)
    response.writeHead(answer.status, { 'content-type': 'application/json' })
    response.end(JSON.stringify(answer.event))
  }

  #unauthorized(authorization: string | undefined): Fault | undefined {
    if (this.tokens?.some((token) => authorization === `Bearer ${token}`) ?? true) return undefined
    return { status: 401, message: 'Unauthorized' }
  }

  async #serve({ path, query }: ApiRequest, response: ServerResponse): Promise<void> {
    const [, namespace] = /\/namespaces\/([^/]+)\/[^/]+$/.exec(path) ?? []
    const collectionPath = path.replace(/\/namespaces\/[^/]+/, '')
    const known = Object.entries(kinds).find(([each]) => each === collectionPath)
    if (known === undefined || (known[1].kind === 'ServiceCIDR' && !this.hasServiceCidrs)) {
      refuse(response, { status: 404, message: `no such resource ${path}` })
      return
    }
    const collection = this.#collections[known[1].kind]
    if (!this.knowsClusterIp && query.get('fieldSelector')?.includes('spec.clusterIP') === true) {
      refuse(response, { status: 400, message: 'field label not supported: spec.clusterIP' })
      return
    }
    const selected = selector(query)
    const selects = (object: Stored): boolean =>
      selected(object) && (namespace === undefined || object.metadata.namespace === namespace)
    if (query.get('watch') === 'true') await this.#watch(collection, selects, query, response)
    else await this.#list(collection, selects, query, response)
  }

  async #watch(
    collection: Collection,
    selects: (object: Stored) => boolean,
    query: URLSearchParams,
    response: ServerResponse,
  ): Promise<void> {
    const initial = query.get('sendInitialEvents') === 'true'
    if (initial && this.streams === false) {
      refuse(response, { status: 422, message: 'sendInitialEvents: Forbidden: sendInitialEvents is forbidden' })
      return
    }
    const from = Number(query.get('resourceVersion') ?? '0')
    const gone = from < this.#oldest && !initial
    if (gone && this.goneByStatus) {
      refuse(response, { status: 410, message: 'too old resource version' })
      return
    }
    response.writeHead(200, { 'content-type': 'application/json' })
    response.flushHeaders()
    if (gone) {
      const object = {
        kind: 'Status',
        status: 'Failure',
        code: 410,
        reason: 'Expired',
        message: 'too old resource version',
      }
      response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`)
      return
    }
    const watch = { response, collection, selects }
    const version = initial ? this.#version : from
    if (initial) await this.#sendInitial(watch)
    for (const change of collection.changes) if (change.version > version) this.#tell(watch, change)
    if (initial && this.streams === true) response.write(`${this.#bookmarkOf(collection, true)}\n`)
    if (response.destroyed) return
    this.#watches.add(watch)
    response.on('close', () => this.#watches.delete(watch))
  }

  /** All objects that there are, in pieces: others are served meanwhile, and the client reads while the rest is written. */
  async #sendInitial({ response, collection, selects }: Watch): Promise<void> {
    let text = ''
    for (const object of [...collection.objects.values()].filter(selects)) {
      text += `${JSON.stringify({ type: 'ADDED', object: typed(collection, object) })}\n`
      if (text.length < pieceLength) continue
      response.write(text)
      text = ''
      await turn()
    }
    if (text !== '') response.write(text)
  }

  async #list(
    { kind, apiVersion, objects }: Collection,
    selects: (object: Stored) => boolean,
    query: URLSearchParams,
    response: ServerResponse,
  ): Promise<void> {
    const [version = this.#version, start = 0] = query.get('continue')?.split(':').map(Number) ?? []
    if (version < this.#oldest) {
      refuse(response, { status: 410, message: 'the continue token is too old' })
      return
    }
    const all = [...objects.values()].filter(selects)
    const limit = Number(query.get('limit') ?? '0') || all.length
    const items = all.slice(start, start + limit)
    const rest = all.length - start - items.length
    const more = rest > 0 ? { continue: `${version}:${start + limit}`, remainingItemCount: rest } : {}
    const metadata = { resourceVersion: String(version), ...more }
    response.writeHead(200, { 'content-type': 'application/json' })
    await this.#send(response, JSON.stringify({ kind: `${kind}List`, apiVersion, metadata, items }))
  }

  async #send(response: ServerResponse, text: string): Promise<void> {
    const bytes = Buffer.from(text)
    const step = this.chunkBytes || bytes.length
    for (let at = 0; at < bytes.length; at += step) {
      response.write(bytes.subarray(at, at + step))
      if (step < bytes.length) await turn()
    }
    response.end()
  }
}

function keyOf({ metadata: { namespace = '', name } }: ApiObject): string {
  return `${namespace}/${name}`
}

/** Events say what their object is; items of a list do not. */
function typed({ kind, apiVersion }: Collection, object: object): object {
  return { kind, apiVersion, ...object }
}

function refuse(response: ServerResponse, { status, message = 'something is wrong', headers = {} }: Fault): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code: status }))
}

function selector(query: URLSearchParams): (object: Stored) => boolean {
  const labels = (query.get('labelSelector') ?? '').split(',').filter((each) => each !== '')
  const fields = (query.get('fieldSelector') ?? '').split(',').filter((each) => each !== '')
  return (object) =>
    labels.every((term) => matchesLabel(object.metadata.labels ?? {}, term)) &&
    fields.every((term) => matchesField(object, term))
}

function matchesLabel(labels: Readonly<Record<string, string>>, term: string): boolean {
  if (term.startsWith('!')) return labels[term.slice(1)] === undefined
  const [key = '', value] = term.split('=')
  return labels[key] === value
}

function matchesField(object: Stored, term: string): boolean {
  if (term === 'spec.clusterIP!=None') return (object.spec as { clusterIP?: unknown } | undefined)?.clusterIP !== 'None'
  const [, name] = /^metadata\.name=(.+)$/.exec(term) ?? []
  if (name === undefined) throw new Error(`the test server does not know the field selector ${term}`)
  return object.metadata.name === name
}
