/**
 * The network of the namespace tests:
 *
 *   clients[0] 10.1.0.11 fd00:1::11 --+                                   +-- servers[0] 10.244.1.11 fd00:244:1::11
 *   clients[1] 10.1.0.12 fd00:1::12 --+-- cl0 [ director ] sv0 -----------+-- servers[1] 10.244.1.12 fd00:244:1::12
 *   ...                               |   10.1.0.1      10.244.1.1        |   ...
 *                                         fd00:1::1     fd00:244:1::1
 *
 * Everybody's default route is the director, which forwards: until a test puts a balancer there, clients reach servers
 * by their own addresses, and any other address (10.96.0.0/16, fd00:96::/112) can be a virtual one. Clients and
 * servers are worker threads in their namespaces (src/lab/host-api.ts says what they can be asked for).
 */
import type { ServerCounts, ServerInfo } from '../../src/lab/host-api.ts'
import { Host } from '../../src/lab/host.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { clientNetwork, hostAddresses, type HostAddresses, serverNetwork, standardShape } from '../../src/lab/shape.ts'
import { Topology } from '../../src/lab/topology.ts'

export { waitFor } from './wait-for.ts'

/** For `{ skip: needsRoot }`: the reason why this process cannot make namespaces, or false when it can. */
export const needsRoot: string | false = process.getuid?.() === 0 ? false : 'network namespaces need root'

/** Ports on which every server serves. */
export const ports = { http: 8080, dns: 5353, echo: 7000 } as const
export type ServiceKind = keyof typeof ports

/** What the servers' DNS knows. */
export const dnsName = 'host.test'
export const dnsAddresses = ['192.0.2.1', '2001:db8::1'] as const

export interface TopologyOptions {
  /** Default: 1. */
  readonly clients?: number
  /** Default: 3. */
  readonly servers?: number
  /** What the servers serve. Default: everything. */
  readonly serve?: readonly ServiceKind[]
  /** False: senders compute checksums themselves, as XDP wants it on veth. */
  readonly checksumOffload?: boolean
}

export interface TestHost extends HostAddresses {
  readonly host: Host
}

export interface TestServer extends TestHost {
  /** Running servers by kind; a kind that was not asked for is missing. */
  readonly services: Partial<Record<ServiceKind, ServerInfo>>
}

export interface TestNet {
  readonly topology: Topology
  readonly clients: readonly TestHost[]
  readonly servers: readonly TestServer[]
  /** What each server counted of one kind, by the server's name. */
  counts(kind: ServiceKind): Promise<Record<string, ServerCounts>>
}

/** As much of a tap test as the helper needs. */
interface Teardown {
  teardown(handler: () => Promise<void>): void
}

async function serve(server: TestHost, kinds: readonly ServiceKind[]): Promise<TestServer> {
  const { host, name } = server
  const records = { [dnsName]: dnsAddresses }
  const start: Record<ServiceKind, () => Promise<ServerInfo>> = {
    http: () => host.call('serveHttp', { name, port: ports.http }),
    dns: () => host.call('serveDns', { name, port: ports.dns, records }),
    echo: () => host.call('serveEcho', { name, port: ports.echo }),
  }
  const services = await Promise.all(kinds.map(async (kind) => [kind, await start[kind]()] as const))
  return { ...server, services: Object.fromEntries(services) }
}

function countsOf(servers: readonly TestServer[], kind: ServiceKind): Promise<[string, ServerCounts][]> {
  return Promise.all(
    servers.map(async ({ name, host, services }) => {
      const service = services[kind]
      if (service === undefined) throw new Error(`${name} does not serve ${kind}`)
      return [name, await host.call('serverCounts', service.id)]
    }),
  )
}

/** Builds the network for a test and takes it down with the test, however that ends. */
export async function topology(t: Teardown, options: TopologyOptions = {}): Promise<TestNet> {
  const hosts: Host[] = []
  const numbered = (role: string, count: number) => {
    return Array.from({ length: count }, (_, i) => ({ name: `${role}${i}`, number: 11 + i }))
  }
  const clients = numbered('client', options.clients ?? 1)
  const servers = numbered('server', options.servers ?? 3)
  const offload = options.checksumOffload ?? true
  const net = new Topology({ ...standardShape(clients, servers), checksumOffload: offload })
  t.teardown(async () => {
    await Promise.all(hosts.map((host) => host.close()))
    await net.close()
  })
  await sweepRuns()
  await net.create()
  const start = async (addresses: HostAddresses): Promise<TestHost> => {
    const host = await Host.start(addresses.name, net.pathOf(addresses.name))
    hosts.push(host)
    return { ...addresses, host }
  }
  const [clientHosts, serverHosts] = await Promise.all([
    Promise.all(clients.map((client) => start(hostAddresses(clientNetwork, client)))),
    Promise.all(servers.map((server) => start(hostAddresses(serverNetwork, server)))),
  ])
  const kinds = options.serve ?? ['http', 'dns', 'echo']
  const serving = await Promise.all(serverHosts.map((server) => serve(server, kinds)))
  return {
    topology: net,
    clients: clientHosts,
    servers: serving,
    counts: async (kind) => Object.fromEntries(await countsOf(serving, kind)),
  }
}
