/**
 * Direct server return: clients from outside are sent on to the node of an endpoint in a tunnel, and that node answers them
 * itself. So no address is masqueraded, and answers do not pass where the request came in. Pure.
 */
import type { Family, Scheduler, ServerSpec } from '../model/types.ts'
import type { DsrTunnel } from './annotations.ts'
import type { NodeAddresses } from './objects.ts'

/** The port of GUE; the programs take tunnels at this one alone. */
const guePort = 6080
const mostWeight = 65_535

/** An endpoint as far as its node counts. */
export interface NodeShare {
  /** Absent: it is not known where it runs. */
  readonly node: string | undefined
  readonly weight: number
}

/** Of a virtual service: the port that packets keep on their way. */
export interface DsrService {
  readonly family: Family
  readonly port: number
  readonly tunnel: DsrTunnel
}

/**
 * A server for each other node that has endpoints, with the weight of them all, in the order of the first of each. Nodes of
 * no known address of the family are left out.
 */
export function nodeServers(
  shares: readonly NodeShare[],
  nodes: NodeAddresses,
  { family, port, tunnel }: DsrService,
): ServerSpec[] {
  const weights = new Map<string, number>()
  for (const { node, weight } of shares) {
    const address = node === undefined ? undefined : nodes[node]?.find((ip) => ip.family === family)?.address
    if (address !== undefined) weights.set(address, Math.min((weights.get(address) ?? 0) + weight, mostWeight))
  }
  const headers = { type: tunnel, port: tunnel === 'gue' ? guePort : 0, checksum: 'none' } as const
  return Array.from(weights, ([address, weight]) => {
    return { family, address, port, weight, method: 'tunnel', tunnel: headers, upper: 0, lower: 0 }
  })
}

/** The scheduler that shares by weight in the place of one that does not: nodes have as many endpoints as they have. */
export function weighed(scheduler: Scheduler): Scheduler {
  if (scheduler === 'rr') return 'wrr'
  return scheduler === 'lc' ? 'wlc' : scheduler
}
