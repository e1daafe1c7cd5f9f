/**
 * The host's own calls of services, where no program acts on its sockets: to virtual addresses, to its own addresses, to
 * servers elsewhere and to one of its own; what it sends leaves for the server, and answers come from where it called.
 */
import t from 'tap'
import { Host } from '../../src/lab/host.ts'
import { guardCounts, startGuard } from '../helpers/datapath-net.ts'
import { Director, real, service, virtual } from '../helpers/director.ts'
import { needsRoot, ports, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const families = ['ipv4', 'ipv6'] as const
/** What the director calls: an address of nobody's, and its own towards the servers. */
const called = {
  ipv4: { virtual: '10.96.0.1', own: '10.244.1.1', nobody: '10.96.0.9' },
  ipv6: { virtual: 'fd00:96::1', own: 'fd00:244:1::1', nobody: 'fd00:96::9' },
} as const

/** Services at each address: of the servers on port 80 and 7, of the director's own server on port 81, of none on 82. */
function program(t: Parameters<typeof topology>[0], net: TestNet): Director {
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(async () => table.close())
  for (const family of families) {
    const { own, virtual: vip } = called[family]
    const all = net.servers.map((server) => server[family])
    for (const address of [vip, own]) {
      const services = [
        [virtual(address, 80), all.map((server) => real(server, ports.http))],
        [virtual(address, 7, 'udp'), all.map((server) => real(server, ports.echo))],
        [virtual(address, 81), [real(own, ports.http)]],
        [virtual(address, 82), []],
      ] as const
      for (const [key, servers] of services) {
        table.addService(service(key))
        for (const server of servers) table.addServer(key, server)
      }
    }
  }
  return director
}

for (const sources of ['as they come', 'checked strictly']) {
  t.test(`the host calls services; sources are ${sources}`, { skip: needsRoot }, async (t) => {
    const net = await topology(t, { clients: 1, servers: 2 })
    const own = await Host.start('director', net.topology.pathOf('director'))
    t.teardown(() => own.close())
    await own.call('serveHttp', { name: 'director', port: ports.http })
    await net.topology.must('director', 'ip', ['route', 'add', 'default', 'via', net.clients[0]!.ipv4])
    await net.topology.must('director', 'ip', ['-6', 'route', 'add', 'default', 'via', net.clients[0]!.ipv6])
    const strict = sources === 'checked strictly' ? '1' : '0'
    for (const name of ['all', 'cl0', 'sv0'])
      await net.topology.must('director', 'sysctl', ['-qw', `net.ipv4.conf.${name}.rp_filter=${strict}`])
    await startGuard(net.topology)
    const director = program(t, net)

    for (const family of families) {
      for (const address of [called[family].virtual, called[family].own]) {
        const names = new Set<string>()
        for (let n = 0; n < 4; n++) {
          const outcome = await own.call('http', { address, port: 80 })
          const answer = 'value' in outcome ? JSON.parse(outcome.value.body) : outcome
          t.equal(
            answer.client?.address,
            called[family].own,
            `${address}: the server sees the host's address towards it`,
          )
          names.add(answer.server)
        }
        t.same(names, new Set(['server0', 'server1']), `${address}: both servers`)
        const bulk = await own.call('http', { address, port: 80, path: '/bytes/300000' })
        t.equal('value' in bulk ? bulk.value.body.length : bulk.error, 300_000, `${address}: a long answer`)
        const echo = await own.call('datagram', { address, port: 7, size: 900 })
        t.match(echo, { value: /^server[01]$/ }, `${address}: a datagram`)
        const self = await own.call('http', { address, port: 81 })
        t.match(self, { value: { server: 'director' } }, `${address}: a server of the host's own`)
        t.same(await own.call('http', { address, port: 82 }), { error: 'ECONNREFUSED' }, `${address}: no server`)
      }
      const direct = await own.call('http', { address: net.servers[0]![family], port: ports.http })
      t.match(direct, { value: { server: 'server0' } }, `${family}: what is no service is as ever`)
    }
    t.equal((await guardCounts(net.topology)).invalid, 0, 'connection tracking finds nothing invalid')
    t.same(director.check(), [])
  })
}
