/** The HTTP servers that kube-proxy's configuration asks for. */
import { existsSync } from 'node:fs'
import { splitHostPort } from '../config/kube-proxy/net.ts'
import { toObject } from '../config/kube-proxy/render.ts'
import type { KubeProxyConfiguration } from '../config/kube-proxy/fields.ts'
import { type HealthSource, healthServer } from './health-server.ts'
import { type Endpoint, type ServeOptions, serve } from './http.ts'
import { metricsServer } from './metrics-server.ts'
import type { ZPagesSource } from './zpages.ts'

export interface ServersOptions extends Omit<ServeOptions, 'name' | 'onRefused' | 'onTrouble'> {
  readonly configuration: KubeProxyConfiguration
  readonly health: HealthSource
  /** In Prometheus' text format. */
  readonly metrics: () => string
  readonly zpages: ZPagesSource
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
    const endpoint = everywhere(endpointOf(address))
    if (endpoint === undefined) return
    const hard = configuration.bindAddressHardFail
    const onRefused = hard ? { onRefused: (error: unknown) => options.onHardFail(name, error) } : {}
    const onTrouble = (error: unknown): void => options.onTrouble(name, address, error)
    running.push(serve(make, endpoint, { name, log, after, onTrouble, ...onRefused }))
  }
  start('healthz', configuration.healthzBindAddress, () => healthServer(health))
  const configz = { 'kubeproxy.config.k8s.io': toObject(configuration) }
  const source = { metrics, proxyMode: configuration.mode, configz, zpages: options.zpages }
  start('metrics', configuration.metricsBindAddress, () => metricsServer(source))
  return {
    close: async () => {
      await Promise.all(running.map((each) => each.close()))
    },
  }
}

/** As kube-proxy listens: who says all of IPv4 or all of IPv6 gets both families, as far as the host has them. */
function everywhere(endpoint: Endpoint | undefined): Endpoint | undefined {
  const isAny = endpoint !== undefined && ['', '0.0.0.0', '::'].includes(endpoint.host)
  return isAny ? { ...endpoint, host: hasIpv6() ? '::' : '0.0.0.0' } : endpoint
}

/** Without IPv6 even the file of addresses is missing. */
function hasIpv6(): boolean {
  return existsSync('/proc/net/if_inet6')
}

/** Of `HOST:PORT`; undefined: the text is none. */
export function endpointOf(address: string): Endpoint | undefined {
  const parts = splitHostPort(address)
  return parts === undefined ? undefined : { host: parts.host, port: Number(parts.port) }
}
