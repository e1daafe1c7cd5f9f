/**
 * The cluster of the recorded timeline: an API server with its Services, a client, a node with bpvsd in kube-proxy's place, and
 * connections that are held open.
 *
 *   client 192.0.2.2 -- 192.0.2.1 [ director ] 10.128.0.1 -- pods: 10.128.0.16 and more, one namespace for all
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { type ApiObject, TestApiServer } from './api-server.ts'
import { Daemon } from './daemon.ts'
import { bpvsadm } from './director.ts'
import { Peer } from './peer.ts'
import { waitFor } from './wait-for.ts'

const settleMs = 100_000

const addresses = {
  l0: '10.128.0.16',
  l1: '10.128.0.17',
  r0: '10.129.0.16',
  r1: '10.129.0.17',
  r2: '10.129.0.18',
  r5: '10.129.0.21',
} as const
export type Endpoint = keyof typeof addresses
type Condition = 'ready' | 'terminating' | 'not ready'

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

const topology = (): Topology =>
  new Topology({
    namespaces: [
      { name: 'client', routes: [{ to: 'default', via: '192.0.2.1' }] },
      { name: 'director', forwarding: true },
      { name: 'pods', routes: [{ to: 'default', via: '10.128.0.1' }] },
    ],
    links: [
      [
        { namespace: 'client', interface: 'eth0', addresses: ['192.0.2.2/24'] },
        { namespace: 'director', interface: 'cl0', addresses: ['192.0.2.1/24'] },
      ],
      [
        { namespace: 'pods', interface: 'eth0', addresses: Object.values(addresses).map((each) => `${each}/9`) },
        { namespace: 'director', interface: 'pods0', addresses: ['10.128.0.1/9'] },
      ],
    ],
  })

/** The Services and EndpointSlices of the recording, as they are at the moment, on an API server. */
export class Cluster {
  readonly #server: TestApiServer
  readonly #web = new Map<Endpoint, Condition>()

  constructor(server: TestApiServer) {
    this.#server = server
    server.set('Node', { metadata: { name: 'node-a' } })
    this.service('kubernetes', '10.96.0.1', { name: 'https', port: 443 })
  }

  create(): void {
    this.web({})
    this.setWeb({ l0: 'ready', l1: 'ready', r0: 'ready', r1: 'ready' })
    this.service('udp', '10.96.3.2', { port: 53, protocol: 'UDP' })
    this.slice('udp', 'UDP', { l0: 'ready', r0: 'ready' })
    this.service('gone', '10.96.3.3', { port: 80 })
    this.slice('gone', 'TCP', { r5: 'ready' })
  }

  service(name: string, address: string, port: object, more: object = {}): void {
    const spec = { clusterIP: address, clusterIPs: [address], ports: [port], ...more }
    this.#server.set('Service', { metadata: { name, namespace: 'default' }, spec })
  }

  web({ port = 80, ...more }: { readonly port?: number; readonly [field: string]: unknown }): void {
    this.service('web', '10.96.3.1', { port }, more)
  }

