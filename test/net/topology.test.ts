import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readlinkSync } from 'node:fs'
import t from 'tap'
import { isAlive, listNamespaces, processesIn, runPrefix, sweepRuns } from '../../src/lab/namespaces.ts'
import { standardShape } from '../../src/lab/shape.ts'
import { percentile } from '../../src/lab/tally.ts'
import { Topology } from '../../src/lab/topology.ts'
import { dnsAddresses, dnsName, needsRoot, ports, topology, waitFor } from '../helpers/topology.ts'

const root = { skip: needsRoot }

t.test('clients reach servers by their own addresses, in both families and over TCP and UDP', root, async (t) => {
  const net = await topology(t, { clients: 2, servers: 2 })
  for (const { host, ...client } of net.clients) {
    for (const server of net.servers) {
      for (const family of ['ipv4', 'ipv6'] as const) {
        const address = server[family]
        const what = `${client.name} to ${address}`
        const http = await host.call('http', { address, port: ports.http, path: '/details' })
        t.ok('value' in http, `${what}: HTTP answers`)
        if (!('value' in http)) continue
        t.match(
          JSON.parse(http.value.body),
          {
            server: server.name,
            client: { address: client[family] },
            local: { address, port: ports.http },
            path: '/details',
          },
          `${what}: the server sees the client's own address`,
        )
        const type = family === 'ipv4' ? 'A' : 'AAAA'
        const answers = [dnsAddresses[family === 'ipv4' ? 0 : 1]]
        for (const tcp of [false, true]) {
          const dns = await host.call('dns', { address, port: ports.dns, name: dnsName, type, tcp })
          t.same(dns, { value: { server: server.name, rcode: 0, answers } }, `${what}: DNS answers, tcp ${tcp}`)
        }
        const datagram = await host.call('datagram', { address, port: ports.echo, size: 4000 })
        t.same(datagram, { value: server.name }, `${what}: a datagram in fragments comes back`)
      }
    }
  }
})

t.test('failures are told apart by kind', root, async (t) => {
  const net = await topology(t, { servers: 1 })
  const [client] = net.clients
  const [server] = net.servers
  if (client === undefined || server === undefined) throw new Error('no hosts')
  const closed = 8099
  const { ipv4: address } = server
  t.same(await client.host.call('http', { address, port: closed }), { error: 'ECONNREFUSED' })
  t.same(await client.host.call('dns', { address, port: closed, name: dnsName, type: 'A' }), { error: 'ECONNREFUSED' })
  await net.topology.must('server0', 'nft', [
    'add table inet t; add chain inet t i { type filter hook input priority 0; };' +
      `add rule inet t i tcp dport ${ports.http} drop`,
  ])
  t.same(await client.host.call('http', { address, port: ports.http, timeoutMs: 50 }), { error: 'TIMEOUT' })
  t.match(await client.host.call('dns', { address, port: ports.dns, name: 'no.test', type: 'A' }), {
    value: { rcode: 3 },
  })
})

t.test('a stream of requests counts every request at the client and at the server', root, async (t) => {
  const net = await topology(t, { servers: 2, serve: ['http', 'dns'] })
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  const load = (address: string) => ({ address, count: 100, concurrency: 4 })
  const [first, second] = net.servers.map(({ ipv6 }) => ipv6)
  const jobs = await Promise.all([
    client.host.call('startHttp', { ...load(first ?? ''), port: ports.http }),
    client.host.call('startHttp', { ...load(second ?? ''), port: ports.http, keepAlive: true }),
    client.host.call('startDns', { ...load(first ?? ''), port: ports.dns, name: dnsName, type: 'AAAA' }),
  ])
  const reports = await Promise.all(jobs.map((job) => client.host.call('loadDone', job)))
  for (const [i, report] of reports.entries()) {
    const server = i === 1 ? 'server1' : 'server0'
    t.match(report, { sent: 100, answered: 100, failed: 0, servers: { [server]: 100 }, errors: {} }, `stream ${i}`)
    t.ok((percentile(report, 0.5) ?? 0) > 0, `stream ${i}: latencies are known`)
  }
  const counts = await net.counts('http')
  t.match(counts, { server0: { requests: 100, connections: 100 }, server1: { requests: 100 } })
  t.ok((counts.server1?.connections ?? 100) <= 4, 'keep-alive uses no more connections than requests in flight')
})

