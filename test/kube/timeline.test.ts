/**
 * What kube-proxy's ipvs mode did while endpoints and services changed under open connections, and over restarts, again: the
 * recorded actions go to an API server and to real connections, and each has to end in the recorded table and picks.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { wholeRecording } from '../../tools/recordings.ts'
import { type ApiObject, TestApiServer } from '../helpers/api-server.ts'
import { Daemon } from '../helpers/daemon.ts'
import { bpvsadm } from '../helpers/director.ts'
import { Peer } from '../helpers/peer.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Findings, Tally } from '../helpers/tally.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(400_000)

const settleMs = 40_000

type Trace =
  | { readonly kind: 'action'; readonly action: string }
  | { readonly kind: 'table'; readonly ipvs: readonly string[] }
  | { readonly kind: 'client'; readonly event: string; readonly backend?: string }

/** What was done, the table that it came to, and the servers that connections were given, in their order. */
interface Step {
  readonly action: string
  readonly table: readonly string[]
  readonly picks: readonly string[]
}

function stepsOf(trace: readonly Trace[]): Step[] {
  const steps: { action: string; table: readonly string[]; picks: string[] }[] = []
  let table: readonly string[] = []
  for (const each of trace) {
    const step = steps.at(-1)
    if (each.kind === 'action') steps.push({ action: each.action, table, picks: [] })
    else if (each.kind === 'table') table = each.ipvs
    else if (each.event === 'open' && each.backend !== undefined) step?.picks.push(each.backend)
    if (each.kind === 'table' && step !== undefined) step.table = table
  }
  return steps
}

const addresses = {
  l0: '10.128.0.16',
  l1: '10.128.0.17',
  r0: '10.129.0.16',
  r1: '10.129.0.17',
  r2: '10.129.0.18',
  r5: '10.129.0.21',
} as const
type Endpoint = keyof typeof addresses
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
class Cluster {
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
class Scene {
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

  static async make(t: Teardown, config: object): Promise<Scene> {
    const net = topology()
    t.teardown(() => net.close())
    await net.create()
    const server = await TestApiServer.start(t, (open) => net.within('director', open))
    const scene = new Scene(t, config, net, server)
    await scene.#pods.listen(8080)
    return scene
  }

