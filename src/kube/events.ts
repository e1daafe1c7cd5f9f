/** Events of the Kubernetes API (events.k8s.io/v1): what they are about and how they are written. Pure. */

/** What an event is about. A Node has no namespace; its events are in `default`. */
export interface Regarding {
  readonly kind: 'Node' | 'Service'
  readonly apiVersion: 'v1'
  readonly name: string
  readonly namespace?: string
  readonly uid?: string
}

export interface KubeEvent {
  readonly regarding: Regarding
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  /** What was done or tried. */
  readonly action: string
  readonly note?: string
}

/** Takes events; never fails. */
export interface EventSink {
  record(event: KubeEvent): unknown
}

/** The most that the API server takes, bytes. */
const mostNote = 1024

/** Events are the same if this is. */
export function eventText(event: KubeEvent): string {
  return JSON.stringify(event)
}

export function eventNamespace({ regarding }: KubeEvent): string {
  return regarding.namespace ?? 'default'
}

/** As kube-proxy names them: what it is about, and when (nanoseconds). */
export function eventName({ regarding }: KubeEvent, timeNs: bigint): string {
  return `${regarding.name.slice(0, 230)}.${timeNs.toString(16)}`
}

/** The object to create; `timeMs` since 1970. As kube-proxy reports. */
export function eventObject(event: KubeEvent, name: string, host: string, timeMs: number): object {
  const { note, ...rest } = event
  return {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name, namespace: eventNamespace(event) },
    eventTime: microTime(timeMs),
    reportingController: 'kube-proxy',
    reportingInstance: `kube-proxy-${host}`.slice(0, 128),
    ...rest,
    ...(note === undefined ? {} : { note: clipped(note) }),
  }
}

/** What makes a series of an event: it came so many times, the last at `timeMs`. */
export function seriesPatch(count: number, timeMs: number): object {
  return { series: { count, lastObservedTime: microTime(timeMs) } }
}

/** 2026-01-02T03:04:05.678000Z */
function microTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('Z', '000Z')
}

function clipped(note: string): string {
  const bytes = Buffer.from(note)
  if (bytes.length <= mostNote) return note
  return `${bytes
    .subarray(0, mostNote - 6)
    .toString('utf8')
    .replace(/\uFFFD$/, '')}...`
}

function nodeEvent(node: string, type: KubeEvent['type'], reason: string, note?: string): KubeEvent {
  const regarding = { kind: 'Node', name: node, apiVersion: 'v1' } as const
  return { regarding, type, reason, action: 'StartKubeProxy', ...(note === undefined ? {} : { note }) }
}

/** bpvsd has started. This and the next ones are kube-proxy's. */
export function startingEvent(node: string): KubeEvent {
  return nodeEvent(node, 'Normal', 'Starting')
}

/** One of the servers of bpvsd has no port. */
export function serverEvent(node: string, server: 'healthz' | 'metrics', address: string, error: unknown): KubeEvent {
  const why = error instanceof Error ? error.message : String(error)
  return server === 'healthz'
    ? nodeEvent(
        node,
        'Warning',
        'FailedToStartProxierHealthcheck',
        `failed to start proxier healthz on ${address}: ${why}`,
      )
    : nodeEvent(node, 'Warning', 'FailedToStartMetricServer', `starting metrics server failed: ${why}`)
}

/** What names a Service in an event. */
export interface ServiceName {
  readonly namespace: string
  readonly name: string
  readonly uid?: string
}

function serviceEvent({ namespace, name, uid }: ServiceName, reason: string, action: string, note: string): KubeEvent {
  const regarding = {
    kind: 'Service',
    apiVersion: 'v1',
    namespace,
    name,
    ...(uid === undefined ? {} : { uid }),
  } as const
  return { regarding, type: 'Warning', reason, action, note }
}

/** The port where load balancers ask for a Service's endpoints cannot be had. */
export function healthCheckEvent(
  node: string,
  service: ServiceName & { readonly port: number },
  error: Error,
): KubeEvent {
  const { namespace, name, port } = service
  const note = `node ${node} failed to start healthcheck "${namespace}/${name}" on port ${port}: ${error.message}`
  return serviceEvent(service, 'FailedToStartServiceHealthcheck', 'Listen', note)
}

/** An annotation of a Service, or of its EndpointSlices, is not understood. Not kube-proxy's. */
export function annotationEvent(service: ServiceName, note: string): KubeEvent {
  return serviceEvent(service, 'InvalidAnnotation', 'Schedule', note)
}
