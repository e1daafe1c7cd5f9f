/** Hosts of the network of kube-proxy's matrix (kube-wiring.ts): who calls, and who serves. */
import { existsSync, writeFileSync } from 'node:fs'
import { Host } from '../../src/lab/host.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { Topology } from '../../src/lab/topology.ts'
import { kubeTopology, kubeTunnels, overlayAddresses, recordedWiring, type Wiring } from './kube-wiring.ts'
import { Tunnel } from './tunnel.ts'

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
  ...Object.values(overlayAddresses),
]

/** Where endpoints serve: namespace, the kind of host that they say they are, addresses. */
const mirrors = [
  { role: 'endpoint', name: 'local', addresses: ['10.128.0.11', '10.128.0.16', '10.128.0.17'] },
  { role: 'endpoint', name: 'local', addresses: ['fd00:128::11', 'fd00:128::110', 'fd00:128::111'] },
  { role: 'other', name: 'remote', addresses: ['10.129.0.16', '10.129.0.17', 'fd00:129::110', 'fd00:129::111'] },
] as const

/** The port that endpoints serve at. */
const endpointPort = 8080

/** Of each namespace since Linux 6.13; before, of the whole machine, and not to be seen here. */
const newerSysctls = { icmp_msgs_per_sec: 100_000, icmp_msgs_burst: 10_000 } as const

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

interface Options {
  readonly wiring?: Wiring
  /** False: senders compute checksums themselves, as XDP wants it on veth. */
  readonly checksumOffload?: boolean
}

export class KubeNet {
  readonly topology: Topology
  readonly #hosts = new Map<string, Host>()
  readonly #tunnels: Tunnel[] = []

  private constructor(topology: Topology) {
    this.topology = topology
  }

  /** Builds the network, with endpoints that serve, and takes it down with the test, however that ends. */
  static async make(t: Teardown, { wiring = recordedWiring, checksumOffload = true }: Options = {}): Promise<KubeNet> {
    const spec = kubeTopology(wiring)
    const topology = new Topology({
      ...spec,
      namespaces: spec.namespaces.map(({ lines: _, ...namespace }) => namespace),
      checksumOffload,
    })
    const net = new KubeNet(topology)
    t.teardown(async () => {
      await Promise.all([...net.#hosts.values()].map((host) => host.close()))
      await Promise.all(net.#tunnels.map((tunnel) => tunnel.close()))
      await topology.close()
    })
    await sweepRuns()
    await topology.create()
    for (const ends of kubeTunnels(wiring)) {
      const [a, b] = ends.map(([role, name]) => ({ path: topology.pathOf(role), name }))
      if (a !== undefined && b !== undefined) net.#tunnels.push(await Tunnel.make(a, b))
    }
    for (const { name, lines = [] } of spec.namespaces) {
      await topology.must(name, 'ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` })
    }
    await Promise.all(topology.spec.namespaces.map(({ name }) => net.#start(name)))
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
