/** The events of a test's API server, with the checks of the real one. */

/** An event as it is stored. */
export interface StoredEvent {
  readonly metadata: { readonly name: string; readonly namespace: string }
  readonly eventTime: string
  readonly reportingController: string
  readonly reportingInstance: string
  readonly action: string
  readonly reason: string
  readonly type: string
  readonly note?: string
  readonly regarding: {
    readonly kind: string
    readonly name: string
    readonly namespace?: string
    readonly uid?: string
  }
  readonly series?: { readonly count: number; readonly lastObservedTime: string }
}

interface Refusal {
  readonly fault: { readonly status: number; readonly message: string }
}

type Answer = Refusal | { readonly status: number; readonly event: StoredEvent }

const refusal = (status: number, message: string): Refusal => ({ fault: { status, message } })

const microTime = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/
const qualifiedName = /^([a-z0-9.-]+\/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/
const objectName = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/

/** What the API server finds wrong with an event; undefined: nothing. */
function wrongOf(event: StoredEvent, namespace: string): string | undefined {
  const { metadata, regarding } = event
  if (metadata.namespace !== namespace) return 'metadata.namespace: is not that of the request'
  if (!objectName.test(metadata.name) || metadata.name.length > 253) return 'metadata.name: is no DNS name'
  if (!microTime.test(event.eventTime)) return 'eventTime: is required'
  if (!qualifiedName.test(event.reportingController)) return 'reportingController: is no qualified name'
  for (const field of ['reportingInstance', 'action', 'reason'] as const) {
    if (event[field] === '' || event[field].length > 128) return `${field}: must have 1 to 128 characters`
  }
  if (event.type !== 'Normal' && event.type !== 'Warning') return 'type: must be Normal or Warning'
  if (Buffer.byteLength(event.note ?? '') > 1024) return 'note: can have at most 1024 bytes'
  if ((regarding.namespace ?? 'default') !== namespace) return 'regarding.namespace: does not match the event'
  if (regarding.kind === 'Node' && regarding.namespace !== undefined) return 'regarding.namespace: Nodes have none'
  return event.series === undefined ? undefined : 'series: an event begins without'
}

export class TestEvents {
  readonly #events = new Map<string, StoredEvent>()

  get all(): StoredEvent[] {
    return [...this.#events.values()]
  }

  /** They have expired. */
  clear(): void {
    this.#events.clear()
  }

  write(method: string, path: string, type: string | undefined, text: string): Answer {
    const [, namespace = '', name] =
      /^\/apis\/events\.k8s\.io\/v1\/namespaces\/([^/]+)\/events(?:\/([^/]+))?$/.exec(path) ?? []
    if (namespace === '') return refusal(404, `no such resource ${path}`)
    const body = JSON.parse(text) as StoredEvent
    if (method === 'POST' && name === undefined && type === 'application/json') return this.#create(namespace, body)
    const patches = method === 'PATCH' && name !== undefined && type === 'application/merge-patch+json'
    return patches ? this.#patch(`${namespace}/${name}`, body) : refusal(415, `${method} of ${type}`)
  }

  #create(namespace: string, event: StoredEvent): Answer {
    const wrong = wrongOf(event, namespace)
    if (wrong !== undefined) return refusal(422, wrong)
    const key = `${namespace}/${event.metadata.name}`
    if (this.#events.has(key)) return refusal(409, 'it exists already')
    this.#events.set(key, event)
    return { status: 201, event }
  }

  #patch(key: string, { series }: StoredEvent): Answer {
    const before = this.#events.get(key)
    if (before === undefined) return refusal(404, `events.events.k8s.io "${key}" not found`)
    if (series === undefined || series.count < 2 || !microTime.test(series.lastObservedTime)) {
      return refusal(422, 'series: must count two or more')
    }
    const event = { ...before, series }
    this.#events.set(key, event)
    return { status: 200, event }
  }
}
