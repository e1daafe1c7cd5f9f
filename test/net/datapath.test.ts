/** Traffic while what lies around the datapath changes: neighbours, routes, MAC addresses, its own processes. */
import { join } from 'node:path'
import t from 'tap'
import { must } from '../../src/lab/command.ts'
import { mapPin } from '../../src/native/pins.ts'
import { forwarded, setBypass, synsSentAgain } from '../helpers/datapath-net.ts'
import { Director, real, service, virtual } from '../helpers/director.ts'
import { needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const families = ['ipv4', 'ipv6'] as const
const ways = ['always', 'never'] as const

interface Scene {
  readonly net: TestNet
  readonly director: Director
}

/** Echo services over TCP and UDP, of which only the first server is used. */
async function scene(t: Parameters<typeof topology>[0], servers = 1): Promise<Scene> {
  const net = await topology(t, { servers, serve: ['echo'] })
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(async () => table.close())
  for (const family of families) {
    for (const protocol of ['tcp', 'udp'] as const) {
      const key = virtual(vips[family], 7, protocol)
      table.addService(service(key))
      table.addServer(key, real(net.servers[0]?.[family] ?? '', ports.echo))
    }
  }
  return { net, director }
}

function client({ net }: Scene): TestNet['clients'][number] {
  const [first] = net.clients
  if (first === undefined) throw new Error('no client')
  return first
}

/** Connections, one of each family, that are kept open. */
async function keep(all: Scene): Promise<{ ping(text: string): Promise<string[]> }> {
  const { host } = client(all)
  const kept: number[] = []
  for (const family of families) {
    const opened = await host.call('connect', { address: vips[family], port: 7 })
    if ('error' in opened) throw new Error(`connect to ${vips[family]}: ${opened.error}`)
    kept.push(opened.value.id)
  }
  return {
    ping: async (text) => {
      const outcomes = await Promise.all(kept.map((id) => host.call('ping', id, text)))
      return outcomes.flatMap((outcome) => ('error' in outcome ? [outcome.error] : []))
    },
  }
}

for (const bypass of ways) {
  const way = bypass === 'always' ? 'past' : 'through'
  t.test(
    `no packet is lost because the director does not know its neighbours yet, ${way} the stack`,
    root,
    async (t) => {
      const all = await scene(t)
      setBypass(all.director, bypass)
      for (let round = 0; round < 4; round++) {
        for (const family of families) {
          await all.net.topology.must('director', 'ip', ['neigh', 'flush', 'all'])
          const options = { address: vips[family], port: 7, size: 64 }
          t.same(
            await client(all).host.call('datagram', options),
            { value: 'server0' },
            `${family}: a datagram, sent once`,
          )
          await all.net.topology.must('director', 'ip', ['neigh', 'flush', 'all'])
          const opened = await client(all).host.call('connect', { address: vips[family], port: 7 })
          t.match(opened, { value: { server: 'server0' } }, `${family}: a connection`)
          t.equal(synsSentAgain(all.net.topology, 'client0'), 0, 'its first packet was not sent again')
        }
      }
    },
  )
}

t.test('a change of routes takes effect at once, on connections that pass by the stack too', root, async (t) => {
  const all = await scene(t, 2)
  const { net, director } = all
  setBypass(director, 'always')
  const [first, second] = net.servers
  if (first === undefined || second === undefined) throw new Error('no servers')
  await net.topology.must('server1', 'sysctl', [
    '-qw',
    'net.ipv4.ip_forward=1',
    'net.ipv6.conf.all.forwarding=1',
    'net.ipv4.conf.all.send_redirects=0',
    'net.ipv4.conf.eth0.send_redirects=0',
  ])
  const { host } = client(all)
  for (const family of families) {
    // A second service keeps the way to server1 in use by packets that belong there.
    const other = virtual(vips[family], 8, 'udp')
    director.table((table) => {
      table.addService(service(other))
      table.addServer(other, real(second[family], ports.echo))
    })
    const opened = await host.call('connect', { address: vips[family], port: 7 })
    if ('error' in opened) throw new Error(opened.error)
    /** Packets that server1 forwards while a kept connection is used. */
    const detours = async (text: string, rounds: number): Promise<number> => {
      const before = forwarded(net.topology, 'server1')
      for (let n = 0; n < rounds; n++) {
        t.same(await host.call('ping', opened.value.id, `${text} ${n}`), { value: 'server0' }, `${family}: ${text}`)
        const elsewhere = await host.call('datagram', { address: vips[family], port: 8, size: 9 })
        t.same(elsewhere, { value: 'server1' }, `${family}: another service, meanwhile`)
      }
      return forwarded(net.topology, 'server1') - before
    }
    const route = (what: 'add' | 'del') => {
      return net.topology.must('director', 'ip', ['route', what, first[family], 'via', second[family]])
    }
    t.equal(await detours('straight', 3), 0)
    await route('add')
    t.ok((await detours('round about', 3)) >= 3, `${family}: the very next packets take the new route`)
    await route('del')
    t.equal(await detours('straight again', 10), 0, `${family}: the very next packets take the old one again`)
  }
})

/** Gives a server another MAC address. */
async function renew(net: TestNet, announce: boolean): Promise<void> {
  const value = announce ? 1 : 0
  await net.topology.must('server0', 'sysctl', [
    '-qw',
    `net.ipv4.conf.eth0.arp_notify=${value}`,
    `net.ipv6.conf.eth0.ndisc_notify=${value}`,
  ])
  await net.topology.must('server0', 'ip', ['link', 'set', 'dev', 'eth0', 'address', '02:00:00:00:77:01'])
}

for (const bypass of ways) {
  const way = bypass === 'always' ? 'past' : 'through'
  t.test(`connections survive a server's new MAC address, announced or not, ${way} the stack`, root, async (t) => {
    for (const announce of [true, false]) {
      const all = await scene(t)
      setBypass(all.director, bypass)
      // Without an announcement the kernel's own doubts help: let them come soon.
      const doubts = ['ipv4', 'ipv6'].flatMap((family) => [
        `net.${family}.neigh.sv0.base_reachable_time_ms=300`,
        `net.${family}.neigh.sv0.delay_first_probe_time=1`,
        `net.${family}.neigh.sv0.retrans_time_ms=100`,
      ])
      await all.net.topology.must('director', 'sysctl', ['-qw', ...doubts])
      const kept = await keep(all)
      t.same(await kept.ping('before'), [])
      await renew(all.net, announce)
      const text = announce ? 'announced' : 'not announced'
      const { host } = client(all)
      for (const family of families) {
        const options = { address: vips[family], port: 7, size: 10, timeoutMs: 200 }
        const reached = async () => 'value' in (await host.call('datagram', options))
        await waitFor(`${family} datagrams reach the server at its new address, ${text}`, reached)
      }
      await waitFor(`kept connections go on, ${text}`, async () => (await kept.ping('after')).length === 0)
      t.pass(text)
    }
  })
}

/** Fields of an entry of a map, as bpftool reads it; outside of the namespace, where it would not see the pins. */
async function entry(pins: string, map: 'lb_conns' | 'lb_server_states', key: number): Promise<Record<string, number>> {
  const file = join(pins, mapPin(map))
  const text = await must('bpftool', ['-j', 'map', 'lookup', 'pinned', file, 'key', String(key), '0', '0', '0'])
  return (JSON.parse(text) as { formatted: { value: Record<string, number> } }).formatted.value
}

t.test('connections expire with no process of ours alive', root, async (t) => {
  const all = await scene(t)
  const { director } = all
  const pins = director.pins()
  if (pins === undefined) throw new Error('no pins')
  director.table((table) => table.setTimeouts({ tcpS: 0, tcpFinS: 0, udpS: 1 }))
  const key = virtual(vips.ipv4, 7, 'udp')
  const server = director.service(key).servers[0]?.id ?? 0
  const answer = await client(all).host.call('datagram', { address: vips.ipv4, port: 7, size: 10 })
  t.same(answer, { value: 'server0' })
  t.equal((await entry(pins.path, 'lb_conns', 0)).af, 4, 'there is a connection')
  t.equal((await entry(pins.path, 'lb_server_states', server)).inactive, 1, 'and its server counts it')
  const gone = async () => (await entry(pins.path, 'lb_conns', 0)).af === 0
  await waitFor('the entry is free', gone)
  t.equal((await entry(pins.path, 'lb_server_states', server)).inactive, 0, 'the server counts it no more')
})
