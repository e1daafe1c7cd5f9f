/**
 * The network that kube-proxy's matrix was recorded in: a Kubernetes node with two pod namespaces, another node behind it,
 * and a client outside. And the same nodes and addresses in other wirings.
 *
 *   client 192.0.2.2 --------- 192.0.2.1 [ director ] 198.51.100.1 --------- 198.51.100.2 other: pods 10.129.0.0/16
 *                                         10.128.0.1
 *                              vetha -----+        +----- vethb
 *                        pod 10.128.0.10                endpoint 10.128.0.11, 10.128.0.16/28
 *
 * The node is the director. Its default route leads to a neighbour that nobody is. IPv6: fd00:192::, fd00:198::,
 * fd00:128:: and fd00:129::, numbered alike.
 */
import type { LinkEnd, NamespaceSpec, TopologySpec } from '../../src/lab/topology.ts'

/**
 * How the node reaches pods. Its own: by routes to a veth each, as Calico and AWS do it and as was recorded, or by a
 * bridge, as Flannel does it. The other node's: by the network between, as was recorded, by a vxlan through that, or by a tunnel without
 * Ethernet headers, as Calico's IP in IP and WireGuard are. And how the client outside reaches it: by an Ethernet, or such a tunnel.
 */
export interface Wiring {
  readonly pods: 'routed' | 'bridge'
  readonly other: 'routed' | 'overlay' | 'tunnel'
  readonly outside?: 'tunnel'
  /** The node's routes to the other node and to the client take no more; both think that an Ethernet is all the way. */
  readonly mtu?: number
  readonly sysctls?: NamespaceSpec['sysctls']
}

export const recordedWiring: Wiring = { pods: 'routed', other: 'routed' }

/** The node's addresses in the overlay. */
export const overlayAddresses = { 4: '10.128.255.1', 6: 'fd00:128:0:ff::1' } as const

/** Nobody is to run into limits on ICMP; addresses of local routes may be bound. */
const sysctls: Readonly<Record<string, string | number>> = {
  'net.ipv4.icmp_ratelimit': 0,
  'net.ipv6.icmp.ratelimit': 0,
  'net.ipv6.ip_nonlocal_bind': 1,
}

const nowhere = '02:00:00:00:00:fe'

const nobody = [`neigh add 192.0.2.254 lladdr ${nowhere} dev eth0`, `neigh add fd00:192::fe lladdr ${nowhere} dev eth0`]

const defaultRoute = ['route add default via 192.0.2.254', 'route add default via fd00:192::fe']

/** The node's side of its pods. */
const nodeToPods: Readonly<Record<Wiring['pods'], readonly string[]>> = {
  routed: [
    ...['vetha', 'vethb'].flatMap((name) => [
      `addr add 10.128.0.1/32 dev ${name}`,
      `addr add fd00:128::1/128 dev ${name} nodad`,
    ]),
    'route add 10.128.0.10 dev vetha src 10.128.0.1',
    'route add fd00:128::10 dev vetha',
    'route add 10.128.0.11 dev vethb src 10.128.0.1',
    'route add fd00:128::11 dev vethb',
    'route add 10.128.0.16/28 via 10.128.0.11 dev vethb onlink',
    'route add fd00:128::100/120 via fd00:128::11 dev vethb',
  ],
  bridge: [
    'addr add 10.128.0.1/24 dev cni0',
    'addr add fd00:128::1/64 dev cni0 nodad',
    'link set dev vethb type bridge_slave hairpin on',
  ],
}

const podDefault = ['route add default via 10.128.0.1', 'route add default via fd00:128::1']

/** A pod's side of the node. */
function podLines(pods: Wiring['pods'], address: number): string[] {
  const [v4, v6] = [`10.128.0.${address}`, `fd00:128::${address}`]
  if (pods === 'bridge') return [`addr add ${v4}/24 dev eth0`, `addr add ${v6}/64 dev eth0 nodad`, ...podDefault]
  return [
    `addr add ${v4}/32 dev eth0`,
    `addr add ${v6}/128 dev eth0 nodad`,
    'route add 10.128.0.1 dev eth0 scope link',
    'route add fd00:128::1 dev eth0',
    ...podDefault,
  ]
}

/** More addresses of the namespace of endpoints, which it does not call from. */
const moreAddresses: Readonly<Record<Wiring['pods'], readonly string[]>> = {
  routed: ['route add local 10.128.0.16/28 dev lo', 'route add local fd00:128::100/120 dev lo'],
  bridge: [
    ...['10.128.0.16', '10.128.0.17'].map((address) => `addr add ${address}/24 dev eth0`),
    ...['fd00:128::110', 'fd00:128::111'].map((address) => `addr add ${address}/64 dev eth0 nodad preferred_lft 0`),
  ],
}

/** One end of the overlay: its number, 1 or 2, is the last of the underlying address. */
function vxlan(number: 1 | 2): string[] {
  const peer = 3 - number
  const [own, far] = [`12${7 + number}`, `12${7 + peer}`]
  const remote = `local 198.51.100.${number} remote 198.51.100.${peer}`
  return [
    `link add vx0 mtu 1450 address 02:00:00:00:09:0${number} type vxlan id 1 ${remote} dstport 8472 nolearning`,
    'link set dev vx0 up',
    `addr add 10.${own}.255.1/32 dev vx0`,
    `addr add fd00:${own}:0:ff::1/128 dev vx0 nodad`,
    `neigh add 10.${far}.255.1 lladdr 02:00:00:00:09:0${peer} dev vx0`,
    `neigh add fd00:${far}:0:ff::1 lladdr 02:00:00:00:09:0${peer} dev vx0`,
    `route add 10.${far}.0.0/16 via 10.${far}.255.1 dev vx0 onlink`,
    `route add fd00:${far}::/32 via fd00:${far}:0:ff::1 dev vx0 onlink`,
  ]
}

