/** The lab's network: the standard shape with three clients and the servers that the manifests of examples/ name. */
import { Host } from './host.ts'
import { hostAddresses, serverNetwork, standardShape } from './shape.ts'
import { Topology } from './topology.ts'

/** A server of the lab. The number is the last one of its addresses: 11 is 10.244.1.11 and fd00:244:1::11. */
export interface LabServerSpec {
  readonly name: string
  readonly number: number
  readonly application: 'http' | 'dns'
  readonly port: number
}

const http = { application: 'http', port: 8080 } as const
const dns = { application: 'dns', port: 5353 } as const

/** web-4 and api-3 are in no manifest of examples/: they wait to be added to one. */
export const labServers: readonly LabServerSpec[] = [
  { name: 'web-1', number: 11, ...http },
  { name: 'web-2', number: 12, ...http },
  { name: 'web-3', number: 13, ...http },
  { name: 'web-4', number: 14, ...http },
  { name: 'dns-1', number: 21, ...dns },
  { name: 'dns-2', number: 22, ...dns },
  { name: 'api-1', number: 31, ...http },
  { name: 'api-2', number: 32, ...http },
  { name: 'api-3', number: 33, ...http },
]

/** The name that every DNS server of the lab knows: its answer is the server's own address. */
export const labDnsName = 'who.lab.test'

const labClients = [0, 1, 2].map((i) => ({ name: `client-${i + 1}`, number: 11 + i }))

/** Which server has an address; undefined for an address that none has. */
export function serverAt(address: string): LabServerSpec | undefined {
  return labServers.find((server) => {
    const { ipv4, ipv6 } = hostAddresses(serverNetwork, server)
    return address === ipv4 || address === ipv6
  })
}

/** The addresses of a server. */
export function addressesOf(server: LabServerSpec): { readonly ipv4: string; readonly ipv6: string } {
  return hostAddresses(serverNetwork, server)
}

export class LabNetwork {
  readonly topology = new Topology(standardShape(labClients, labServers))
  readonly clients: Host[] = []
  readonly #hosts: Host[] = []
  #creation: Promise<void> = Promise.resolve()

  /** Builds it and starts all servers. What was built when it throws goes with close(). */
  create(): Promise<void> {
    this.#creation = this.#build()
    return this.#creation
  }

  /** Ends servers, clients and whatever else runs in the namespaces, and removes these; also while it is being built. */
  async close(): Promise<void> {
    await Promise.allSettled([this.#creation])
    await Promise.all(this.#hosts.map((host) => host.close()))
    await this.topology.close()
  }

  async #build(): Promise<void> {
    await this.topology.create()
    await Promise.all([
      ...labClients.map(async (client) => this.clients.push(await this.#host(client.name))),
      ...labServers.map((server) => this.#serve(server)),
    ])
    this.clients.sort((a, b) => a.name.localeCompare(b.name))
  }

  async #host(name: string): Promise<Host> {
    const host = await Host.start(name, this.topology.pathOf(name))
    this.#hosts.push(host)
    return host
  }

  async #serve(server: LabServerSpec): Promise<void> {
    const host = await this.#host(server.name)
    const { name, port, application } = server
    if (application === 'http') {
      await host.call('serveHttp', { name, port })
      return
    }
    const { ipv4, ipv6 } = addressesOf(server)
    await host.call('serveDns', { name, port, records: { [labDnsName]: [ipv4, ipv6] } })
  }
}
