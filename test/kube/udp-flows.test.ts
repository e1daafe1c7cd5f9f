/**
 * UDP from sockets that go on, and so from the same ports: whatever becomes of the service and its endpoints meanwhile, the next
 * datagram reaches a server that there is, whose answer reaches the socket. With netfilter's connection tracking, which has seen it all.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { ApiObject, TestApiServer } from '../helpers/api-server.ts'
import { Director, endpoint, virtual } from '../helpers/director.ts'
import { recordedRun } from '../helpers/kube-matrix.ts'
import { KubeNet } from '../helpers/kube-net.ts'
import { guard, startApi, startBpvsdOn } from '../helpers/kube-scene.ts'
import { makeGroup, SocketUser } from '../helpers/socket-user.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const families = [4, 6] as const
type Family = (typeof families)[number]
type Where = 'local' | 'remote'

const cluster = { 4: '10.96.77.1', 6: 'fd00:96::77:1' } as const
const node = { 4: '192.0.2.1', 6: 'fd00:192::1' } as const
const nodePort = 30_053
const servers = {
  local: { 4: '10.128.0.16', 6: 'fd00:128::110' },
  remote: { 4: '10.129.0.16', 6: 'fd00:129::110' },
} as const
/** What servers see of the node. */
const facing = {
  local: { 4: '10.128.0.1', 6: 'fd00:128::1' },
  remote: { 4: '198.51.100.1', 6: 'fd00:198::1' },
} as const
const patienceMs = 5000

/** Who calls what: a pod's cluster IP alone is not masqueraded. */
const callers = [
  { who: 'a client outside, to a node port', role: 'client', to: 'nodePort', balanced: false },
  { who: 'a client outside, to a cluster IP', role: 'client', to: 'cluster', balanced: false },
  {
    who: 'a pod, to a cluster IP',
    role: 'pod',
    to: 'cluster',
    balanced: false,
    own: { 4: '10.128.0.10', 6: 'fd00:128::10' },
  },
  { who: 'a pod, to a node port', role: 'pod', to: 'nodePort', balanced: false },
  { who: 'the host by its packets', role: 'director', to: 'cluster', balanced: false },
  { who: 'the host by its sockets', role: 'director', to: 'cluster', balanced: true },
] as const
type Caller = (typeof callers)[number]

/** A socket that goes on. */
interface Flow {
  readonly name: string
  readonly caller: Caller
  readonly family: Family
  readonly user: SocketUser
  readonly id: number
  readonly connected: boolean
}

function targetOf({ caller, family }: Flow): { address: string; port: number } {
  return caller.to === 'cluster' ? { address: cluster[family], port: 53 } : { address: node[family], port: nodePort }
}

async function send(flow: Flow): Promise<string | undefined> {
  const { address, port } = targetOf(flow)
  const { error } = flow.connected
    ? await flow.user.send(flow.id, 'x')
    : await flow.user.send(flow.id, 'x', address, port)
  return error
}

/** Sends one datagram: what answers to it, under which address, seeing whom. */
async function ask(flow: Flow): Promise<string> {
  const { received } = await flow.user.look(flow.id)
  const error = await send(flow)
  if (error !== undefined) return error
  const deadline = performance.now() + patienceMs
  while (performance.now() < deadline) {
    const now = await flow.user.look(flow.id)
    const answer = now.received[received.length]
    if (answer !== undefined) return `${answer.text.trim()}, as ${answer.from}`
    if (now.error !== undefined) return now.error
    await delay(5)
  }
  return 'nothing'
}

/** What ask() says when a server is reached. */
function answered(flow: Flow, where: Where): string {
  const seen = 'own' in flow.caller ? flow.caller.own[flow.family] : facing[where][flow.family]
  return `${where} ${seen}, as ${endpoint(targetOf(flow))}`
}

/** Sends into the void; a connected socket is told if it is refused, which is waited for, as the kernel tells the next call. */
async function lose(flow: Flow, refused: boolean): Promise<void> {
  const error = await send(flow)
  if (!refused || !flow.connected || error !== undefined) return
  await waitFor(`a refusal of ${flow.name}`, async () => (await flow.user.look(flow.id)).error === 'ECONNREFUSED')
}

