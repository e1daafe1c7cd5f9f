/**
 * Beside a kube-proxy whose connections are in connection tracking: what is new is bpvs's, what the other had stays its own; and
 * the other way round.
 */
import t from 'tap'
import { Director, endpoint, real, service, virtual } from '../helpers/director.ts'
import { askFrom, type OldService, startOldProxy, stopOldProxy, valueFrom } from '../helpers/old-proxy.ts'
import { Peer } from '../helpers/peer.ts'
import { needsRoot, type TestHost, type TestNet, topology } from '../helpers/topology.ts'

t.setTimeout(900_000)

const root = { skip: needsRoot }
const mirrorPort = 7100
const echoPort = 7000

interface Scene {
  readonly net: TestNet
  readonly director: Director
  readonly client: TestHost
}

/** Where clients go: cluster IPs and a node port, of both families. */
const places = [
  { address: '10.96.0.1', port: 7, nodePort: false },
  { address: 'fd00:96::1', port: 7, nodePort: false },
  { address: '10.1.0.1', port: 30007, nodePort: true },
  { address: 'fd00:1::1', port: 30007, nodePort: true },
] as const
const kinds = [
  { protocol: 'tcp', shift: 0, serverPort: echoPort },
  { protocol: 'tcp', shift: 1, serverPort: mirrorPort },
  { protocol: 'udp', shift: 1, serverPort: mirrorPort },
] as const

async function scene(t: Parameters<typeof topology>[0]): Promise<Scene> {
  const net = await topology(t, { servers: 2, serve: ['echo'] })
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (const { host, name } of net.servers) await host.call('serveMirror', { name, port: mirrorPort })
  return { net, director: new Director(net.topology), client }
}

/** The services with one server, as the old proxy has them. */
function oldServices({ net }: Scene, server: number): OldService[] {
  return places.flatMap(({ address, port, nodePort }) =>
    kinds.map(({ protocol, shift, serverPort }) => {
      const to = net.servers[server]?.[address.includes(':') ? 'ipv6' : 'ipv4'] ?? ''
      return { address, port: port + shift, protocol, nodePort, server: { address: to, port: serverPort } }
    }),
  )
}

/** bpvs's services, which lead to another server: so it tells who sent a client there. */
function serve(t: Parameters<typeof topology>[0], { director, net }: Scene, server: number): void {
  const table = director.open()
  t.teardown(async () => table.close())
  for (const { address, port, protocol, server: to } of oldServices({ net } as Scene, server)) {
    const key = virtual(address, port, protocol)
    table.addService(service(key))
    table.addServer(key, real(to.address, to.port))
  }
}

/** A connection to each place, kept open, and what its server was called. */
async function connectAll({ client }: Scene) {
  return Promise.all(
    places.map(async ({ address, port }) => ({
      ...valueFrom(await client.host.call('connect', { address, port })),
      at: endpoint({ address, port }),
    })),
  )
}

/** Which servers datagrams from `localPort` on reach, place by place. */
async function datagrams({ client }: Scene, localPort: number): Promise<string[]> {
  const answers = places.map(({ address, port }, i) => {
    return askFrom(client, 'udp', { address, port: port + 1 }, localPort + i)
  })
  return (await Promise.all(answers)).map(({ server }) => server)
}

const all = (name: string): string[] => places.map(() => name)

t.test('what the other proxy had goes on, both ways, to its end; what is new is ours', root, async (t) => {
  const at = await scene(t)
  const { client, director, net } = at
  await startOldProxy(net.topology, oldServices(at, 0))
  const old = await connectAll(at)
  t.same(
    old.map(({ server }) => server),
    all('server0'),
  )
  t.same(await datagrams(at, 5000), all('server0'))
  await director.must('--handover from')
  serve(t, at, 1)
  t.equal(await director.must('--handover'), 'from\n')
  const fresh = await connectAll(at)
  t.same(
    fresh.map(({ server }) => server),
    all('server1'),
    'new connections are ours at once',
  )
  t.same(await datagrams(at, 5000), all('server0'), 'flows of datagrams stay')
  t.same(await datagrams(at, 5100), all('server1'), 'new ones are ours')
  for (const { id, at: where, server } of [...old, ...fresh]) {
    t.equal(valueFrom(await client.host.call('ping', id, 'still there')), server, `${server} by ${where}`)
  }
  for (const { id } of [...old, ...fresh]) await client.host.call('disconnect', id)
  t.equal(director.verdict('REFUSE_NO_CONN'), 0)
  t.same(director.check(), [])
})