  async start(scheduler: string): Promise<void> {
    const [kubeconfig, file] = ['kubeconfig', 'config.conf'].map((name) => join(this.#directory, name)) as [
      string,
      string,
    ]
    const clusters = [{ name: 'test', cluster: { server: this.#server.url } }]
    const contexts = [{ name: 'here', context: { cluster: 'test', user: 'me' } }]
    const users = [{ name: 'me', user: { token: 'secret' } }]
    writeFileSync(kubeconfig, JSON.stringify({ clusters, contexts, users, 'current-context': 'here' }))
    writeFileSync(file, JSON.stringify({ ...this.#config, ipvs: { scheduler }, clientConnection: { kubeconfig } }))
    const room = ['--max-servers', '1024', '--max-services', '1024']
    this.#daemon = new Daemon(this.#topology, ['--config', file], '--repair-interval-ms', '100', ...room)
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

/** Does it; the servers that connections reached, if it opens some. */
type Act = (scene: Scene) => Promise<readonly string[]>

const quietly =
  (work: (scene: Scene) => Promise<void>): Act =>
  async (scene) => {
    await work(scene)
    return []
  }

const change = (edit: (cluster: Cluster) => void): Act => quietly((scene) => scene.change(edit))

/** Every action of the recording. */
const acts: Readonly<Record<string, Act>> = {
  'kube-proxy started (ipvs) and settled': quietly((scene) => scene.start('')),
  'create services web 10.96.3.1:80 (endpoints l0=10.128.0.16 l1=10.128.0.17 r0=10.129.0.16 r1=10.129.0.17), udp 10.96.3.2:53/UDP (l0 r0), gone 10.96.3.3:80 (r5=10.129.0.21)':
    change((cluster) => cluster.create()),
  'client opens 8 TCP connections to web and 1 to gone': async (scene) => [
    ...(await scene.open(8, '10.96.3.1', 80)),
    ...(await scene.open(1, '10.96.3.3', 80)),
  ],
  'udp: endpoint r0 removed': change((cluster) => cluster.slice('udp', 'UDP', { l0: 'ready' })),
  'web: endpoint r1 removed from the slice (2 connections open)': change((cluster) =>
    cluster.setWeb({ r1: undefined }),
  ),
  'client opens 6 more to web': (scene) => scene.open(6, '10.96.3.1', 80),
  'web: r1 is back (while draining)': change((cluster) => cluster.setWeb({ r1: 'ready' })),
  'client opens 4 more to web': (scene) => scene.open(4, '10.96.3.1', 80),
  'web: r1 ready -> terminating, serving (others ready)': change((cluster) => cluster.setWeb({ r1: 'terminating' })),
  'web: r1 gone from the slice': change((cluster) => cluster.setWeb({ r1: undefined })),
  'web: l1 ready -> not ready': change((cluster) => cluster.setWeb({ l1: 'not ready' })),
  'web: an endpoint r2 with no connection ever is added': change((cluster) => cluster.setWeb({ r2: 'ready' })),
  'web: r2 (never used) removed': change((cluster) => cluster.setWeb({ r2: undefined })),
  'client closes all connections to r1 with RST (entries live 10 s)': quietly((scene) => scene.reset('r1')),
  'client closes all connections to l1 with FIN (TIME_WAIT 120 s)': quietly((scene) => scene.finish('l1')),
  'service gone deleted (connection open)': change((cluster) => cluster.delete('gone')),
  'service web: port 80 -> 81 (connections open)': change((cluster) => cluster.web({ port: 81 })),
  'client opens 2 to port 81': (scene) => scene.open(2, '10.96.3.1', 81),
  'service web: port back to 80': change((cluster) => cluster.web({})),
  'client opens 4 to port 80': (scene) => scene.open(4, '10.96.3.1', 80),
  'service web: sessionAffinity ClientIP': change((cluster) => cluster.web({ sessionAffinity: 'ClientIP' })),
  'service web: timeout 60': change((cluster) => {
    cluster.web({ sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } })
  }),
  'service web: sessionAffinity None': change((cluster) => cluster.web({})),
  'web: r0 removed (connections open), then kube-proxy ended 8 s later': change((cluster) => {
    cluster.setWeb({ r0: undefined })
  }),
  'kube-proxy ended (SIGTERM); r0 in drain': quietly((scene) => scene.end()),
  'kube-proxy started with scheduler wrr; r0 still in drain': quietly((scene) => scene.start('wrr')),
  settled: quietly(async () => undefined),
  'web: all endpoints removed': change((cluster) => cluster.setWeb({ l0: undefined })),
  'web: l0 r0 back': change((cluster) => cluster.setWeb({ l0: 'ready', r0: 'ready' })),
  'service udp deleted while kube-proxy is down: kube-proxy ended': quietly(async (scene) => {
    await scene.end()
    await scene.change((cluster) => cluster.delete('udp'))
  }),
  'kube-proxy started (scheduler wrr)': quietly((scene) => scene.start('wrr')),
  'kube-proxy ended': quietly((scene) => scene.end()),
  'kube-proxy --cleanup': quietly((scene) => scene.cleanUp()),
}

async function play(scene: Scene, { action, table, picks }: Step, findings: Findings): Promise<void> {
  const act = acts[action]
  if (act === undefined) throw new Error(`nobody knows how to do "${action}"`)
  findings.same(await act(scene), picks, 'the servers reached')
  const wanted = table.toSorted().join('\n')
  let now: string[] = []
  const settled = async (): Promise<boolean> => {
    now = (await scene.table()).toSorted()
    return now.join('\n') === wanted
  }
  await waitFor('the recorded table', settled, settleMs).catch(() => findings.same(now, table.toSorted(), 'the table'))
}

t.test(
  'every recorded action on a cluster under traffic comes to the recorded table',
  { skip: needsRoot },
  async (t) => {
    const { config, trace } = readJsonRecording<{ config: object; trace: readonly Trace[] }>('kube-timeline')
    const tally = new Tally('kube-timeline')
    const scene = await Scene.make(t, config)
    for (const [i, step] of stepsOf(trace).entries()) {
      const findings = new Findings()
      await play(scene, step, findings)
      t.same(tally.note(wholeRecording, i, step.action, findings.take()), [], step.action)
    }
    tally.end(t)
  },
)
