/** kube-proxy's metrics, by its names, types and labels, as far as they say something of bpvsd; and bpvsd's own. */
import { Counter, Gauge, Histogram, Registry } from './metrics.ts'
import { addProcessMetrics } from './process-metrics.ts'

const families = ['IPv4', 'IPv6'] as const
export type FamilyLabel = (typeof families)[number]

/** Labels of what is told with every change, each one object: their text is made once. */
const familyLabels = { IPv4: { ip_family: 'IPv4' }, IPv6: { ip_family: 'IPv6' } } as const
const policyLabels = {
  IPv4: {
    internal: { ...familyLabels.IPv4, traffic_policy: 'internal' },
    external: { ...familyLabels.IPv4, traffic_policy: 'external' },
  },
  IPv6: {
    internal: { ...familyLabels.IPv6, traffic_policy: 'internal' },
    external: { ...familyLabels.IPv6, traffic_policy: 'external' },
  },
} as const

const steps = (from: number, to: number, by: number): number[] => {
  return Array.from({ length: (to - from) / by + 1 }, (_, i) => from + i * by)
}
/** Features of kube-proxy 1.36 that are on unless a gate says otherwise. */
const betaFeatures = ['ComponentFlagz', 'ComponentStatusz'] as const
const allFeatures: Readonly<Record<(typeof betaFeatures)[number], boolean>> = {
  ComponentFlagz: true,
  ComponentStatusz: true,
}

const requestBounds = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60]
const syncBounds = Array.from({ length: 15 }, (_, i) => 2 ** i / 1000)
const programmingBounds = [0, 0.25, 0.5, ...steps(1, 59, 1), ...steps(60, 115, 5), ...steps(120, 300, 30)]

/** Services that a traffic policy leaves without endpoints on this node, though there are some. */
export interface NoLocalEndpoints {
  readonly internal: number
  readonly external: number
}

/** What a table is made of. */
export interface TableSize {
  readonly services: number
  readonly servers: number
  readonly failed: number
}

/** Of a request to the API server. */
export interface RequestFigures {
  readonly method: string
  readonly host: string
  /** Undefined: there was no answer. */
  readonly status: number | undefined
  readonly tookMs: number
  readonly watch: boolean
}

