/** The admin API over a real unix socket, before a table in memory: what is beside services. */
import t from 'tap'
import { ChangeFeed } from '../../src/api/admin/events.ts'
import { RateLimit } from '../../src/api/admin/rate-limit.ts'
import { version } from '../../src/config/version.ts'
import { AdminScene, webPath } from '../helpers/admin-scene.ts'
import { type HttpAnswer, Listener } from '../helpers/http-client.ts'
import { waitFor } from '../helpers/wait-for.ts'

t.test('counters of a service and of everything are told as 64 bits in texts', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.withServer()
  const none = { conns: '0', inPkts: '0', outPkts: '0', inBytes: '0', outBytes: '0' }
  const server = { name: '10.2.0.1-8080', active: 0, inactive: 0, persistent: 0, counters: none, rates: none }
  const stats = await scene.ask('GET', `${webPath}/stats`)
  t.same(stats.json, { name: 'tcp-10.9.0.1-80', counters: none, rates: none, servers: [server] })
  t.match(await scene.ask('GET', '/v1/services/fwmark4-1/stats'), { status: 404, json: { code: 'NO_SERVICE' } })
  const counters = { conns: 1n, inPkts: 2n, outPkts: 3n, inBytes: 2n ** 63n, outBytes: 5n }
  scene.table.totals = () => ({ counters, rates: counters })
  const shown = { conns: '1', inPkts: '2', outPkts: '3', inBytes: '9223372036854775808', outBytes: '5' }
  t.same((await scene.ask('GET', '/v1/stats')).json, { counters: shown, rates: shown })
})

t.test('connections come filtered and in pages', async (t) => {
  const scene = await AdminScene.start(t)
  const all = Array.from({ length: 6 }, (_, i) => ({
    family: 4 as const,
    protocol: i === 5 ? ('udp' as const) : ('tcp' as const),
    state: i % 2 === 0 ? ('ESTABLISHED' as const) : ('TIME_WAIT' as const),
    expiresS: i,
    client: { address: `10.1.0.${i}`, port: 1000 + i },
    virtual: { address: '10.9.0.1', port: i < 3 ? 80 : 443 },
    server: { family: 4 as const, address: '10.2.0.1', port: 8080 },
  }))
  scene.table.held.push(...all)
  const numbers = async (query: string): Promise<number[]> => {
    const found: number[] = []
    for (let after: number | undefined = 0; after !== undefined; ) {
      const { json } = await scene.ask('GET', `/v1/connections?limit=2&after=${after}${query}`)
      const page = json as { connections: { expiresS: number }[]; next?: number }
      t.ok(page.connections.length <= 2)
      found.push(...page.connections.map(({ expiresS }) => expiresS))
      after = page.next
    }
    return found
  }
  t.same(await numbers(''), [0, 1, 2, 3, 4, 5])
  t.same(await numbers('&state=ESTABLISHED'), [0, 2, 4])
  t.same(await numbers('&protocol=udp'), [5])
  t.same(await numbers('&client=10.1.0.3'), [3])
  t.same(await numbers('&virtual=10.9.0.1&port=80'), [0, 1, 2])
  t.same(await numbers('&server=10.2.0.2'), [])
  const { server, ...rest } = all[0] as (typeof all)[number]
  const name = 'tcp-10.1.0.0-1000-10.9.0.1-80'
  const shown = { name, ...rest, server: { address: server.address, port: server.port } }
  t.same((await scene.ask('GET', '/v1/connections?client=10.1.0.0')).json, { connections: [shown] })
  t.match(await scene.ask('GET', '/v1/connections?client=10.1'), { status: 400, json: { code: 'INVALID' } })
  t.match(await scene.ask('GET', '/v1/connections?protocol=icmp'), { status: 400, json: { code: 'BAD_REQUEST' } })
})

