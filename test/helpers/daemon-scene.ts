/** A daemon in fake surroundings, and services for it. */
import { loadConfig } from '../../src/config/load.ts'
import { Daemon, type SourceCallbacks } from '../../src/daemon/daemon.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import type { KubeEvent } from '../../src/kube/events.ts'
import type { KubeEndpointSlice, KubeService } from '../../src/kube/objects.ts'
import type { ManifestState } from '../../src/manifests/store.ts'
import { ProxyHealth } from '../../src/daemon/health.ts'
import { ProxyStatus } from '../../src/daemon/status.ts'
import type { HealthCheck } from '../../src/kube/observed.ts'
import { ProxyMetrics } from '../../src/observe/proxy-metrics.ts'
import { FakeHost, FakeLog, FakeTimers } from './fake-host.ts'

/** A service `name` at 10.96.0.`n`, port 80, with servers 10.0.`n`.1 and so on. */
export function web(n: number, servers = 1): { service: KubeService; slice: KubeEndpointSlice } {
  const name = `web${n}`
  const endpoints = Array.from({ length: servers }, (_, i) => {
    return { address: `10.0.${n}.${i + 1}`, ready: true, serving: true, terminating: false }
  })
  const ports = [{ name: '', protocol: 'tcp', port: 8080 }] as const
  return {
    service: {
      kind: 'Service',
      namespace: 'default',
      name,
      type: 'ClusterIP',
      headless: false,
      clusterIps: [{ family: 4, address: `10.96.0.${n}` }],
      ports: [{ name: '', protocol: 'tcp', port: 80, nodePort: 0 }],
      internalTrafficPolicy: 'Cluster',
      externalTrafficPolicy: 'Cluster',
      externalIps: [],
      ingressIps: [],
      sourceRanges: [],
      healthCheckNodePort: 0,
    },
    slice: {
      kind: 'EndpointSlice',
      namespace: 'default',
      name,
      service: name,
      headless: false,
      family: 4,
      endpoints,
      ports,
    },
  }
}

/** A service as somebody else would put it into the table. */
export function entry(n: number, servers: readonly string[] = []): DesiredService {
  return {
    service: {
      key: { kind: 'address', family: 4, protocol: 'tcp', address: `10.96.0.${n}`, port: 80 },
      scheduler: 'rr',
      schedulerFlags: [],
      onePacket: false,
    },
    servers: servers.map((address) => {
      return { family: 4, address, port: 8080, weight: 1, method: 'masq', upper: 0, lower: 0 }
    }),
  }
}

export const key = (n: number): string => `TCP 10.96.0.${n}:80`

/** A daemon in fake surroundings. `state` is what its source would say. */
export class Scene {
  readonly host = new FakeHost()
  readonly timers = new FakeTimers()
  readonly log = new FakeLog()
  readonly health = new ProxyHealth(false)
  readonly metrics = new ProxyMetrics(0)
  healthChecks: readonly HealthCheck[] = []
  readonly events: KubeEvent[] = []
  readies = 0
  readonly daemon: Daemon
  callbacks: SourceCallbacks | undefined
  reloads = 0
  sourceOpen = false
  /** Given at the start; undefined: the source has nothing to say yet. */
  first: ManifestState | undefined = { objects: { services: [], endpointSlices: [] }, complete: true, files: 0 }

  constructor(argv: readonly string[] = [], source: readonly string[] = ['--manifests', '/m']) {
    const invocation = loadConfig([...source, ...argv], { env: {}, readFile: () => '' })
    if (invocation.run !== 'daemon') throw new Error('no configuration')
    this.daemon = new Daemon({
      config: invocation.config,
      kubeProxy: invocation.kubeProxy,
      host: this.host,
      log: this.log,
      timers: this.timers,
      status: new ProxyStatus(this.health, this.metrics, () => this.timers.now()),
      onHealthChecks: (checks) => {
        this.healthChecks = checks
      },
      onReady: () => this.readies++,
      events: { record: (event) => this.events.push(event) },
      makeSource: (callbacks) => {
        this.callbacks = callbacks
        return {
          start: () => {
            this.sourceOpen = true
            if (this.first !== undefined) callbacks.onState(this.first)
          },
          reload: () => {
            this.reloads++
          },
          close: () => {
            this.sourceOpen = false
          },
        }
      },
    })
  }

  static stateOf(...all: ReturnType<typeof web>[]): ManifestState {
    const objects = { services: all.map(({ service }) => service), endpointSlices: all.map(({ slice }) => slice) }
    return { objects, complete: true, files: all.length }
  }

  say(state: ManifestState): void {
    this.callbacks?.onState(state)
  }

  get table(): FakeHost['table'] {
    return this.host.table
  }
}