/** One end of a tunnel. */
function tunnelEnd(name: string, ...addresses: readonly string[]): string[] {
  return [
    `link set dev ${name} txqueuelen 10000 up`,
    ...addresses.map((address) => `addr add ${address} dev ${name}${address.includes(':') ? ' nodad' : ''}`),
  ]
}

/** One end of that to the other node's pods. */
function tunnel(number: 1 | 2): string[] {
  const [own, far] = [`12${7 + number}`, `12${10 - number}`]
  return [
    ...tunnelEnd('tun0', `10.${own}.255.1/32`, `fd00:${own}:0:ff::1/128`),
    `route add 10.${far}.0.0/16 dev tun0`,
    `route add fd00:${far}::/32 dev tun0`,
  ]
}

const toOther: Readonly<Record<Wiring['other'], readonly string[]>> = {
  routed: ['route add 10.129.0.0/16 via 198.51.100.2', 'route add fd00:129::/64 via fd00:198::2'],
  overlay: vxlan(1),
  tunnel: tunnel(1),
}

const fromOther: Readonly<Record<Wiring['other'], readonly string[]>> = {
  routed: [],
  overlay: vxlan(2),
  tunnel: tunnel(2),
}

const otherLines = [
  'route add default via 198.51.100.1',
  'route add default via fd00:198::1',
  'route add local 10.129.0.0/16 dev lo',
  'route add local fd00:129::/64 dev lo',
]

const outsideAddresses = {
  client: ['192.0.2.2/24', 'fd00:192::2/64'],
  director: ['192.0.2.1/24', 'fd00:192::1/64'],
} as const

/** Has the node's routes take less. */
function narrow(mtu: number): string[] {
  const lines = [
    '10.129.0.0/16 via 198.51.100.2',
    'fd00:129::/64 via fd00:198::2',
    '192.0.2.2 dev eth0',
    'fd00:192::2 dev eth0',
  ]
  return lines.map((line) => `route replace ${line} mtu lock ${mtu}`)
}

function namespacesOf({ pods, other, outside, mtu, sysctls: more }: Wiring): NamespaceSpec[] {
  const [toClient, toNode] = (['director', 'client'] as const).map((role) =>
    outside === 'tunnel' ? tunnelEnd('eth0', ...outsideAddresses[role]) : [],
  )
  return [
    {
      name: 'director',
      forwarding: true,
      bridges: pods === 'bridge' ? ['cni0'] : [],
      sysctls: { ...sysctls, ...more },
      lines: [
        ...(toClient ?? []),
        ...(outside === 'tunnel' ? [] : nobody),
        ...defaultRoute,
        ...nodeToPods[pods],
        ...toOther[other],
        ...(mtu === undefined ? [] : narrow(mtu)),
      ],
    },
    {
      name: 'client',
      sysctls,
      lines: [...(toNode ?? []), 'route add default via 192.0.2.1', 'route add default via fd00:192::1'],
    },
    { name: 'other', sysctls, lines: [...otherLines, ...fromOther[other]] },
    { name: 'pod', sysctls, lines: podLines(pods, 10) },
    { name: 'endpoint', sysctls, lines: [...podLines(pods, 11), ...moreAddresses[pods]] },
  ]
}

/** Both ends of a link, the node's second, with MAC addresses by its number. */
function link(number: number, theirs: LinkEnd, node: LinkEnd): [LinkEnd, LinkEnd] {
  const mac = `02:00:00:00:0${number}`
  return [
    { ...theirs, mac: `${mac}:02` },
    { ...node, mac: `${mac}:01` },
  ]
}

function end(namespace: string, name: string, ...addresses: readonly string[]): LinkEnd {
  return { namespace, interface: name, addresses }
}

function linksOf({ pods, outside: way }: Wiring): [LinkEnd, LinkEnd][] {
  const port = (name: string): LinkEnd => ({ ...end('director', name), ...(pods === 'bridge' && { bridge: 'cni0' }) })
  const [outside, between] = [
    end('client', 'eth0', ...outsideAddresses.client),
    end('other', 'eth0', '198.51.100.2/24', 'fd00:198::2/64'),
  ]
  return [
    ...(way === 'tunnel' ? [] : [link(0, outside, end('director', 'eth0', ...outsideAddresses.director))]),
    link(1, between, end('director', 'eth1', '198.51.100.1/24', 'fd00:198::1/64')),
    link(2, end('pod', 'eth0'), port('vetha')),
    link(3, end('endpoint', 'eth0'), port('vethb')),
  ]
}

/** Tunnels to be made, by namespace and name of their ends, before the lines of namespaces are carried out. */
export function kubeTunnels({ other, outside }: Wiring): (readonly [string, string])[][] {
  const between = (peer: string, name: string) => ['director', peer].map((role) => [role, name] as const)
  return [
    ...(other === 'tunnel' ? [between('other', 'tun0')] : []),
    ...(outside === 'tunnel' ? [between('client', 'eth0')] : []),
  ]
}

/** The whole of it, but for tunnels. */
export function kubeTopology(wiring: Wiring): TopologySpec {
  return { namespaces: namespacesOf(wiring), links: linksOf(wiring) }
}
