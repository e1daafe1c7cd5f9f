/** From one Service and its EndpointSlices to the virtual services that serve it. Pure. */
import type { DesiredService } from '../engine/table.ts'
import { ADDRESS_BYTES, writeAddress } from '../model/address.ts'
import type { Family, Prefix, Scheduler, ServerSpec, ServicePolicy, ServiceSpec } from '../model/types.ts'
import { type IpAddress, isWithin } from './address.ts'
import { type DsrTunnel, type Scheduling, weightOf } from './annotations.ts'
import { type DsrService, nodeServers, weighed } from './dsr.ts'
import { type Candidate, type ChosenEndpoints, candidatesOf, chooseEndpoints, type Place } from './endpoints.ts'
import type { KubeEndpointSlice, KubeService, KubeServicePort, NodeAddresses } from './objects.ts'

/** What of the cluster and of this node bears on every Service. */
export interface TranslateOptions {
  /** Of every service (kube-proxy's ipvs.scheduler). */
  readonly scheduler: Scheduler
  /** Where we are; local endpoints are those of this node. */
  readonly place: Place
  /** Where node ports are served. */
  readonly nodePortAddresses: readonly IpAddress[]
  /** The node's addresses, but loopback and link-local ones. */
  readonly hostAddresses: readonly IpAddress[]
  /** The node's own address of each family: where it may use a load balancer's address, so may the node. */
  readonly primaryAddresses: readonly IpAddress[]
  /** Masquerade whatever goes to a cluster IP. */
  readonly masqueradeAll: boolean
  /** It can be told which packets come from the cluster's pods. Without that nothing to a cluster IP is masqueraded. */
  readonly knowsPods: Readonly<Record<Family, boolean>>
  /** Of all nodes; absent: they are not known, and nothing can be sent on to them. */
  readonly nodes?: NodeAddresses
}

/** Which address of its Service a virtual service has. */
export type Role = 'clusterIP' | 'externalIP' | 'loadBalancerIP' | 'nodePort'

/** A virtual service as a Service wants it. Without servers connections are dropped if other nodes have some. */
export interface KubeVirtualService extends DesiredService {
  readonly service: ServiceSpec & { readonly policy: ServicePolicy }
  readonly role: Role
  /** New servers get their weight over so many seconds; absent: at once. */
  readonly slowStartS?: number
}

/** IP in IP, as ipvsadm's -i. */
const tunnel = { type: 'ipip', port: 0, checksum: 'none' } as const

type Masquerade = ServicePolicy['masquerade']

const nobody: Masquerade = { pods: false, node: false, others: false }
const strangers: Masquerade = { pods: false, node: true, others: true }
const everybody: Masquerade = { pods: true, node: true, others: true }
const theNode: Masquerade = { pods: false, node: true, others: false }
const insiders: Masquerade = { pods: true, node: true, others: false }

/** Ports in the order of the Service; of each the cluster IPs, external IPs, load balancers' addresses, node ports. */
export function virtualServices(
  service: KubeService,
  slices: readonly KubeEndpointSlice[],
  options: TranslateOptions,
  scheduling: Scheduling,
): KubeVirtualService[] {
  return service.clusterIps.flatMap((ip) =>
    service.ports.flatMap((port) => new PortServices(service, ip, port, slices, options, scheduling).all()),
  )
}

/** The virtual services of one port in one family. */
class PortServices {
  readonly #service: KubeService
  readonly #clusterIp: IpAddress
  readonly #port: KubeServicePort
  readonly #options: TranslateOptions
  readonly #scheduling: Scheduling
  readonly #chosen: ChosenEndpoints
  readonly #cluster: readonly ServerSpec[]

  constructor(
    service: KubeService,
    clusterIp: IpAddress,
    port: KubeServicePort,
    slices: readonly KubeEndpointSlice[],
    options: TranslateOptions,
    scheduling: Scheduling,
  ) {
    this.#service = service
    this.#clusterIp = clusterIp
    this.#port = port
    this.#options = options
    this.#scheduling = scheduling
    this.#chosen = chooseEndpoints(candidatesOf(clusterIp.family, port, slices), options.place)
    this.#cluster = serversOf(clusterIp.family, this.#chosen.cluster, scheduling)
  }

