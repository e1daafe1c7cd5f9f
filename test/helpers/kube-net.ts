/**
 * The network that kube-proxy's matrix was recorded in: a Kubernetes node with two pod namespaces of its own, wired as
 * routed CNIs do it, another node behind it, and a client outside.
 *
 *   client 192.0.2.2 --------- 192.0.2.1 [ director ] 198.51.100.1 --------- 198.51.100.2 other: pods 10.129.0.0/16
 *                                         10.128.0.1
 *                              vetha -----+        +----- vethb
 *                        pod 10.128.0.10                endpoint 10.128.0.11, 10.128.0.16/28
 *
 * The node is the director. Its default route leads to a neighbour that nobody is. IPv6: fd00:192::, fd00:198::,
 * fd00:128:: and fd00:129::, numbered alike.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { Host } from '../../src/lab/host.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { type LinkEnd, type NamespaceSpec, Topology } from '../../src/lab/topology.ts'

/** Who calls, by the namespace that it lives in; the other node does not in the recording. */
export const callers = {
  pod: 'pod',
  node: 'director',
  external: 'client',
  endpoint: 'endpoint',
  'other-node': 'other',
} as const
export type Caller = keyof typeof callers
export const callerNames = Object.keys(callers) as Caller[]

/** Addresses that a caller has, but for the node's, which are many. */
export const ownAddresses: Readonly<Record<Caller, readonly string[]>> = {
  pod: ['10.128.0.10', 'fd00:128::10'],
  node: [],
  external: ['192.0.2.2', 'fd00:192::2'],
  endpoint: ['10.128.0.11', 'fd00:128::11'],
  'other-node': ['198.51.100.2', 'fd00:198::2'],
}

/** The node's addresses. */
export const nodeAddresses: readonly string[] = [
  ...['192.0.2.1', 'fd00:192::1', '198.51.100.1', 'fd00:198::1', '10.128.0.1', 'fd00:128::1'],
  ...['127.0.0.1', '::1'],
]

/** Where endpoints serve: namespace, the kind of host that they say they are, addresses. */
const mirrors = [
  { role: 'endpoint', name: 'local', addresses: ['10.128.0.11', '10.128.0.16', '10.128.0.17'] },
  { role: 'endpoint', name: 'local', addresses: ['fd00:128::11', 'fd00:128::110', 'fd00:128::111'] },
  { role: 'other', name: 'remote', addresses: ['10.129.0.16', '10.129.0.17', 'fd00:129::110', 'fd00:129::111'] },
] as const

/** The port that endpoints serve at. */
const endpointPort = 8080

/** Nobody is to run into limits on ICMP; addresses of local routes may be bound. */
const sysctls: Readonly<Record<string, string | number>> = {
  'net.ipv4.icmp_ratelimit': 0,
  'net.ipv6.icmp.ratelimit': 0,
  'net.ipv6.ip_nonlocal_bind': 1,
}

/** Of each namespace since Linux 6.13; before, of the whole machine, and not to be seen here. */
const newerSysctls = { icmp_msgs_per_sec: 100_000, icmp_msgs_burst: 10_000 } as const

const nowhere = '02:00:00:00:00:fe'

const nodeLines = [
  `neigh add 192.0.2.254 lladdr ${nowhere} dev eth0`,
  `neigh add fd00:192::fe lladdr ${nowhere} dev eth0`,
  'route add default via 192.0.2.254',
  'route add default via fd00:192::fe',
  'route add 10.129.0.0/16 via 198.51.100.2',
  'route add fd00:129::/64 via fd00:198::2',
  'route add 10.128.0.10 dev vetha src 10.128.0.1',
  'route add fd00:128::10 dev vetha',
  'route add 10.128.0.11 dev vethb src 10.128.0.1',
  'route add fd00:128::11 dev vethb',
  'route add 10.128.0.16/28 via 10.128.0.11 dev vethb onlink',
  'route add fd00:128::100/120 via fd00:128::11 dev vethb',
]