t.test('a kept connection lives until a side resets it', root, async (t) => {
  const net = await topology(t, { servers: 1, serve: ['echo'] })
  const [client] = net.clients
  const [server] = net.servers
  if (client === undefined || server?.services.echo === undefined) throw new Error('no hosts')
  const opened = await client.host.call('connect', { address: server.ipv4, port: ports.echo })
  if (!('value' in opened)) throw new Error(opened.error)
  t.same(await client.host.call('ping', opened.value.id, 'still there?'), { value: 'server0' })
  await server.host.call('stopServer', server.services.echo.id, true)
  t.match(await client.host.call('ping', opened.value.id, 'and now?'), { error: /ECONNRESET|EPIPE|CLOSED/ })
  await client.host.call('disconnect', opened.value.id)
  t.same(await client.host.call('connect', { address: server.ipv4, port: ports.echo }), { error: 'ECONNREFUSED' })
})

t.test('a host is in its namespace, the main thread is not', root, async (t) => {
  const here = () => readlinkSync('/proc/thread-self/ns/net')
  const outside = here()
  const net = await topology(t, { servers: 0 })
  t.equal(here(), outside, 'the main thread stayed')
  t.not(net.topology.within('director', here), outside, 'code that runs within the director is elsewhere')
  t.equal(here(), outside, 'and the main thread is back after it')
  const interfaces = net.topology.within('director', () => readFileSync('/proc/thread-self/net/dev', 'utf8'))
  t.match(interfaces, /cl0:.*sv0:/s, 'there, it sees the interfaces of the director')
  t.match(await net.topology.must('director', 'cat', ['/proc/sys/net/ipv4/ip_forward']), /^1/, 'which forwards')
})

t.test(
  'teardown ends the processes of a topology and removes its namespaces, also when called twice',
  root,
  async (t) => {
    const net = new Topology(standardShape([{ name: 'client0', number: 11 }], [{ name: 'server0', number: 11 }]))
    t.teardown(() => net.close())
    await net.create()
    const mine = (name: string) => name.startsWith(net.prefix)
    t.equal(listNamespaces(mine).length, 4)
    const child = net.spawn('director', 'cat', [], { stdio: ['pipe', 'ignore', 'ignore'] })
    const ended = once(child, 'exit')
    await waitFor('cat is in the namespace', () => processesIn([net.nameOf('director')]).length === 1)
    await Promise.all([net.close(), ended])
    t.same(listNamespaces(mine), [])
    await net.close()
  },
)

t.test('a creation that fails half way leaves nothing after close', root, async (t) => {
  const shape = standardShape([{ name: 'client0', number: 11 }], [])
  const broken = { name: 'client1', routes: [{ to: 'default', via: '192.0.2.1' }] }
  const net = new Topology({ ...shape, namespaces: [...shape.namespaces, broken] })
  t.teardown(() => net.close())
  await t.rejects(net.create(), { code: 'NATIVE', message: /client1.*route add default via 192\.0\.2\.1/s })
  t.not(listNamespaces((name) => name.startsWith(net.prefix)).length, 0)
  await net.close()
  t.same(
    listNamespaces((name) => name.startsWith(net.prefix)),
    [],
  )
})

t.test('a link to a namespace that is not described is refused', async (t) => {
  const links = [
    [
      { namespace: 'a', interface: 'eth0' },
      { namespace: 'b', interface: 'eth0' },
    ],
  ] as const
  t.throws(() => new Topology({ namespaces: [{ name: 'a' }], links }), { code: 'INVALID', message: /no namespace b/ })
})

t.test('a sweep removes what a run left that is no more, and nothing of a run that lives', root, async (t) => {
  const run = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore'] })
  const pid = run.pid ?? 0
  const spec = standardShape([], [{ name: 'server0', number: 11 }])
  const left = new Topology(spec, runPrefix(pid))
  const living = new Topology(spec)
  t.teardown(async () => {
    run.kill('SIGKILL')
    await Promise.all([left.close(), living.close()])
  })
  await Promise.all([left.create(), living.create()])
  const count = (prefix: string) => listNamespaces((name) => name.startsWith(prefix)).length
  await sweepRuns()
  t.equal(count(left.prefix), 3, 'the other run lives')
  run.kill('SIGKILL')
  await once(run, 'exit')
  t.notOk(isAlive(pid), 'the other run has ended')
  await sweepRuns()
  t.equal(count(left.prefix), 0, 'what it left is gone')
  t.equal(count(living.prefix), 3, 'this run has what it had')
})