t.test('a connection is shown, and ended, by its name', async (t) => {
  const scene = await AdminScene.start(t)
  const six = 'fd00:1111:2222:3333:4444:5555:6666:7777'
  const held = (protocol: 'tcp' | 'sctp', address: string, port: number) => ({
    family: address.includes(':') ? (6 as const) : (4 as const),
    protocol,
    state: 'ESTABLISHED' as const,
    expiresS: 10,
    client: { address, port },
    virtual: { address, port: 80 },
    server: { family: 4 as const, address: '10.2.0.1', port: 8080 },
  })
  const all = [
    held('tcp', '10.1.0.1', 1000),
    { ...held('sctp', six, 0), template: true as const },
    held('sctp', six, 0),
  ]
  scene.table.held.push(...all)
  const path = '/v1/connections/tcp-10.1.0.1-1000-10.1.0.1-80'
  const shown = await scene.ask('GET', path)
  t.match(shown, { status: 200, json: { name: path.slice(16), expiresS: 10, server: { port: 8080 } } })
  const longest = `/v1/connections/template-sctp-${six}-0-${six}-80`
  t.match((await scene.ask('GET', longest)).json, { template: true, client: { address: six } })
  t.notOk(((await scene.ask('GET', longest.replace('template-', ''))).json as { template?: boolean }).template)

  const other = { 'if-match': '"other"' }
  t.match(await scene.ask('DELETE', path, undefined, other), { status: 412, json: { code: 'CHANGED' } })
  const known = { 'if-match': String(shown.headers.etag) }
  t.equal((await scene.ask('DELETE', path, undefined, known)).status, 204)
  t.match(await scene.ask('DELETE', path), { status: 404, json: { code: 'NO_CONNECTION' } })
  t.equal((await scene.ask('DELETE', longest)).status, 204)
  t.equal(scene.table.held.length, 1, 'the connection that is named as the template stays')
  for (const name of ['tcp-10.1.0.1-1000', 'tcp-10.1.0.1-1000-fd00::1-80', 'icmp-10.1.0.1-1-10.9.0.1-80', 'x', '-']) {
    t.match(await scene.ask('GET', `/v1/connections/${name}`), { status: 404, json: { code: 'NO_CONNECTION' } }, name)
  }
  t.match(await scene.ask('PATCH', path, {}), { status: 405, headers: { allow: 'GET, DELETE, HEAD' } })
})

t.test('timeouts and settings have tags, and If-Match is minded', async (t) => {
  const scene = await AdminScene.start(t)
  for (const [path, change] of [
    ['/v1/timeouts', { udpS: 20 }],
    ['/v1/settings', { bypass: 'never' }],
  ] as const) {
    const { etag } = (await scene.ask('GET', path)).headers
    const known = { 'if-match': String(etag) }
    const changed = await scene.ask('PATCH', path, change, known)
    t.equal(changed.status, 200)
    t.match(await scene.ask('PATCH', path, change, known), { status: 412, json: { code: 'CHANGED' } })
    t.not(changed.headers.etag, etag)
    t.equal((await scene.ask('GET', path, undefined, { 'if-none-match': String(changed.headers.etag) })).status, 304)
  }
})

t.test('timeouts and settings are shown, and changed in part', async (t) => {
  const scene = await AdminScene.start(t)
  t.same((await scene.ask('GET', '/v1/timeouts')).json, { tcpS: 900, tcpFinS: 120, udpS: 300 })
  t.same((await scene.ask('PATCH', '/v1/timeouts', { udpS: 10 })).json, { tcpS: 900, tcpFinS: 120, udpS: 10 })
  t.equal((await scene.ask('PATCH', '/v1/timeouts', { udpS: 0 })).status, 400)
  t.same((await scene.ask('GET', '/v1/settings')).json, scene.table.settings())
  const change = { bypass: 'never', tunables: { sloppy_tcp: 1 } }
  const { json } = await scene.ask('PATCH', '/v1/settings', change)
  t.match(json, { bypass: 'never', tunables: { sloppy_tcp: 1, conn_reuse_mode: 1 } })
  t.equal(scene.table.settings().tunables.sloppy_tcp, 1)
  for (const bad of [{ bypass: 'maybe' }, { tunables: { pmtu_disc: 1 } }, { tunables: { drop_entry: 4 } }]) {
    t.equal((await scene.ask('PATCH', '/v1/settings', bad)).status, 400, JSON.stringify(bad))
  }
})

