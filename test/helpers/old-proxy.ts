/** A kube-proxy that was there before: its nftables mode's tables, in its own shape, and what a client has open through them. */
import type { Topology } from '../../src/lab/topology.ts'
import type { Mirrored, Outcome } from '../../src/lab/host-api.ts'
import type { TestHost } from './topology.ts'

export interface OldService {
  readonly address: string
  readonly port: number
  readonly protocol: 'tcp' | 'udp'
  /** One of the host's own addresses, as node ports are. */
  readonly nodePort?: boolean
  readonly server: { readonly address: string; readonly port: number }
}

const families = {
  ip: {
    type: 'ipv4_addr',
    icmp: 'icmp',
    pods: '10.244.0.0/16',
    services: '10.96.0.0/16',
    of: (a: string) => !a.includes(':'),
  },
  ip6: {
    type: 'ipv6_addr',
    icmp: 'icmpv6',
    pods: 'fd00:244::/32',
    services: 'fd00:96::/112',
    of: (a: string) => a.includes(':'),
  },
} as const

/** The tables of both families. All clients but pods are masqueraded, as kube-proxy does for cluster IPs. */
export function nftTables(services: readonly OldService[]): string {
  return (['ip', 'ip6'] as const)
    .map((family) =>
      nftTable(
        family,
        services.filter(({ address }) => families[family].of(address)),
      ),
    )
    .join('')
}

function nftTable(family: 'ip' | 'ip6', services: readonly OldService[]): string {
  const { type, icmp, pods, services: range } = families[family]
  const named = services.map((service, i) => ({ ...service, chain: `service-${i}-old` }))
  const list = (name: string, kind: string, elements: readonly string[]): string => {
    return `  ${name} { ${kind}; ${elements.length === 0 ? '' : `elements = { ${elements.join(', ')} };`} }\n`
  }
  const clusterIps = named.filter(({ nodePort }) => nodePort !== true)
  const nodePorts = named.filter(({ nodePort }) => nodePort === true)
  const chains = named.map(({ address, port, protocol, server, chain, nodePort }, i) => {
    const marked =
      nodePort === true ? '' : `${family} daddr ${address} ${protocol} dport ${port} ${family} saddr != ${pods} `
    const to = server.address.includes(':') ? `[${server.address}]` : server.address
    return `
  chain endpoint-${i} { ${family} saddr ${server.address} jump mark-for-masquerade; meta l4proto ${protocol} dnat to ${to}:${server.port}; }
  chain ${chain} { ${marked}jump mark-for-masquerade; numgen random mod 1 vmap { 0 : goto endpoint-${i} }; }`
  })
  return `
table ${family} kube-proxy {
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }${chains.join('')}
${list('set cluster-ips', `type ${type}`, [...new Set(clusterIps.map(({ address }) => address))])}
${list('set nodeport-ips', `type ${type}`, [...new Set(nodePorts.map(({ address }) => address))])}
${list(
  'map service-ips',
  `type ${type} . inet_proto . inet_service : verdict`,
  clusterIps.map(({ address, protocol, port, chain }) => `${address} . ${protocol} . ${port} : goto ${chain}`),
)}
${list(
  'map service-nodeports',
  'type inet_proto . inet_service : verdict',
  nodePorts.map(({ protocol, port, chain }) => `${protocol} . ${port} : goto ${chain}`),
)}
  chain services {
    ${family} daddr . meta l4proto . th dport vmap @service-ips
    ${family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain masquerading {
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  chain cluster-ips-check {
    ${family} daddr @cluster-ips reject with ${icmp} type port-unreachable
    ${family} daddr ${range} drop
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
  chain filter-forward { type filter hook forward priority -110; ct state new jump cluster-ips-check; }
  chain filter-output { type filter hook output priority -110; ct state new jump cluster-ips-check; }
}
`
}

/** Puts the tables in force, in place of those that are. */
export async function startOldProxy(topology: Topology, services: readonly OldService[]): Promise<void> {
  await stopOldProxy(topology)
  await topology.must('director', 'nft', ['-f', '-'], { input: nftTables(services) })
  /* Flows of datagrams are there for as long as a test may take: 30 s are not, on a busy machine. */
  await topology.must('director', 'sysctl', ['-qw', 'net.netfilter.nf_conntrack_udp_timeout=300'])
}

export async function stopOldProxy(topology: Topology): Promise<void> {
  const gone = ['ip', 'ip6'].map((family) => `table ${family} kube-proxy\ndelete table ${family} kube-proxy\n`)
  await topology.must('director', 'nft', ['-f', '-'], { input: gone.join('') })
}

/** What came of an attempt that had to succeed. */
export function valueFrom<T>(outcome: Outcome<T>): T {
  if ('error' in outcome) throw new Error(outcome.error)
  return outcome.value
}

/** Asks a mirror by one datagram or a connection, from a port of its own, which so belongs to one flow. */
export async function askFrom(
  { host }: TestHost,
  protocol: 'tcp' | 'udp',
  to: { readonly address: string; readonly port: number },
  localPort: number,
): Promise<Mirrored> {
  const [outcome] = await host.call('probe', [{ ...to, protocol, localPort, timeoutMs: 5000 }], 1)
  if (outcome === undefined) throw new Error('no outcome')
  return valueFrom(outcome)
}
