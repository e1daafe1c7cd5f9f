/** Whether the proxy does its work, as kube-proxy tells load balancers and probes. Pure: it is told the time. */

const families = ['IPv4', 'IPv6'] as const
/** What waits longer than this to be applied makes the proxy ill: twice kube-proxy's syncPeriod. */
const patienceMs = 60_000

/** An answer: its status and the object of its body. */
export interface HealthAnswer {
  readonly status: 200 | 503
  readonly body: object
}

export class ProxyHealth {
  #queuedMs: number | undefined
  #updatedMs: number | undefined
  #nodeEligible: boolean

  /** `nodeEligible`: until somebody says otherwise. */
  constructor(nodeEligible: boolean) {
    this.#nodeEligible = nodeEligible
  }

  /** Something is to be applied. Milliseconds since 1970. */
  queued(nowMs: number): void {
    this.#queuedMs ??= nowMs
  }

  /** Everything that was queued is applied. */
  updated(nowMs: number): void {
    this.#queuedMs = undefined
    this.#updatedMs = nowMs
  }

  /** Whether load balancers may send to our Node. */
  setNodeEligible(eligible: boolean): void {
    this.#nodeEligible = eligible
  }

  /** The proxy works: nothing waits for long. */
  healthy(nowMs: number): boolean {
    return this.#queuedMs === undefined || nowMs - this.#queuedMs < patienceMs
  }

  /** /healthz: works, and the Node is to be used. */
  healthz(nowMs: number): HealthAnswer {
    return this.#answer(nowMs, { nodeEligible: this.#nodeEligible }, this.#nodeEligible)
  }

  /** /livez: works. */
  livez(nowMs: number): HealthAnswer {
    return this.#answer(nowMs, {}, true)
  }

  #answer(nowMs: number, more: object, eligible: boolean): HealthAnswer {
    const healthy = this.healthy(nowMs)
    const updated = timeText(this.#updatedMs)
    const known = this.#updatedMs === undefined ? [] : families
    const status = Object.fromEntries(known.map((family) => [family, { lastUpdated: updated, healthy }]))
    const lastUpdated = healthy && eligible ? timeText(nowMs) : updated
    const body = { lastUpdated, currentTime: timeText(nowMs), ...more, healthy, status }
    return { status: healthy && eligible ? 200 : 503, body }
  }
}

/** As Go writes a time; never: its zero. */
function timeText(ms: number | undefined): string {
  return ms === undefined ? '0001-01-01T00:00:00Z' : new Date(ms).toISOString()
}
