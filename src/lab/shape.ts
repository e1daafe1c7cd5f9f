/**
 * The shape of network that tests and the lab use: clients on one side of a director, servers on the other, both
 * families.
 *
 *   client0 10.1.0.11 ---+                                                  +--- server0 10.244.1.11
 *           fd00:1::11   |           cl0 +----------+ sv0                   |            fd00:244:1::11
 *   client1 10.1.0.12 ---+-- clients ----+ director +---- servers ----------+--- server1 10.244.1.12
 *           fd00:1::12   |  10.1.0.1     +----------+  10.244.1.1           |            fd00:244:1::12
 *                       ...  fd00:1::1                 fd00:244:1::1       ...
 *
 * `clients` and `servers` are bridges in one further namespace, "switch". The default route of everybody is the
 * director, so a virtual address is any address outside of the two networks (10.96.0.0/16, fd00:96::/112).
 */
import type { LinkEnd, TopologySpec } from './topology.ts'

/** A host of the shape: its role (the namespace's name) and last number of its addresses. */
export interface HostSpec {
  readonly name: string
  /** 2 to 254: 11 stands for 10.1.0.11 and fd00:1::11, or 10.244.1.11 and fd00:244:1::11. */
  readonly number: number
}

/** A host with the addresses that it has. */
export interface HostAddresses {
  readonly name: string
  readonly ipv4: string
  readonly ipv6: string
}

export const clientNetwork = { ipv4: '10.1.0.', ipv6: 'fd00:1::' } as const
export const serverNetwork = { ipv4: '10.244.1.', ipv6: 'fd00:244:1::' } as const
type Network = typeof clientNetwork | typeof serverNetwork

/** Addresses of a host: the number is decimal in both families' text. */
export function hostAddresses(network: Network, host: HostSpec): HostAddresses {
  return { name: host.name, ipv4: `${network.ipv4}${host.number}`, ipv6: `${network.ipv6}${host.number}` }
}

function link(network: Network, bridge: string, host: HostSpec, name = 'eth0'): readonly [LinkEnd, LinkEnd] {
  const { ipv4, ipv6 } = hostAddresses(network, host)
  const label = host.name === 'director' ? `${bridge}-up` : host.name
  return [
    { namespace: host.name, interface: name, addresses: [`${ipv4}/24`, `${ipv6}/64`] },
    { namespace: 'switch', interface: label.slice(0, 15), bridge },
  ]
}

/** The topology of the picture above with the given clients and servers. */
export function standardShape(clients: readonly HostSpec[], servers: readonly HostSpec[]): TopologySpec {
  const host =
    (network: Network) =>
    ({ name }: HostSpec) => ({
      name,
      routes: [
        { to: 'default', via: `${network.ipv4}1` },
        { to: 'default', via: `${network.ipv6}1` },
      ],
    })
  const director = { name: 'director', number: 1 }
  return {
    namespaces: [
      { name: 'director', forwarding: true },
      { name: 'switch', bridges: ['clients', 'servers'], sysctls: { 'net.ipv6.conf.default.disable_ipv6': 1 } },
      ...clients.map(host(clientNetwork)),
      ...servers.map(host(serverNetwork)),
    ],
    links: [
      link(clientNetwork, 'clients', director, 'cl0'),
      link(serverNetwork, 'servers', director, 'sv0'),
      ...clients.map((client) => link(clientNetwork, 'clients', client)),
      ...servers.map((server) => link(serverNetwork, 'servers', server)),
    ],
  }
}
