/** bpvsd beside a kube-proxy that runs: a node goes over to it and back, and no connection is lost. */
import t from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { Director, endpoint } from '../helpers/director.ts'
import { askFrom, type OldService, startOldProxy, valueFrom } from '../helpers/old-proxy.ts'
import { needsRoot, ports, type TestHost, type TestNet, topology, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const mirrorPort = 7100
/** A port of TCP, kept open, and one of UDP; of both families. */
const places = [
  { address: '10.96.0.1', port: 7, protocol: 'tcp', targetPort: ports.echo },
  { address: '10.96.0.2', port: 8, protocol: 'udp', targetPort: mirrorPort },
  { address: 'fd00:96::1', port: 7, protocol: 'tcp', targetPort: ports.echo },
  { address: 'fd00:96::2', port: 8, protocol: 'udp', targetPort: mirrorPort },
] as const
const connected = places.filter(({ protocol }) => protocol === 'tcp')
const asked = places.filter(({ protocol }) => protocol === 'udp')

interface Scene {
  readonly net: TestNet
  readonly client: TestHost
}

/** The old proxy knows server0 only, which has weight 0 with bpvsd: whoever answers tells who sent the client there. */
const serverOf = ({ net }: Scene, number: number, address: string): string => {
  return net.servers[number]?.[address.includes(':') ? 'ipv6' : 'ipv4'] ?? ''
}

function oldServices(scene: Scene): OldService[] {
  return places.map(({ targetPort, ...place }) => {
    return { ...place, server: { address: serverOf(scene, 0, place.address), port: targetPort } }
  })
}

function writeServices(scene: Scene, manifests: Manifests, numbers: readonly number[]): void {
  for (const [i, { address, port, protocol, targetPort }] of places.entries()) {
    const servers = numbers.map((number) => serverOf(scene, number, address))
    const weights = `${serverOf(scene, 0, address)}=0,*=1`
    const kind = protocol === 'tcp' ? 'TCP' : 'UDP'
    manifests.write({ name: `place${i}`, address, port, targetPort, protocol: kind, servers, weights })
  }
}

async function connect({ client }: Scene) {
  return Promise.all(
    connected.map(async ({ address, port }) => ({
      ...valueFrom(await client.host.call('connect', { address, port })),
      at: endpoint({ address, port }),
    })),
  )
}

/** Which servers datagrams from `localPort` on reach. */
function datagrams({ client }: Scene, localPort: number): Promise<string[]> {
  return Promise.all(
    asked.map(async ({ address, port }, i) => {
      return (await askFrom(client, 'udp', { address, port }, localPort + i)).server
    }),
  )
}

t.test('a node goes over to bpvsd and back without draining', { skip: needsRoot }, async (t) => {
  const net = await topology(t, { servers: 2, serve: ['echo'] })
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (const { host, name } of net.servers) await host.call('serveMirror', { name, port: mirrorPort })
  const scene = { net, client }
  const director = new Director(net.topology)
  const bpvsd = async (...flags: string[]) => {
    const out = await net.topology.must('director', projectFile('bin/bpvsd'), flags)
    return JSON.parse(out.trim().split('\n').at(-1) ?? '') as Record<string, unknown>
  }
  const live = async (each: Awaited<ReturnType<typeof connect>>, what: string): Promise<void> => {
    for (const { id, at, server } of each) {
      t.equal(valueFrom(await client.host.call('ping', id, what)), server, `${server} by ${at}: ${what}`)
    }
  }
  const manifests = new Manifests(t)
  writeServices(scene, manifests, [0, 1])
  await startOldProxy(net.topology, oldServices(scene))
  const old = await connect(scene)
  t.same(await datagrams(scene, 5000), ['server0', 'server0'])

  const daemon = new Daemon(net.topology, manifests)
  t.match(await daemon.logged('taking over from another proxy'), { found: ['nftables'], datagrams: true })
  await daemon.logged('ready')
  const ours = await connect(scene)
  t.same([...new Set(ours.map(({ server }) => server))], ['server1'])
  t.same(await datagrams(scene, 5100), ['server1', 'server1'])
  t.same(await datagrams(scene, 5000), ['server0', 'server0'], 'flows of datagrams stay')
  await live([...old, ...ours], 'beside each other')

  t.match(await bpvsd('--cleanup-kube-proxy'), { tables: 2, left: 4 })
  await live([...old, ...ours], 'when its rules are gone')
  t.same(await datagrams(scene, 5000), ['server0', 'server0'])
  writeServices(scene, manifests, [1])
  await waitFor('flows to a server that is gone to be ours', async () => {
    return (await datagrams(scene, 5000)).every((server) => server === 'server1')
  })
  await live(old, 'when their server is none any more')
  for (const { id } of old) await client.host.call('disconnect', id, true)
  t.match(await daemon.logged('taken over'), { connections: 0 })
  t.equal(await director.must('--handover'), 'none\n')
  t.notMatch(await net.topology.must('director', 'nft', ['list', 'ruleset']), 'bpvs-handover')

  await startOldProxy(net.topology, oldServices(scene))
  t.equal(await daemon.end('SIGTERM'), 0)
  const unloaded = bpvsd('--cleanup', '--cleanup-wait-s', '120')
  await waitFor('what is new to be left to the other', async () => (await director.must('--handover')) === 'to\n')
  const back = await connect(scene)
  t.same([...new Set(back.map(({ server }) => server))], ['server0'])
  t.same(await datagrams(scene, 5100), ['server1', 'server1'], 'flows of datagrams stay')
  await live([...ours, ...back], 'handed over')
  for (const { id } of ours) await client.host.call('disconnect', id, true)
  await director.must('--set 0 0 1')
  for (const port of [5000, 5100]) {
    t.same(await datagrams(scene, port), ['server1', 'server1'], 'which is over a second later')
  }
  t.match(await unloaded, { found: true, connections: 0 }, 'when the last of ours has ended')
  await live(back, 'without bpvs')
  t.same(await datagrams(scene, 5200), ['server0', 'server0'])
})
