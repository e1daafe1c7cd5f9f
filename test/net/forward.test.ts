/**
 * The topology of the kernel's own test of IPVS (tools/testing/selftests/netfilter/ipvs.sh): client and server on a bridge,
 * the director beside it, the virtual address on its lo. Nothing of ours runs but bpvsadm, in ipvsadm's place.
 *
 *   [ client: br0 10.0.0.2 fd00:a::2 ]
 *        |                      |
 *   10.0.0.1 fd00:a::1     10.0.0.3 fd00:a::3
 *   [ director ] 172.16.0.1 --- 172.16.0.2 [ server ]
 *                fd00:b::1      fd00:b::2
 */
import t, { type Test } from 'tap'
import { Host } from '../../src/lab/host.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { Bulk, bulkPort } from '../helpers/bulk.ts'
import { Director } from '../helpers/director.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const families = ['ipv4', 'ipv6'] as const
type Family = (typeof families)[number]
const vips = { ipv4: '207.175.44.110', ipv6: 'fd00:c::1' } as const
const reals = { ipv4: '172.16.0.2', ipv6: 'fd00:b::2' } as const
const where = (address: string, port: number) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`)
const ports = { bulk: bulkPort, echo: 7000 } as const

function describe(): Topology {
  const end = (namespace: string, name: string, ipv4: string, ipv6: string) => ({
    namespace,
    interface: name,
    addresses: [`${ipv4}/24`, `${ipv6}/64`],
  })
  const bridged = (name: string) => ({ namespace: 'client', interface: name, bridge: 'br0' })
  const quiet = { 'net.ipv4.conf.all.arp_ignore': 1, 'net.ipv4.conf.all.arp_announce': 2 }
  return new Topology({
    namespaces: [{ name: 'client', bridges: ['br0'] }, { name: 'director' }, { name: 'server', sysctls: quiet }],
    links: [
      [bridged('veth01'), end('director', 'veth10', '10.0.0.1', 'fd00:a::1')],
      [bridged('veth02'), end('server', 'veth20', '10.0.0.3', 'fd00:a::3')],
      [end('director', 'veth12', '172.16.0.1', 'fd00:b::1'), end('server', 'veth21', reals.ipv4, reals.ipv6)],
    ],
  })
}

interface Scene {
  readonly net: Topology
  readonly director: Director
  readonly client: Host
  readonly server: Host
  readonly bulk: Bulk
}

async function scene(t: Test): Promise<Scene> {
  const net = describe()
  const hosts: Host[] = []
  t.teardown(async () => {
    await Promise.all(hosts.map((host) => host.close()))
    await net.close()
  })
  await sweepRuns()
  await net.create()
  const ip = (role: string, lines: string[]) =>
    net.must(role, 'ip', ['-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') })
  const local = Object.values(vips).map((vip) => `address add ${vip} dev lo`)
  await ip('client', [
    'address add 10.0.0.2/24 dev br0',
    'address add fd00:a::2/64 dev br0 nodad',
    `route add ${vips.ipv4} via 10.0.0.1 dev br0`,
    `route add ${vips.ipv6} via fd00:a::1 dev br0`,
  ])
  await ip('director', local)
  await ip('server', local)
  const [client, server] = await Promise.all(
    ['client', 'server'].map(async (role) => {
      const host = await Host.start(role, net.pathOf(role))
      hosts.push(host)
      return host
    }),
  )
  if (client === undefined || server === undefined) throw new Error('no hosts')
  for (const vip of Object.values(vips))
    await server.call('serveEcho', { name: 'server', port: ports.echo, address: vip })
  const bulk = await Bulk.start(t, { topology: net, clients: [client], servers: [server] })
  return { net, director: new Director(net), client, server, bulk }
}

/** Makes the table anew: services for big transfers and for echo, with one server each. */
async function serve({ director }: Scene, method: string, servers: Readonly<Record<Family, string>>): Promise<void> {
  const services = families.flatMap((family) => [
    [`-t ${where(vips[family], ports.bulk)}`, where(servers[family], ports.bulk)] as const,
    [`-t ${where(vips[family], ports.echo)}`, where(servers[family], ports.echo)] as const,
    [`-u ${where(vips[family], ports.echo)}`, where(servers[family], ports.echo)] as const,
  ])
  const input = services.map(([service, server]) => `-A ${service} -s rr\n-a ${service} -r ${server} ${method}\n`)
  await director.must('-C')
  const { status, stderr } = await director.adm('-R', { input: input.join('') })
  if (status !== 0) throw new Error(`bpvsadm -R: ${stderr}`)
}

/** Real traffic of both kinds and families. */
async function works(t: Test, { client, bulk }: Scene, what: string): Promise<void> {
  for (const family of families) {
    const address = vips[family]
    t.equal(await bulk.transfer(address, ports.bulk, 2_000_000), 'ok', `${what}, ${family}: 2 MB each way`)
    const answer = await client.call('datagram', { address, port: ports.echo, size: 64 })
    t.same(answer, { value: 'server' }, `${what}, ${family}: a datagram`)
  }
}

/** A server's new way and new MAC address. */
async function moves(t: Test, all: Scene): Promise<void> {
  const { net, client } = all
  const opened = await Promise.all(
    families.map((family) => client.call('connect', { address: vips[family], port: ports.echo })),
  )
  const ids = opened.flatMap((outcome) => ('value' in outcome ? [outcome.value.id] : []))
  t.equal(ids.length, 2, 'a connection of each family')
  const ping = async (text: string): Promise<boolean> => {
    const answers = await Promise.all(ids.map((id) => client.call('ping', id, text)))
    return answers.every((answer) => 'value' in answer)
  }
  t.ok(await ping('before'))
  const detour = [`${reals.ipv4} via 10.0.0.3`, `${reals.ipv6} via fd00:a::3`]
  await net.must('director', 'ip', ['-batch', '-'], { input: detour.map((way) => `route add ${way}\n`).join('') })
  t.ok(await ping('round about'), 'the next packets take the new route')
  await net.must('server', 'sysctl', [
    '-qw',
    'net.ipv4.conf.veth20.arp_notify=1',
    'net.ipv6.conf.veth20.ndisc_notify=1',
  ])
  await net.must('server', 'ip', ['link', 'set', 'dev', 'veth20', 'address', '02:00:00:00:77:01'])
  await waitFor('the new MAC address to be used', () => ping('after'))
  await net.must('director', 'ip', ['-batch', '-'], { input: detour.map((way) => `route del ${way}\n`).join('') })
}

const tunnels = [
  '',
  '--tun-type gue --tun-port 6080',
  '--tun-type gue --tun-port 6080 --tun-csum',
  '--tun-type gre',
] as const

t.test('direct routing, tunnels and NAT, one after the other, as the kernel tests its own', root, async (t) => {
  const all = await scene(t)
  const { net, director } = all
  await serve(all, '', reals)
  await works(t, all, 'direct routing, with nothing on the director forwarding')
  t.match(await director.must('-Ln'), /-> 172\.16\.0\.2:7000 +Route /)
  for (const family of families) {
    await net.must('director', 'ip', ['neigh', 'flush', 'all'])
    const options = { address: vips[family], port: ports.echo, size: 9 }
    t.same(await all.client.call('datagram', options), { value: 'server' }, `${family}: a neighbour yet to be found`)
  }
  await moves(t, all)
  await net.must('server', 'tc', ['qdisc', 'add', 'dev', 'veth21', 'clsact'])
  const decap = ['bpf', 'da', 'obj', projectFile('build/bpf/decap.bpf.o'), 'sec', 'tc']
  await net.must('server', 'tc', ['filter', 'add', 'dev', 'veth21', 'ingress', ...decap])
  for (const options of tunnels) {
    /* gue over IPv6 can't have a checksum for each segment of many: the client cuts them itself. */
    if (options.endsWith('csum')) await net.must('client', 'ethtool', ['-K', 'br0', 'tso', 'off', 'gso', 'off'])
    await serve(all, `-i ${options}`, reals)
    await works(t, all, `tunnel ${options}`)
    await serve(all, `-i ${options}`, { ipv4: reals.ipv6, ipv6: reals.ipv4 })
    await works(t, all, `tunnel ${options}, across families`)
  }
  const route = await net.must('client', 'ip', ['route', 'get', vips.ipv4])
  t.match(route, /mtu 14\d\d/, 'the client knows what fits into a tunnel')
  await net.must('director', 'sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  await net.must('server', 'ip', ['-batch', '-'], {
    input: 'link del veth20\nroute add default via 172.16.0.1\nroute add default via fd00:b::1\n',
  })
  for (const address of Object.values(reals)) {
    await all.server.call('serveEcho', { name: 'server', port: ports.echo, address })
  }
  await serve(all, '-m', reals)
  await works(t, all, 'NAT, once the server has no other way back')
})