  all(): KubeVirtualService[] {
    const { port, nodePort } = this.#port
    const { externalIps, ingressIps } = this.#service
    const nodeAddresses = nodePort === 0 ? [] : this.#options.nodePortAddresses
    const found = [
      this.#make('clusterIP', this.#clusterIp, port),
      ...externalIps.map((ip) => this.#make('externalIP', ip, port)),
      ...ingressIps.map((ip) => this.#make('loadBalancerIP', ip, port)),
      ...nodeAddresses.map((ip) => this.#make('nodePort', ip, nodePort)),
    ]
    return found.filter((each) => each !== undefined)
  }

  #make(role: Role, { family, address }: IpAddress, port: number): KubeVirtualService | undefined {
    if (family !== this.#clusterIp.family) return undefined
    const { scheduler, flags, slowStartS } = this.#scheduling
    const dsr = this.#dsr(role, address)
    const { protocol } = this.#port
    const local = this.#trafficPolicy(role) === 'Local'
    const servers = local ? serversOf(family, this.#chosen.local, this.#scheduling) : this.#cluster
    const sentOn = dsr && this.#sentOn({ family, port, tunnel: dsr.tunnel }, dsr.nodes)
    return {
      service: {
        key: { kind: 'address', family, protocol, address, port },
        scheduler: dsr ? weighed(scheduler) : scheduler,
        schedulerFlags: flags,
        ...this.#persistence(),
        onePacket: false,
        policy: this.#policy(role, { family, address }, local),
      },
      servers: sentOn ?? servers,
      ...((local && role !== 'clusterIP') || dsr ? { insiders: this.#cluster } : {}),
      ...(slowStartS === 0 ? {} : { slowStartS }),
      role,
    }
  }

  #persistence(): Pick<ServiceSpec, 'persistence'> {
    const { affinityS: timeoutS } = this.#service
    if (timeoutS === undefined) return {}
    const { prefixes, affinityScope } = this.#scheduling
    const { family } = this.#clusterIp
    const mask = family === 4 ? netmask(prefixes[4]) : prefixes[6]
    if (affinityScope === 'address') return { persistence: { timeoutS, mask } }
    const group = { id: groupId(this.#clusterIp), port: affinityScope === 'port' ? this.#port.port : 0 }
    return { persistence: { timeoutS, mask, group } }
  }

  /** How an address is served by sending on, if it is. Node ports are at those of this Node's addresses that other nodes know. */
  #dsr(role: Role, address: string): { readonly tunnel: DsrTunnel; readonly nodes: NodeAddresses } | undefined {
    const { dsr: tunnel } = this.#scheduling
    const { nodes, place } = this.#options
    if (role === 'clusterIP' || tunnel === undefined || nodes === undefined) return undefined
    if (role === 'nodePort' && nodes[place.node]?.some((ip) => ip.address === address) !== true) return undefined
    return this.#trafficPolicy(role) === 'Local' ? undefined : { tunnel, nodes }
  }

  /** This node's endpoints, and the other nodes that have some. */
  #sentOn(service: DsrService, nodes: NodeAddresses): ServerSpec[] {
    const { node } = this.#options.place
    const local = this.#chosen.everywhere.filter(({ endpoint }) => endpoint.node === node)
    const shares = this.#chosen.everywhere.flatMap((candidate) => {
      const { address, node: its } = candidate.endpoint
      const weight = weightOf(address, candidate.weights, this.#scheduling.weights)
      return its === node ? [] : [{ node: its, weight }]
    })
    return [...serversOf(service.family, local, this.#scheduling), ...nodeServers(shares, nodes, service)]
  }

  #policy(role: Role, ip: IpAddress, local: boolean): ServicePolicy {
    const { hostAddresses } = this.#options
    const dsr = this.#dsr(role, ip.address) !== undefined
    return {
      masquerade: dsr ? insiders : this.#masquerade(role, local),
      ...(dsr ? { tunnelled: true } : {}),
      whenEmpty: this.#chosen.any ? 'drop' : 'refuse',
      nodePort: role === 'nodePort',
      foreign: role === 'externalIP' && !hostAddresses.some(({ address }) => address === ip.address),
      ...this.#sources(role, ip),
    }
  }

  #trafficPolicy(role: Role): 'Cluster' | 'Local' {
    const { internalTrafficPolicy, externalTrafficPolicy } = this.#service
    return role === 'clusterIP' ? internalTrafficPolicy : externalTrafficPolicy
  }

  #masquerade(role: Role, local: boolean): Masquerade {
    const { masqueradeAll, knowsPods } = this.#options
    if (role !== 'clusterIP') return local ? theNode : everybody
    if (masqueradeAll) return everybody
    return knowsPods[this.#clusterIp.family] ? strangers : nobody
  }

  /** Of load balancers' addresses. Where the node may come in, so may what it sends from the address itself. */
  #sources(role: Role, { family, address }: IpAddress): { readonly sources?: readonly Prefix[] } {
    const ranges = this.#service.sourceRanges.filter((range) => range.family === family)
    if (role !== 'loadBalancerIP' || ranges.length === 0 || ranges.some(({ length }) => length === 0)) return {}
    const nodeMay = this.#options.primaryAddresses.some((ip) => ranges.some((range) => isWithin(ip, range)))
    const self = { family, address, length: family === 4 ? 32 : 128 }
    return { sources: nodeMay ? [...ranges, self] : ranges }
  }
}

function serversOf(family: Family, candidates: readonly Candidate[], { method, weights }: Scheduling): ServerSpec[] {
  return candidates.map(({ endpoint, port, weights: ofSlice }) => {
    const { address } = endpoint
    const weight = weightOf(address, ofSlice, weights)
    return { family, address, port, weight, method, upper: 0, lower: 0, ...(method === 'tunnel' ? { tunnel } : {}) }
  })
}

/** Dotted, of a length from 1 to 32. */
function netmask(length: number): string {
  const bits = (0xffffffff << (32 - length)) >>> 0
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join('.')
}

/**
 * The last 32 bits of a cluster IP, which no two Services have in common as service ranges are small enough. If they had, each would still
 * send its clients to its own endpoints.
 */
function groupId({ family, address }: IpAddress): number {
  const bytes = new Uint8Array(ADDRESS_BYTES)
  writeAddress(bytes, 0, address, family)
  return new DataView(bytes.buffer).getUint32(family === 4 ? 0 : ADDRESS_BYTES - 4) || 1
}