t.test('hooks, verdicts, health, configuration and version are shown, health without a table too', async (t) => {
  const scene = await AdminScene.start(t)
  const shown = async (path: string): Promise<unknown> => (await scene.ask('GET', `/v1/${path}`)).json
  t.same(await shown('hooks'), { hooks: [{ ifindex: 2, interface: 'eth0', hook: 'tcx/ingress', mode: 'link' }] })
  t.same(await shown('verdicts'), { verdicts: { NO_SERVER: '1152921504606846976' } })
  const configuration = { bpvs: { scheduler: 'rr' }, kubeProxy: { mode: 'ipvs', ipvs: { strictARP: true } } }
  t.same(await shown('configuration'), configuration)
  t.same(await shown('version'), { version: version() })
  t.same(await shown('health'), { healthy: true, table: true })
  scene.healthy = false
  scene.hasTable = false
  t.same(await shown('health'), { healthy: false, table: false })
})

t.test('more requests than bpvsd has time for are told to come later', async (t) => {
  const limit = new RateLimit({ perSecond: 10, burst: 3 })
  t.same(
    [1, 2, 3].map(() => limit.take(5000)),
    [0, 0, 0],
  )
  t.equal(limit.take(5000), 100)
  t.equal(limit.take(5050), 50)
  t.equal(limit.take(5100), 0)
  t.equal(limit.take(9000), 0)
  t.same(
    [1, 2, 3].map(() => limit.take(9000)),
    [0, 0, 100],
    'no more than a burst is saved up',
  )

  const scene = await AdminScene.start(t)
  let refused: HttpAnswer | undefined
  for (let i = 0; i <= 1000; i++) refused = await scene.ask('GET', '/v1/version')
  t.match(refused, { status: 429, headers: { 'retry-after': '1' }, json: { code: 'TOO_MANY' } })
  scene.nowMs += 1000
  t.equal((await scene.ask('GET', '/v1/version')).status, 200)
})

t.test('edits by anybody are told to those who listen, and nobody looks while nobody listens', async (t) => {
  const scene = await AdminScene.start(t)
  let looks = 0
  const { generation } = scene.table
  scene.table.generation = () => {
    looks++
    return generation.call(scene.table)
  }
  scene.timers.pass(1000)
  t.equal(looks, 0)
  const listener = await Listener.start(scene.path)
  t.equal(listener.type, 'text/event-stream')
  await listener.until('event: table\nid: 0\ndata: {"generation":"0"}\n\n')
  scene.table.setTimeouts({ tcpS: 0, tcpFinS: 0, udpS: 0 })
  await scene.withServer()
  scene.timers.pass(250)
  await listener.until('event: table\nid: 2\ndata: {"generation":"2"}\n\n')
  scene.timers.pass(1000)
  scene.hasTable = false
  scene.timers.pass(250)
  await listener.until('event: no-table\ndata: {}\n\n')
  scene.timers.pass(15_000)
  await listener.until(':\n\n')
  listener.end()
  await waitFor('the end of looking', () => {
    const before = looks
    scene.hasTable = true
    scene.timers.pass(250)
    return looks === before
  })
})

t.test('there are only so many listeners', async (t) => {
  const feed = new ChangeFeed({ generation: () => 1n, every: () => ({ cancel: () => {} }) })
  const listeners = Array.from({ length: 65 }, () => feed.listen(() => {}))
  t.equal(listeners.indexOf(undefined), 64)
  listeners[0]?.cancel()
  t.ok(
    feed.listen(() => {}),
    'who goes makes room',
  )
})
