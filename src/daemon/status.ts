/** What the daemon's doings look like from outside: health for load balancers, figures for Prometheus. */
import type { KubeEndpointSlice, KubeObject } from '../kube/objects.ts'
import type { Translation } from '../kube/translator.ts'
import type { ProxyMetrics, TableSize } from '../observe/proxy-metrics.ts'
import type { HealthAnswer, ProxyHealth } from './health.ts'

export class ProxyStatus {
  readonly #health: ProxyHealth
  readonly #metrics: ProxyMetrics
  readonly #now: () => number
  readonly #startMs: number

  /** `now`: milliseconds since 1970. */
  constructor(health: ProxyHealth, metrics: ProxyMetrics, now: () => number) {
    this.#health = health
    this.#metrics = metrics
    this.#now = now
    this.#startMs = now()
  }

  get healthy(): boolean {
    return this.#health.healthy(this.#now())
  }

  answer(what: 'healthz' | 'livez'): HealthAnswer {
    return this.#health[what](this.#now())
  }

  setNodeEligible(eligible: boolean): void {
    this.#health.setNodeEligible(eligible)
  }

  /** Objects came, changed or went (`removed` by objectId), and are about to be applied. */
  changed(set: readonly KubeObject[], removed: readonly string[]): void {
    const services = [...set.filter(({ kind }) => kind === 'Service'), ...removed.filter(isService)].length
    this.#health.queued(this.#now())
    this.#metrics.queued(services, set.length + removed.length - services, this.#now())
  }

  /** What a translation found beside services. */
  translated({ noLocal }: Pick<Translation, 'noLocal'>): void {
    this.#metrics.noLocalEndpoints('IPv4', noLocal[4])
    this.#metrics.noLocalEndpoints('IPv6', noLocal[6])
  }

  /** The table is as wanted. */
  applied(tookMs: number, size: TableSize): void {
    this.#health.updated(this.#now())
    this.#metrics.applied(tookMs, this.#now(), size)
  }

  /** What the changes of these objects are in force for; those from before our start tell nothing of us. */
  programmed(set: readonly KubeObject[]): void {
    for (const object of set) {
      if (object.kind === 'EndpointSlice' && (object.triggerMs ?? 0) > this.#startMs) this.#programmed(object)
    }
  }

  /** Connections of another proxy's are left alone, or no more. */
  takingOver(on: boolean): void {
    this.#metrics.takingOver(on)
  }

  #programmed({ triggerMs = 0, family }: KubeEndpointSlice): void {
    if (family !== undefined) this.#metrics.programmed(this.#now() - triggerMs, family === 4 ? 'IPv4' : 'IPv6')
  }
}

function isService(id: string): boolean {
  return id.startsWith('Service ')
}
