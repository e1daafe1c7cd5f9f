/** A service of its own whose one endpoint moves, and a client that asks it all the time: when is the first packet where it belongs? */
import { createSocket, type Socket } from 'node:dgram'
import { setImmediate as turn } from 'node:timers/promises'
import type { LinkEnd, Topology } from '../../src/lab/topology.ts'
import type { ApiObject, TestApiServer } from '../../test/helpers/api-server.ts'

const name = 'probe'
const serviceAddress = '10.95.0.1'
const servicePort = 53
const clientAddress = '192.168.1.2'
const serverAddress = '192.168.2.2'
/** The endpoint is at the one or the other: of the same address, so that only the change itself is between them. */
const endpointPorts = [5301, 5302] as const

/** A packet that is not there by then will not come. */
const longestMs = 10_000

/** What the director needs for it: a client and a server, on interfaces of their own. */
export const probeLinks: readonly (readonly [LinkEnd, LinkEnd])[] = [
  [
    { namespace: 'director', interface: 'a0', addresses: ['192.168.1.1/24'] },
    { namespace: 'client', interface: 'eth0', addresses: [`${clientAddress}/24`] },
  ],
  [
    { namespace: 'director', interface: 'b0', addresses: ['192.168.2.1/24'] },
    { namespace: 'server', interface: 'eth0', addresses: [`${serverAddress}/24`] },
  ],
]
export const probeNamespaces = [
  { name: 'client', routes: [{ to: 'default', via: '192.168.1.1' }] },
  { name: 'server', routes: [{ to: 'default', via: '192.168.2.1' }] },
] as const

const service: ApiObject = {
  metadata: { name, namespace: 'default', uid: 'uid-probe' },
  spec: {
    clusterIP: serviceAddress,
    clusterIPs: [serviceAddress],
    selector: { app: name },
    ports: [{ name: 'dns', protocol: 'UDP', port: servicePort, targetPort: 'dns' }],
  },
}

function sliceAt(port: number): ApiObject {
  return {
    metadata: { name: `${name}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'dns', port, protocol: 'UDP' }],
    endpoints: [{ addresses: [serverAddress], conditions: { ready: true, serving: true, terminating: false } }],
  }
}

/** Bound within the namespace of whoever calls: a look-up of an address that is not put off leaves no time to get out of it. */
function openSocket(address: string, port: number): Socket {
  const socket = createSocket({ type: 'udp4', lookup: (host, _, done) => done(null, host, 4) })
  socket.bind(port, address)
  return socket
}

export class Probe {
  readonly #server: TestApiServer
  readonly #client: Socket
  readonly #endpoints: readonly Socket[]
  /** Where the endpoint is, and whether a packet has come there. */
  #at = 0
  #reached = false

  /** Opens the sockets, and has the service on the API server. */
  constructor(topology: Topology, server: TestApiServer) {
    this.#server = server
    this.#client = topology.within('client', () => openSocket(clientAddress, 0))
    this.#endpoints = topology.within('server', () => endpointPorts.map((port) => openSocket(serverAddress, port)))
    for (const [i, socket] of this.#endpoints.entries()) {
      socket.on('message', () => {
        this.#reached ||= i === this.#at
      })
    }
    server.set('Service', service)
    server.set('EndpointSlice', sliceAt(endpointPorts[0]))
  }

  /** Waits for a packet at the endpoint where it is. */
  async reach(): Promise<void> {
    const began = performance.now()
    this.#reached = false
    while (!this.#reached) {
      if (performance.now() - began > longestMs) throw new Error('no packet reaches the endpoint')
      this.#client.send('?', servicePort, serviceAddress)
      await turn()
    }
  }

  /** The endpoint moves; milliseconds until the first packet is there. */
  async move(): Promise<number> {
    const began = performance.now()
    this.#at = 1 - this.#at
    this.#server.set('EndpointSlice', sliceAt(endpointPorts[this.#at] ?? 0))
    await this.reach()
    return performance.now() - began
  }

  close(): void {
    for (const socket of [this.#client, ...this.#endpoints]) socket.close()
  }
}
