/** What load balancers and metrics want to know of one Service. Pure. */
import type { Family } from '../model/types.ts'
import type { KubeEndpointSlice, KubeService } from './objects.ts'
import type { KubeVirtualService } from './virtual-services.ts'

/** What the port of a Service tells that asks load balancers to look for nodes with endpoints. */
export interface HealthCheck {
  readonly namespace: string
  readonly name: string
  readonly port: number
  readonly family: Family
  /** Ready endpoints on this node; an address counts once. */
  readonly localEndpoints: number
  /** Of the Service. */
  readonly uid?: string
}

/** Ports of Services that a traffic policy leaves without endpoints here, though there are some elsewhere. */
export interface NoLocal {
  readonly internal: number
  readonly external: number
}

export const noneMissing: Readonly<Record<Family, NoLocal>> = {
  4: { internal: 0, external: 0 },
  6: { internal: 0, external: 0 },
}

/** One for each family that the Service is served in. */
export function healthChecksOf(
  { namespace, name, uid, healthCheckNodePort: port, clusterIps }: KubeService,
  slices: readonly KubeEndpointSlice[],
  node: string,
): HealthCheck[] {
  if (port === 0) return []
  return clusterIps.map(({ family }) => {
    const ours = slices.filter((slice) => slice.family === family).flatMap(({ endpoints }) => endpoints)
    const local = ours.filter((endpoint) => endpoint.ready && endpoint.node === node)
    const localEndpoints = new Set(local.map(({ address }) => address)).size
    return { namespace, name, port, family, localEndpoints, ...(uid === undefined ? {} : { uid }) }
  })
}

/** Of a Service's virtual services; those of one port share their list for clients within the cluster. */
export function noLocalOf(made: readonly KubeVirtualService[]): Readonly<Record<Family, NoLocal>> {
  const missing = made.filter(({ servers, service }) => servers.length === 0 && service.policy.whenEmpty === 'drop')
  if (missing.length === 0) return noneMissing
  const count = (family: Family): NoLocal => {
    const own = missing.filter(({ service }) => service.key.family === family)
    const outside = own.filter(({ role }) => role !== 'clusterIP')
    const internal = own.length - outside.length
    return { internal, external: new Set(outside.map(({ insiders }) => insiders)).size }
  }
  return { 4: count(4), 6: count(6) }
}

/** With `more` added and `less` taken away. */
export function sumNoLocal(
  sum: Readonly<Record<Family, NoLocal>>,
  more: Readonly<Record<Family, NoLocal>>,
  less: Readonly<Record<Family, NoLocal>>,
): Readonly<Record<Family, NoLocal>> {
  const of = (family: Family): NoLocal => ({
    internal: sum[family].internal + more[family].internal - less[family].internal,
    external: sum[family].external + more[family].external - less[family].external,
  })
  return { 4: of(4), 6: of(6) }
}