export class ProxyMetrics {
  readonly registry = new Registry()
  readonly #sync = this.#histogram('sync_proxy_rules_duration_seconds', 'SyncProxyRules latency in seconds', syncBounds)
  readonly #programming = this.#histogram(
    'network_programming_duration_seconds',
    'In Cluster Network Programming Latency in seconds',
    programmingBounds,
  )
  readonly #queued = this.#gauge(
    'sync_proxy_rules_last_queued_timestamp_seconds',
    'The last time a sync of proxy rules was queued',
  )
  readonly #synced = this.#gauge(
    'sync_proxy_rules_last_timestamp_seconds',
    'The last time proxy rules were successfully synced',
  )
  readonly #serviceChanges = this.#counter(
    'sync_proxy_rules_service_changes_total',
    'Cumulative proxy rules Service changes',
  )
  readonly #endpointChanges = this.#counter(
    'sync_proxy_rules_endpoint_changes_total',
    'Cumulative proxy rules Endpoint changes',
  )
  readonly #servicesPending = this.#gauge(
    'sync_proxy_rules_service_changes_pending',
    'Pending proxy rules Service changes',
  )
  readonly #endpointsPending = this.#gauge(
    'sync_proxy_rules_endpoint_changes_pending',
    'Pending proxy rules Endpoint changes',
  )
  readonly #noLocal = this.#gauge(
    'sync_proxy_rules_no_local_endpoints_total',
    'Number of services with a Local traffic policy and no endpoints',
  )
  readonly #healthz = this.#counter('proxy_healthz_total', 'Cumulative proxy healthz HTTP status')
  readonly #livez = this.#counter('proxy_livez_total', 'Cumulative proxy livez HTTP status')
  readonly #services = this.registry.register(new Gauge('bpvs_virtual_services', 'Virtual services that are wanted'))
  readonly #servers = this.registry.register(new Gauge('bpvs_real_servers', 'Real servers that are wanted'))
  readonly #failed = this.registry.register(
    new Gauge('bpvs_virtual_services_failed', 'Virtual services that could not be programmed'),
  )
  readonly #features = this.registry.register(
    new Gauge(
      'kubernetes_feature_enabled',
      '[BETA] This metric records the data about the stage and enablement of a k8s feature.',
    ),
  )
  readonly #requests = this.registry.register(
    new Counter(
      'rest_client_requests_total',
      '[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.',
    ),
  )
  readonly #requestTimes = this.registry.register(
    new Histogram(
      'rest_client_request_duration_seconds',
      '[ALPHA] Request latency in seconds. Broken down by verb, and host.',
      requestBounds,
    ),
  )
  readonly #takeover = this.registry.register(
    new Gauge('bpvs_takeover', "1 as long as connections of another proxy's are left alone"),
  )
  #pending = { services: 0, endpoints: 0 }

  /** `startMs`: when the process began, since 1970. `features`: which of kube-proxy's that are beta are on. */
  constructor(startMs: number, features = allFeatures) {
    addProcessMetrics(this.registry, startMs)
    for (const name of betaFeatures) this.#features.set(features[name] ? 1 : 0, { name, stage: 'BETA' })
    this.#count(0, 0)
    this.takingOver(false)
  }

  /** Changes that wait to be applied. */
  queued(services: number, endpoints: number, nowMs: number): void {
    this.#count(services, endpoints)
    for (const family of families) this.#queued.set(nowMs / 1000, familyLabels[family])
  }

  /** All that waited is applied. */
  applied(tookMs: number, nowMs: number, { services, servers, failed }: TableSize): void {
    this.#pending = { services: 0, endpoints: 0 }
    this.#count(0, 0)
    this.#services.set(services)
    this.#servers.set(servers)
    this.#failed.set(failed)
    for (const family of families) {
      this.#sync.observe(tookMs / 1000, familyLabels[family])
      this.#synced.set(nowMs / 1000, familyLabels[family])
    }
  }

  /** From the change of a pod to that of the table. */
  programmed(tookMs: number, family: FamilyLabel): void {
    this.#programming.observe(tookMs / 1000, familyLabels[family])
  }

  noLocalEndpoints(family: FamilyLabel, { internal, external }: NoLocalEndpoints): void {
    this.#noLocal.set(internal, policyLabels[family].internal)
    this.#noLocal.set(external, policyLabels[family].external)
  }

  takingOver(on: boolean): void {
    this.#takeover.set(on ? 1 : 0)
  }

  asked(what: 'healthz' | 'livez', status: number): void {
    const counter = what === 'healthz' ? this.#healthz : this.#livez
    counter.add(1, { code: String(status) })
  }

  /** A request to the API server; a watch has no duration. */
  requested({ method, host, status, tookMs, watch }: RequestFigures): void {
    this.#requests.add(1, { method, host, code: status === undefined ? '<error>' : String(status) })
    if (!watch) this.#requestTimes.observe(tookMs / 1000, { verb: method, host })
  }

  #count(services: number, endpoints: number): void {
    this.#serviceChanges.add(services)
    this.#endpointChanges.add(endpoints)
    this.#pending = {
      services: this.#pending.services + services,
      endpoints: this.#pending.endpoints + endpoints,
    }
    this.#servicesPending.set(this.#pending.services)
    this.#endpointsPending.set(this.#pending.endpoints)
  }

  #histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return this.registry.register(new Histogram(`kubeproxy_${name}`, `[ALPHA] ${help}`, bounds))
  }

  #gauge(name: string, help: string): Gauge {
    return this.registry.register(new Gauge(`kubeproxy_${name}`, `[ALPHA] ${help}`))
  }

  #counter(name: string, help: string): Counter {
    return this.registry.register(new Counter(`kubeproxy_${name}`, `[ALPHA] ${help}`))
  }
}
