/**
 * Keeps what the table is told of the cluster: how packets of pods are known, the ranges of services, and the ports of
 * masqueraded connections, which nobody else may come to use.
 */
import type { LocalDetection } from '../model/local-detection.ts'
import type { KubeNode, NodeAddresses } from '../kube/objects.ts'
import type { Peers } from '../maps/peers.ts'
import type { IpAddress } from '../kube/address.ts'
import { podLinks } from '../kube/local-detection.ts'
import { SeenRanges } from '../kube/service-ranges.ts'
import type { KubeVirtualService } from '../kube/virtual-services.ts'
import { metBy, type PortRange, requireFree, usualNodePorts } from '../model/masquerade-ports.ts'
import type { Prefix } from '../model/types.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import { choosePorts } from './masquerade-ports.ts'
import type { Host, ManagedTable } from './ports.ts'

export interface ClusterOptions {
  readonly host: Host
  readonly log: Log
  readonly pods: LocalDetection
  /** As configured; absent: chosen here. */
  readonly masqueradePorts?: PortRange
}

export class ClusterKeeper {
  readonly #options: ClusterOptions
  readonly #failures = new News<unknown>()
  readonly #seen = new SeenRanges()
  /** Node ports that are not where they usually are. */
  readonly #nodePorts = new Set<number>()
  #table: ManagedTable | undefined
  #networks: readonly Prefix[] = []
  #nodeAddresses: readonly IpAddress[] = []
  /** As ServiceCIDRs say; undefined: there are none. */
  #ranges: readonly Prefix[] | undefined
  #node: KubeNode | undefined
  #nodes: NodeAddresses | undefined
  #peers: Peers = { own: [], others: [] }

  constructor(options: ClusterOptions) {
    this.#options = options
  }

  /** INVALID: masqueraded connections are to be sent from ports that the kernel gives to others. For the start. */
  checkPorts(): void {
    const { masqueradePorts: wanted, host } = this.#options
    if (wanted !== undefined) requireFree(wanted, [...host.kernelPorts(), usualNodePorts])
  }

  /** A table that was opened: it is told all. */
  setTable(table: ManagedTable): void {
    this.#table = table
    this.#choosePorts()
    this.#tellPods()
    this.#tellNodeAddresses()
    this.#tellRanges()
    this.#tellPeers()
  }

  /** Networks of pods, as far as they are known by them. */
  setNetworks(networks: readonly Prefix[]): void {
    if (JSON.stringify(networks) === JSON.stringify(this.#networks)) return
    this.#networks = networks
    this.#tellPods()
  }

  /** Where node ports are served. */
  setNodePortAddresses(addresses: readonly IpAddress[]): void {
    if (JSON.stringify(addresses) === JSON.stringify(this.#nodeAddresses)) return
    this.#nodeAddresses = addresses
    this.#tellNodeAddresses()
  }

  /** Interfaces came or went. */
  look(): void {
    if (podLinks(this.#options.pods, []) !== undefined) this.#tellPods()
  }

  /** What the cluster's ServiceCIDRs are; undefined: it has none. */
  setServiceCidrs(ranges: readonly Prefix[] | undefined): void {
    if (JSON.stringify(ranges) === JSON.stringify(this.#ranges)) return
    this.#ranges = ranges
    this.#tellRanges()
  }

  /** Our Node and all nodes, whose tunnels are taken; undefined: they are not known, and none is. */
  setNodes(node: KubeNode | undefined, nodes: NodeAddresses | undefined): void {
    if (node === this.#node && nodes === this.#nodes) return
    this.#node = node
    this.#nodes = nodes
    this.#tellNodeAddresses()
    const others = Object.entries(nodes ?? {}).flatMap(([name, addresses]) => (name === node?.name ? [] : addresses))
    const peers = others.length === 0 ? { own: [], others } : { own: node?.addresses ?? [], others }
    if (JSON.stringify(peers) === JSON.stringify(this.#peers)) return
    this.#peers = peers
    this.#tellPeers()
  }

  /** Virtual services that are about to be programmed, all or those that are new. */
  note(services: readonly KubeVirtualService[]): void {
    if (this.#seen.note(services) && this.#ranges === undefined) this.#tellRanges()
    const before = this.#nodePorts.size
    for (const { service } of services) {
      const { key, policy } = service
      if (!policy.nodePort || key.kind !== 'address') continue
      const port = { first: key.port, last: key.port }
      if (metBy(port, [usualNodePorts]) === undefined) this.#nodePorts.add(key.port)
    }
    if (this.#nodePorts.size !== before) this.#choosePorts()
  }

  #tellPods(): void {
    const { pods, host } = this.#options
    this.#try('pods', (table) => {
      const links = podLinks(pods, [])
      table.setPods({
        networks: this.#networks,
        ...(links === undefined ? {} : { links: podLinks(pods, host.listInterfaces()) }),
      })
    })
  }

  /** One of each family, which other nodes know if there is such: it stands for theirs too. */
  #tellNodeAddresses(): void {
    const known = new Set(this.#node?.addresses.map(({ address }) => address))
    const first = (family: 4 | 6) => {
      const all = this.#nodeAddresses.filter((ip) => ip.family === family)
      return (all.find(({ address }) => known.has(address)) ?? all[0])?.address
    }
    this.#try('addresses of node ports', (table) => {
      table.setNodePortAddresses({ ipv4: first(4), ipv6: first(6) })
    })
  }

  #tellRanges(): void {
    const ranges = this.#ranges
    this.#try('service ranges', (table) => {
      table.setServiceRanges(ranges ?? this.#seen.prefixes, ranges !== undefined)
    })
  }

  #tellPeers(): void {
    this.#try('nodes', (table) => table.setPeers(this.#peers))
  }

  #choosePorts(): void {
    const { masqueradePorts: wanted, host, log } = this.#options
    const choice = { host, log, nodePorts: [...this.#nodePorts], ...(wanted === undefined ? {} : { wanted }) }
    this.#try('ports of masqueraded connections', (table) => choosePorts(table, choice))
  }

  /** What fails is said once. */
  #try(what: string, tell: (table: ManagedTable) => void): void {
    if (this.#table === undefined) return
    const failures: [string, unknown][] = []
    try {
      tell(this.#table)
    } catch (err) {
      failures.push([`${what} ${err instanceof Error ? err.message : String(err)}`, err])
    }
    for (const err of this.#failures.update(failures).found) this.#log(what, err)
  }

  #log(what: string, err: unknown): void {
    this.#options.log.error({ what, err }, 'the table could not be told of the cluster')
  }
}