function serviceObject(family: Family, sessionAffinity: string): ApiObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `udp${family}`, namespace: 'default', uid: `udp${family}` },
    spec: {
      type: 'NodePort',
      sessionAffinity,
      clusterIP: cluster[family],
      clusterIPs: [cluster[family]],
      ipFamilies: [`IPv${family}`],
      ports: [{ name: 'dns', port: 53, targetPort: 8080, nodePort, protocol: 'UDP' }],
    },
  }
}

function sliceObject(family: Family, at: readonly Where[]): ApiObject {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `udp${family}`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': `udp${family}` },
    },
    addressType: `IPv${family}`,
    ports: [{ name: 'dns', port: 8080, protocol: 'UDP' }],
    endpoints: at.map((where) => ({ addresses: [servers[where][family]], conditions: { ready: true } })),
  }
}

/** Waits until the table has the service, with these servers for new connections; undefined: until it has it no more. */
async function applied(director: Director, at: readonly Where[] | undefined): Promise<void> {
  for (const family of families) {
    for (const [address, port] of [
      [cluster[family], 53],
      [node[family], nodePort],
    ] as const) {
      const wanted = at?.map((where) => servers[where][family]).join()
      await waitFor(`${address} to be served by ${wanted}`, () => {
        const view = director.table((table) => table.service(virtual(address, port, 'udp')))
        return (
          view?.servers
            .filter(({ weight }) => weight > 0)
            .map((server) => server.address)
            .join() === wanted
        )
      })
    }
  }
}

async function sockets(user: SocketUser, caller: Caller): Promise<Flow[]> {
  const flows: Flow[] = []
  for (const family of families) {
    for (const connected of caller.balanced ? [false] : [false, true]) {
      const { id } = await user.datagrams(family)
      const name = `${caller.who}, IPv${family}, ${connected ? 'connected' : 'not connected'}`
      const flow = { name, caller, family, user, id, connected }
      const { address, port } = targetOf(flow)
      if (connected) await user.connect(id, address, port)
      flows.push(flow)
    }
  }
  return flows
}

t.test('a socket that goes on is never left with a server that is gone', { skip: needsRoot }, async (t) => {
  const net = await KubeNet.make(t)
  await guard(net)
  const director = new Director(net.topology)
  const [balanced, left] = [makeGroup(t), makeGroup(t)]
  const api: TestApiServer = await startApi(t, net)
  const configuration = recordedRun('nftables-base').kubeProxyConfiguration
  await startBpvsdOn(t, net, api, configuration, '--xdp=off', '--socket=host', `--socket-group=${balanced}`)
  const flows: Flow[] = []
  for (const caller of callers) {
    const user = await SocketUser.start(t, net.topology, caller.role, caller.balanced ? balanced : left)
    flows.push(...(await sockets(user, caller)))
  }
  const set = async (at: readonly Where[]): Promise<void> => {
    for (const family of families) api.set('EndpointSlice', sliceObject(family, at))
    await applied(director, at)
  }
  const create = async (at: readonly Where[], affinity: string): Promise<void> => {
    for (const family of families) api.set('Service', serviceObject(family, affinity))
    await set(at)
  }
  const remove = async (): Promise<void> => {
    for (const family of families) api.delete('Service', 'default', `udp${family}`)
    await applied(director, undefined)
  }
  const allLose = (refused: (flow: Flow) => boolean) => Promise.all(flows.map((flow) => lose(flow, refused(flow))))
  const allReach = async (where: Where, when: string): Promise<void> => {
    for (const again of ['', ', and again']) {
      const said = await Promise.all(flows.map(async (flow) => [flow.name, await ask(flow)]))
      t.same(
        said,
        flows.map((flow) => [flow.name, answered(flow, where)]),
        `${when}${again}`,
      )
    }
  }

  for (const affinity of ['None', 'ClientIP']) {
    const nobody = () => allLose(({ caller }) => caller.to === 'nodePort')
    await nobody()
    await create(['local'], affinity)
    await allReach('local', `affinity ${affinity}: a service that is made after the flow began`)
    await set(['remote'])
    await allReach('remote', `affinity ${affinity}: another server in the place of the one`)
    await set([])
    await allLose(() => true)
    await set(['local'])
    await allReach('local', `affinity ${affinity}: a server, after there was none`)
    await remove()
    await nobody()
    await create([], affinity)
    await allLose(() => true)
    await set(['remote'])
    await allReach('remote', `affinity ${affinity}: a service that was deleted and is made again`)
    await remove()
  }
  t.same(director.check(), [])
})
