/** ICMP between real stacks: echo, refusals, path MTU discovery. */
import t from 'tap'
import { Bulk, bulkPort } from '../helpers/bulk.ts'
import { forwarded, setBypass } from '../helpers/datapath-net.ts'
import { Director, real, service, virtual } from '../helpers/director.ts'
import { needsRoot, ports, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const families = ['ipv4', 'ipv6'] as const

function direct(t: Parameters<typeof topology>[0], net: TestNet): Director {
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(async () => table.close())
  for (const family of families) {
    const services = [
      { key: virtual(vips[family], 90), port: bulkPort, servers: net.servers },
      { key: virtual(vips[family], 7, 'udp'), port: ports.echo, servers: net.servers },
      { key: virtual(vips[family], 81), port: 1, servers: [] },
      { key: virtual(vips[family], 81, 'udp'), port: 1, servers: [] },
      { key: virtual(vips[family], 82), port: 1, servers: net.servers },
      { key: virtual(vips[family], 82, 'udp'), port: 1, servers: net.servers },
    ]
    for (const { key, port, servers } of services) {
      table.addService(service(key))
      for (const server of servers) table.addServer(key, real(server[family], port))
    }
  }
  return director
}

t.test('a virtual address answers ping, whatever the size, and only while it has a service', root, async (t) => {
  const net = await topology(t, { servers: 1, serve: [] })
  const director = direct(t, net)
  const ping = (address: string, size: number, patienceS = 10) => {
    const words = ['-n', '-c', '3', '-i', '0.05', '-W', String(patienceS), '-s', String(size), address]
    return net.topology.exec('client0', 'ping', words)
  }
  for (const family of families) {
    for (const size of [0, 56, 1401]) {
      const { stdout, status } = await ping(vips[family], size)
      t.equal(status, 0, `${size} bytes to ${vips[family]}`)
      t.match(stdout, /3 received, 0% packet loss/)
    }
  }
  t.equal(director.verdict('ECHO'), 18)
  director.table((table) => table.clear())
  for (const family of families) t.not((await ping(vips[family], 56, 1)).status, 0, 'no service, no answer')
})

t.test('a client learns at once that there is no server, or that its server refuses', root, async (t) => {
  const net = await topology(t, { servers: 1, serve: [] })
  const director = direct(t, net)
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (const bypass of ['always', 'never'] as const) {
    setBypass(director, bypass)
    for (const family of families) {
      const address = vips[family]
      const refused = { error: 'ECONNREFUSED' }
      const what = `${family}, ${bypass === 'always' ? 'past' : 'through'} the stack`
      t.same(await client.host.call('http', { address, port: 81 }), refused, `${what}: TCP, no server`)
      t.same(await client.host.call('datagram', { address, port: 81, size: 9 }), refused, `${what}: UDP, no server`)
      t.same(await client.host.call('http', { address, port: 82 }), refused, `${what}: TCP, the server's reset`)
      t.same(
        await client.host.call('datagram', { address, port: 82, size: 9 }),
        refused,
        `${what}: UDP, the server's ICMP`,
      )
    }
  }
  // A SYN that meets its refusal while connect() still holds the socket is sent, and refused, once more.
  t.ok(director.verdict('REFUSE_NO_SERVER') >= 8)
  t.equal(director.verdict('ICMP_FORWARD'), 4)
})

/** Where the director's route has a smaller MTU, and who learns of it. (A smaller interface would not even receive more.) */
const narrow = [
  { side: 'servers', device: 'sv0', to: ['10.244.1.11', 'fd00:244:1::11'], learner: 'client0' },
  { side: 'clients', device: 'cl0', to: ['10.1.0.11', 'fd00:1::11'], learner: 'server0' },
] as const

for (const { side, device, to, learner } of narrow) {
  for (const bypass of ['always', 'never'] as const) {
    const way = bypass === 'always' ? 'past' : 'through'
    t.test(
      `path MTU discovery works with a smaller MTU on the way to the ${side}, ${way} the stack`,
      root,
      async (t) => {
        const net = await topology(t, { servers: 1, serve: ['echo'] })
        const director = direct(t, net)
        setBypass(director, bypass)
        const bulk = await Bulk.start(t, net)
        for (const host of to) {
          await net.topology.must('director', 'ip', ['route', 'add', host, 'dev', device, 'mtu', 'lock', '1400'])
        }
        for (const family of families) {
          t.equal(await bulk.transfer(vips[family], 90, 2_000_000), 'ok', `${family}: a big transfer`)
          const peer = learner === 'client0' ? vips[family] : net.clients[0]?.[family]
          const route = await net.topology.must(learner, 'ip', ['route', 'get', peer ?? ''])
          t.match(route, /mtu 1400/, `${family}: ${learner} knows the path's MTU to ${peer}`)
          const before = forwarded(net.topology)
          t.equal(await bulk.transfer(vips[family], 90, 2_000_000), 'ok', `${family}: and another one`)
          if (bypass === 'always')
            t.ok(forwarded(net.topology) - before < 20, 'whose packets fit, and pass by the stack')
        }
      },
    )
  }
}