const podLines = [
  'route add 10.128.0.1 dev eth0 scope link',
  'route add default via 10.128.0.1',
  'route add fd00:128::1 dev eth0',
  'route add default via fd00:128::1',
]

const namespaces: readonly NamespaceSpec[] = [
  { name: 'director', forwarding: true, sysctls, lines: nodeLines },
  { name: 'client', sysctls, lines: ['route add default via 192.0.2.1', 'route add default via fd00:192::1'] },
  {
    name: 'other',
    sysctls,
    lines: [
      'route add default via 198.51.100.1',
      'route add default via fd00:198::1',
      'route add local 10.129.0.0/16 dev lo',
      'route add local fd00:129::/64 dev lo',
    ],
  },
  { name: 'pod', sysctls, lines: podLines },
  {
    name: 'endpoint',
    sysctls,
    lines: [...podLines, 'route add local 10.128.0.16/28 dev lo', 'route add local fd00:128::100/120 dev lo'],
  },
]

/** Both ends of a link, with MAC addresses by its number. */
function link(number: number, theirs: LinkEnd, node: LinkEnd): [LinkEnd, LinkEnd] {
  const mac = (end: number): string => `02:00:00:00:0${number}:0${end}`
  return [
    { ...theirs, mac: mac(2) },
    { ...node, mac: mac(1) },
  ]
}

function end(namespace: string, name: string, ...addresses: readonly string[]): LinkEnd {
  return { namespace, interface: name, addresses }
}

const links = [
  link(
    0,
    end('client', 'eth0', '192.0.2.2/24', 'fd00:192::2/64'),
    end('director', 'eth0', '192.0.2.1/24', 'fd00:192::1/64'),
  ),
  link(
    1,
    end('other', 'eth0', '198.51.100.2/24', 'fd00:198::2/64'),
    end('director', 'eth1', '198.51.100.1/24', 'fd00:198::1/64'),
  ),
  link(
    2,
    end('pod', 'eth0', '10.128.0.10/32', 'fd00:128::10/128'),
    end('director', 'vetha', '10.128.0.1/32', 'fd00:128::1/128'),
  ),
  link(
    3,
    end('endpoint', 'eth0', '10.128.0.11/32', 'fd00:128::11/128'),
    end('director', 'vethb', '10.128.0.1/32', 'fd00:128::1/128'),
  ),
]

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

export class KubeNet {
  readonly topology: Topology
  readonly #hosts = new Map<string, Host>()

  private constructor(topology: Topology) {
    this.topology = topology
  }

  /** Builds the network, with endpoints that serve, and takes it down with the test, however that ends. */
  static async make(t: Teardown, options: { readonly checksumOffload?: boolean } = {}): Promise<KubeNet> {
    const topology = new Topology({ namespaces, links, ...options })
    const net = new KubeNet(topology)
    t.teardown(async () => {
      await Promise.all([...net.#hosts.values()].map((host) => host.close()))
      await topology.close()
    })
    await sweepRuns()
    await topology.create()
    await Promise.all(namespaces.map(({ name }) => net.#start(name)))
    const serving = mirrors.flatMap(({ role, name, addresses }) =>
      addresses.map((address) => net.host(role).call('serveMirror', { name, address, port: endpointPort })),
    )
    await Promise.all(serving)
    return net
  }

  host(role: string): Host {
    const host = this.#hosts.get(role)
    if (host === undefined) throw new Error(`no host ${role}`)
    return host
  }

  async #start(role: string): Promise<void> {
    this.topology.within(role, () => {
      for (const [name, value] of Object.entries(newerSysctls)) {
        const file = `/proc/sys/net/ipv4/${name}`
        if (existsSync(file)) writeFileSync(file, String(value))
      }
    })
    this.#hosts.set(role, await Host.start(role, this.topology.pathOf(role)))
  }
}