t.test(
  'a port whose connection with the other proxy is over begins one of ours, to the same server too',
  root,
  async (t) => {
    const at = await scene(t)
    const { director, net } = at
    await startOldProxy(net.topology, oldServices(at, 0))
    /** Connections from the same ports each time. */
    const connect = async (): Promise<[Peer, number[]]> => {
      const peer = new Peer(t, net.topology, 'client0')
      const ids: number[] = []
      for (const { address, port } of places) ids.push((await peer.connect(address, port)).id)
      return [peer, ids]
    }
    const [before, old] = await connect()
    for (const id of old) await before.reset(id)
    await director.must('--handover from')
    serve(t, at, 0)
    const [peer, ours] = await connect()
    for (const [i, { address, port }] of places.entries()) {
      await peer.write(ours[i] ?? 0, 'hello\n')
      t.match(await peer.received(ours[i] ?? 0, 'server0\nhello\n'.length), { received: 'server0\nhello\n' })
      t.equal(director.service(virtual(address, port)).servers[0]?.counters.conns, 1n)
    }
  },
)

t.test('answers of the other proxy, and what no service of ours takes, are not refused', root, async (t) => {
  const at = await scene(t)
  const { client, director, net } = at
  await startOldProxy(net.topology, oldServices(at, 0))
  const old = await connectAll(at)
  t.same(await datagrams(at, 5000), all('server0'))
  await director.must('--handover from')
  await director.must('--sysctl nat_icmp_send=1')
  serve(t, at, 0)
  director.table((table) => {
    for (const { address, port } of places) table.deleteService(virtual(address, port))
    const ranges = [
      { family: 4, address: '10.96.0.0', length: 16 },
      { family: 6, address: 'fd00:96::', length: 112 },
    ] as const
    table.setServiceRanges(ranges, true)
  })
  for (const { id, at: where } of old) {
    t.equal(valueFrom(await client.host.call('ping', id, 'still there')), 'server0', where)
  }
  t.same(await datagrams(at, 5000), all('server0'))
  for (const verdict of ['REFUSE_NO_PORT', 'REFUSE_STRAY', 'DROP_UNUSED'])
    t.equal(director.verdict(verdict), 0, verdict)
  const [place] = places
  t.match(await client.host.call('connect', { address: place.address, port: place.port }), { error: 'ECONNREFUSED' })
  t.equal(director.verdict('REFUSE_NO_PORT'), 1, 'what is new is')
})

t.test("handing over, ours go on, both ways, to their end; what is new is the other proxy's", root, async (t) => {
  const at = await scene(t)
  const { client, director, net } = at
  serve(t, at, 1)
  const ours = await connectAll(at)
  t.same(await datagrams(at, 5000), all('server1'))
  await startOldProxy(net.topology, oldServices(at, 0))
  await director.must('--handover to')
  const fresh = await connectAll(at)
  t.same(
    fresh.map(({ server }) => server),
    all('server0'),
  )
  t.same(await datagrams(at, 5000), all('server1'), 'flows of datagrams stay')
  t.same(await datagrams(at, 5100), all('server0'), 'new ones are not ours')
  for (const { id, at: where, server } of [...ours, ...fresh]) {
    t.equal(valueFrom(await client.host.call('ping', id, 'still there')), server, `${server} by ${where}`)
  }
  await stopOldProxy(net.topology)
  await director.must('--handover none')
  t.same(
    (await connectAll(at)).map(({ server }) => server),
    all('server1'),
    'and back',
  )
  t.same(director.check(), [])
})
