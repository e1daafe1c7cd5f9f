/** The HTTP servers that kube-proxy's configuration asks for. */
import { splitHostPort } from '../config/kube-proxy/net.ts'
import { toObject } from '../config/kube-proxy/render.ts'
import type { KubeProxyConfiguration } from '../config/kube-proxy/fields.ts'
import { type HealthSource, healthServer } from './health-server.ts'
import { type Endpoint, type ServeOptions, serve } from './http.ts'
import { metricsServer } from './metrics-server.ts'

export interface ServersOptions extends Omit<ServeOptions, 'name' | 'onRefused' | 'onTrouble'> {
  readonly configuration: KubeProxyConfiguration
  readonly health: HealthSource
  /** In Prometheus' text format. */
  readonly metrics: () => string
  /** A port cannot be had, and the configuration says that this is the end (bindAddressHardFail). */
  readonly onHardFail: (server: string, error: unknown) => void
  /** A port cannot be had, for a reason that is new. */
  readonly onTrouble: (server: 'healthz' | 'metrics', address: string, error: unknown) => void
}

/** Starts them; an empty address is none. Returns what ends them. */
export function startServers(options: ServersOptions): { close(): Promise<void> } {
  const { configuration, health, metrics, log, after } = options
  const running: { close(): Promise<void> }[] = []
  const start = (name: 'healthz' | 'metrics', address: string, make: () => ReturnType<typeof healthServer>): void => {
    const endpoint = endpointOf(address)
    if (endpoint === undefined) return
    const hard = configuration.bindAddressHardFail
    const onRefused = hard ? { onRefused: (error: unknown) => options.onHardFail(name, error) } : {}
    const onTrouble = (error: unknown): void => options.onTrouble(name, address, error)
    running.push(serve(make, endpoint, { name, log, after, onTrouble, ...onRefused }))
  }
  start('healthz', configuration.healthzBindAddress, () => healthServer(health))
  const configz = { 'kubeproxy.config.k8s.io': toObject(configuration) }
  const source = { metrics, proxyMode: configuration.mode, configz }
  start('metrics', configuration.metricsBindAddress, () => metricsServer(source))
  return {
    close: async () => {
      await Promise.all(running.map((each) => each.close()))
    },
  }
}

/** Of `HOST:PORT`; undefined: the text is none. */
export function endpointOf(address: string): Endpoint | undefined {
  const parts = splitHostPort(address)
  return parts === undefined ? undefined : { host: parts.host, port: Number(parts.port) }
}