  /** Changes these endpoints; undefined: gone. */
  setWeb(changes: Partial<Record<Endpoint, Condition | undefined>>): void {
    for (const [name, condition] of Object.entries(changes) as [Endpoint, Condition | undefined][]) {
      if (condition === undefined) this.#web.delete(name)
      else this.#web.set(name, condition)
    }
    this.slice('web', 'TCP', Object.fromEntries(this.#web))
  }

  slice(of: string, protocol: string, endpoints: Partial<Record<Endpoint, Condition>>): void {
    const list = Object.entries(endpoints).map(([name, condition]) => ({
      addresses: [addresses[name as Endpoint]],
      nodeName: name.startsWith('l') ? 'node-a' : 'node-b',
      conditions: {
        ready: condition === 'ready',
        serving: condition !== 'not ready',
        terminating: condition === 'terminating',
      },
    }))
    const object: ApiObject = {
      metadata: { name: `${of}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': of } },
      addressType: 'IPv4',
      ports: [{ name: '', port: 8080, protocol }],
      endpoints: list,
    }
    this.#server.set('EndpointSlice', object)
  }

  delete(name: string): void {
    this.#server.delete('Service', 'default', name)
    this.#server.delete('EndpointSlice', 'default', `${name}-1`)
  }
}

/** A client, a node with bpvsd in kube-proxy's place, and a namespace that has all pods' addresses. */
export class TimelineScene {
  readonly cluster: Cluster
  readonly #topology: Topology
  readonly #server: TestApiServer
  readonly #client: Peer
  readonly #pods: Peer
  readonly #directory = mkdtempSync(join(tmpdir(), 'bpvs-timeline-'))
  readonly #config: object
  /** Both ends of connections, by the server's address. */
  readonly #connections: { readonly client: number; readonly pod: number; readonly address: string }[] = []
  #daemon: Daemon | undefined

  private constructor(t: Teardown, config: object, topology: Topology, server: TestApiServer) {
    this.#topology = topology
    this.#server = server
    this.#config = config
    this.cluster = new Cluster(server)
    this.#client = new Peer(t, topology, 'client')
    this.#pods = new Peer(t, topology, 'pods')
    t.teardown(async () => rmSync(this.#directory, { recursive: true }))
  }

  static async make(t: Teardown, config: object): Promise<TimelineScene> {
    const net = topology()
    t.teardown(() => net.close())
    await net.create()
    const server = await TestApiServer.start(t, (open) => net.within('director', open))
    const scene = new TimelineScene(t, config, net, server)
    await scene.#pods.listen(8080)
    return scene
  }

  /** Starts bpvsd. `args`: more of its options. */
  async start(scheduler: string, ...args: readonly string[]): Promise<void> {
    const kubeconfig = join(this.#directory, 'kubeconfig')
    const file = join(this.#directory, 'config.conf')
    const clusters = [{ name: 'test', cluster: { server: this.#server.url } }]
    const contexts = [{ name: 'here', context: { cluster: 'test', user: 'me' } }]
    const users = [{ name: 'me', user: { token: 'secret' } }]
    writeFileSync(kubeconfig, JSON.stringify({ clusters, contexts, users, 'current-context': 'here' }))
    writeFileSync(file, JSON.stringify({ ...this.#config, ipvs: { scheduler }, clientConnection: { kubeconfig } }))
    const room = ['--max-servers', '1024', '--max-services', '1024']
    this.#daemon = new Daemon(
      this.#topology,
      ['--config', file],
      '--log-level',
      'debug',
      '--repair-interval-ms',
      '100',
      ...room,
      ...args,
    )
    await this.#daemon.logged('ready')
  }

  async end(): Promise<void> {
    await this.#daemon?.end('SIGTERM')
    this.#daemon = undefined
  }

  async cleanUp(): Promise<void> {
    await this.#topology.must('director', projectFile('bin/bpvsd'), ['--cleanup'])
  }

  /** Changes objects of the API server, and waits until bpvsd has applied that, if it runs. */
  async change(edit: (cluster: Cluster) => void): Promise<void> {
    const applied = (): number => this.#daemon?.lines.filter(({ msg }) => msg === 'applied').length ?? 0
    const before = applied()
    edit(this.cluster)
    if (this.#daemon !== undefined) await waitFor('the change to be applied', () => applied() > before, settleMs)
  }

  /** Opens connections one after the other; the servers that they reached. */
  async open(count: number, address: string, port: number): Promise<string[]> {
    const picks: string[] = []
    for (let i = 0; i < count; i++) {
      const { id: client } = await this.#client.connect(address, port)
      const { id: pod, address: reached } = await this.#pods.accept()
      this.#connections.push({ client, pod, address: reached })
      picks.push(reached)
    }
    return picks
  }

  async reset(endpoint: Endpoint): Promise<void> {
    for (const { client } of this.#to(endpoint)) await this.#client.reset(client)
  }

  async finish(endpoint: Endpoint): Promise<void> {
    for (const { client, pod } of this.#to(endpoint)) {
      await this.#client.end(client)
      await this.#pods.end(pod)
    }
  }

  /** Has both ends of connections say something; how each of them fared is known when both have failed. */
  async failures(endpoint: Endpoint): Promise<(readonly (string | undefined)[])[]> {
    const ends = this.#to(endpoint)
    for (const { client, pod } of ends) {
      await this.#client.write(client, 'x')
      await this.#pods.write(pod, 'x')
    }
    return Promise.all(
      ends.map(({ client, pod }) =>
        waitFor('both ends to fail', async () => {
          const errors = [await this.#client.look(client), await this.#pods.look(pod)].map(({ error }) => error)
          return errors.every((error) => error !== undefined) && errors
        }),
      ),
    )
  }

  #to(endpoint: Endpoint): { readonly client: number; readonly pod: number }[] {
    return this.#connections.filter(({ address }) => address === addresses[endpoint])
  }

  /** `ipvsadm -Ln` without its head, blanks narrowed. */
  async table(): Promise<string[]> {
    const text = await this.#topology.must('director', bpvsadm, ['-Ln'])
    return text
      .split('\n')
      .slice(3)
      .map((line) => line.trim().replaceAll(/ +/g, ' '))
      .filter((line) => line !== '')
  }
}
