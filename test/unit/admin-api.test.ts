/** The admin API over a real unix socket, before a table in memory: services and servers. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { showService } from '../../src/api/admin/views.ts'
import type { ServiceKey } from '../../src/model/types.ts'
import { AdminScene, web, webPath } from '../helpers/admin-scene.ts'
import { keyOf, policyOf, serverOf, serviceOf } from '../helpers/table-specs.ts'

const kept: ServiceKey = { kind: 'address', family: 4, protocol: 'tcp', address: '10.96.0.1', port: 443 }

const newWeb = {
  name: 'tcp-10.9.0.1-80',
  family: 4,
  ...web,
  scheduler: 'wlc',
  schedulerFlags: [],
  onePacket: false,
  source: 'command',
  owner: null,
  servers: [],
}

t.test('a service is created with the defaults of bpvsadm, shown, listed, and found under its location', async (t) => {
  const scene = await AdminScene.start(t)
  const made = await scene.ask('POST', '/v1/services', web)
  t.equal(made.status, 201)
  t.equal(made.headers.location, webPath)
  t.same(made.json, newWeb)
  const shown = await scene.ask('GET', webPath)
  t.equal(shown.status, 200)
  t.same(shown.json, newWeb)
  t.equal(shown.headers.etag, made.headers.etag)
  t.match(shown.headers.etag, /^"[\w-]{22}"$/)
  t.same((await scene.ask('GET', '/v1/services')).json, { services: [newWeb] })
  t.same(scene.log.of('admin'), [{ method: 'POST', url: '/v1/services', status: 201 }], 'changes are logged')
})

t.test('everything that a service can have goes in and comes out: IPv6, persistence, flags, marks', async (t) => {
  const scene = await AdminScene.start(t)
  const dns = {
    protocol: 'udp',
    address: 'FD00:0::1',
    port: 53,
    onePacket: true,
    persistence: { timeoutS: 60, mask: 64 },
  }
  const made = await scene.ask('POST', '/v1/services', dns)
  t.equal(made.headers.location, '/v1/services/udp-fd00::1-53')
  t.match(made.json, { address: 'fd00::1', family: 6, onePacket: true, persistence: { timeoutS: 60, mask: 64 } })
  const mark = { mark: 7, family: 6, scheduler: 'mh', schedulerFlags: [1, 2], persistence: { timeoutS: 9 } }
  const marked = await scene.ask('POST', '/v1/services', mark)
  t.equal(marked.headers.location, '/v1/services/fwmark6-7')
  t.match(marked.json, { mark: 7, family: 6, schedulerFlags: [1, 2], persistence: { timeoutS: 9, mask: 128 } })
  const group = { id: 3, port: 0 }
  const v4 = await scene.ask('POST', '/v1/services', { mark: 7, persistence: { timeoutS: 9, group } })
  t.match(v4.json, { name: 'fwmark4-7', persistence: { mask: '255.255.255.255', group } })
  for (const name of ['udp-fd00::1-53', 'udp-fd00:0:0::1-53', 'fwmark6-7', 'fwmark4-7']) {
    t.equal((await scene.ask('GET', `/v1/services/${name}`)).status, 200, name)
  }
})

t.test('a change of a service touches what it names; null ends persistence', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.withServer()
  const changed = await scene.ask('PATCH', webPath, { scheduler: 'sh', persistence: { timeoutS: 300 } })
  t.equal(changed.status, 200)
  t.match(changed.json, { scheduler: 'sh', persistence: { timeoutS: 300, mask: '255.255.255.255' } })
  const merge = { 'content-type': 'application/merge-patch+json' }
  const ended = await scene.ask('PATCH', webPath, { persistence: null }, merge)
  t.same(ended.json, { ...newWeb, scheduler: 'sh', servers: (changed.json as { servers: unknown }).servers })
})

t.test('servers are added, shown, changed and removed', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.ask('POST', '/v1/services', web)
  const made = await scene.ask('POST', `${webPath}/servers`, { address: '10.2.0.1', port: 8080, method: 'masq' })
  const shown = { name: '10.2.0.1-8080', family: 4, address: '10.2.0.1', port: 8080, method: 'masq' }
  t.equal(made.status, 201)
  t.equal(made.headers.location, `${webPath}/servers/10.2.0.1-8080`)
  t.same(made.json, { ...shown, weight: 1, upper: 0, lower: 0 })
  const path = `${webPath}/servers/10.2.0.1-8080`
  const changed = await scene.ask('PATCH', path, { weight: 0, upper: 9, lower: 3 })
  t.same(changed.json, { ...shown, weight: 0, upper: 9, lower: 3 })
  t.same((await scene.ask('GET', path)).json, changed.json)
  t.same((await scene.ask('GET', `${webPath}/servers`)).json, { servers: [changed.json] })
  const removed = await scene.ask('DELETE', path)
  t.equal(removed.status, 204)
  t.equal(removed.text, '')
  t.same((await scene.ask('GET', `${webPath}/servers`)).json, { servers: [] })
  t.equal((await scene.ask('DELETE', webPath)).status, 204)
  t.same(scene.table.services(), [])
})

t.test("a server that is not behind NAT has its service's port, and a tunnel only if it is in one", async (t) => {
  const scene = await AdminScene.start(t)
  await scene.ask('POST', '/v1/services', web)
  const servers = `${webPath}/servers`
  const direct = await scene.ask('POST', servers, { address: '10.2.0.1', port: 8080 })
  t.match(direct.json, { method: 'droute', port: 80 })
  const tunnel = { type: 'gue', port: 6080 }
  const tunnelled = await scene.ask('POST', servers, { address: '10.2.0.2', method: 'tunnel', tunnel })
  t.match(tunnelled.json, { port: 80, tunnel: { type: 'gue', port: 6080, checksum: 'none' } })
  const back = await scene.ask('PATCH', `${servers}/10.2.0.2-80`, { method: 'masq' })
  t.notOk('tunnel' in (back.json as object))
  const refused = await scene.ask('POST', servers, { address: '10.2.0.3', method: 'masq', tunnel })
  t.match(refused, { status: 400, json: { code: 'INVALID' } })
})

t.test('a change that was meant for another state is refused and changes nothing', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.withServer()
  const server = `${webPath}/servers/10.2.0.1-8080`
  for (const [path, change] of [
    [server, { weight: 5 }],
    [webPath, { scheduler: 'rr' }],
  ] as const) {
    const { etag } = (await scene.ask('GET', path)).headers
    const first = await scene.ask('PATCH', path, change, { 'if-match': `"other", ${etag}` })
    t.equal(first.status, 200)
    t.not(first.headers.etag, etag)
    const before = scene.table.generation()
    for (const [method, body] of [
      ['PATCH', change],
      ['DELETE', undefined],
    ] as const) {
      const late = await scene.ask(method, path, body, { 'if-match': String(etag) })
      t.match(late, { status: 412, json: { code: 'CHANGED', status: 412 } })
    }
    t.equal((await scene.ask('DELETE', path, undefined, { 'if-match': `W/${first.headers.etag}` })).status, 412)
    t.equal(scene.table.generation(), before)
    t.equal((await scene.ask('PATCH', path, change, { 'if-match': '*' })).status, 200)
  }
  const { etag } = (await scene.ask('GET', webPath)).headers
  t.equal((await scene.ask('DELETE', webPath, undefined, { 'if-match': String(etag) })).status, 204)
})

t.test('what a client has already is not sent again', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.withServer()
  const { etag } = (await scene.ask('GET', webPath)).headers
  const again = await scene.ask('GET', webPath, undefined, { 'if-none-match': `W/${etag}` })
  t.match(again, { status: 304, text: '' })
  await scene.ask('PATCH', `${webPath}/servers/10.2.0.1-8080`, { weight: 7 })
  t.equal((await scene.ask('GET', webPath, undefined, { 'if-none-match': String(etag) })).status, 200)
})

t.test('the list comes in pages', async (t) => {
  const scene = await AdminScene.start(t)
  for (let port = 1; port <= 5; port++) await scene.ask('POST', '/v1/services', { ...web, port })
  const seen: number[] = []
  let after = 0
  for (let pages = 1; ; pages++) {
    const { json } = await scene.ask('GET', `/v1/services?limit=2&after=${after}`)
    const { services, next } = json as { services: { port: number }[]; next?: number }
    seen.push(...services.map(({ port }) => port))
    if (next === undefined) {
      t.equal(pages, 3)
      break
    }
    t.equal(services.length, 2)
    after = next
  }
  t.same(seen, [1, 2, 3, 4, 5])
})

t.test('services of a source are shown with their owner, and may be changed as with bpvsadm', async (t) => {
  const scene = await AdminScene.start(t)
  scene.table.addService({ key: kept, scheduler: 'rr', schedulerFlags: [], onePacket: false }, 'kubernetes')
  const path = '/v1/services/tcp-10.96.0.1-443'
  t.match((await scene.ask('GET', path)).json, { source: 'kubernetes', owner: 'default/kubernetes' })
  t.match((await scene.ask('PATCH', path, { scheduler: 'lc' })).json, { source: 'kubernetes', scheduler: 'lc' })
})

t.test('errors are problems with stable codes', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.withServer()
  const servers = `${webPath}/servers`
  const server = `${servers}/10.2.0.1-8080`
  const other = { 'content-type': 'text/plain' }
  const rows: readonly [string, number, string, string, unknown?, Record<string, string>?][] = [
    ['SERVICE_EXISTS', 409, 'POST', '/v1/services', web],
    ['NO_SERVICE', 404, 'GET', '/v1/services/tcp-10.9.0.2-80'],
    ['NO_SERVICE', 404, 'GET', '/v1/services/nonsense'],
    ['NO_SERVICE', 404, 'GET', '/v1/services/tcp-10.9.0.1-65536'],
    ['NO_SERVICE', 404, 'GET', '/v1/services/fwmark4-0'],
    ['NO_SERVICE', 404, 'DELETE', '/v1/services/udp-10.9.0.1-80'],
    ['NO_SERVICE', 404, 'POST', '/v1/services/fwmark4-9/servers', { address: '10.2.0.1' }],
    ['SERVER_EXISTS', 409, 'POST', servers, { address: '10.2.0.1', port: 8080, method: 'masq' }],
    ['NO_SERVER', 404, 'PATCH', `${servers}/10.2.0.9-8080`, { weight: 1 }],
    ['NO_SERVER', 404, 'GET', `${servers}/nonsense`],
    ['RANGE', 400, 'PATCH', server, { lower: 5 }],
    ['INVALID', 400, 'POST', '/v1/services', { ...web, address: '10.9.0.256' }],
    ['INVALID', 400, 'POST', servers, { address: '127.255.255.255' }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', { ...web, scheduler: 'best' }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', { ...web, port: '80' }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', { ...web, mark: 7 }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', { ...web, colour: 'red' }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', { scheduler: 'rr' }],
    ['BAD_REQUEST', 400, 'POST', '/v1/services', '{"protocol":'],
    ['BAD_REQUEST', 400, 'PATCH', server, { weight: -1 }],
    ['BAD_REQUEST', 400, 'PATCH', server, { address: '10.2.0.2' }],
    ['BAD_REQUEST', 400, 'GET', '/v1/services?limit=0'],
    ['BAD_REQUEST', 400, 'GET', '/v1/services?limit=many'],
    ['BAD_REQUEST', 400, 'GET', '/v1/services?colour=red'],
    ['NO_RESOURCE', 404, 'GET', '/v1/nothing'],
    ['BAD_METHOD', 405, 'PUT', server, { weight: 1 }],
    ['BAD_METHOD', 405, 'DELETE', '/v1/services'],
    ['NOT_JSON', 415, 'POST', '/v1/services', 'tcp', other],
    ['TOO_LARGE', 413, 'POST', '/v1/services', `"${'x'.repeat(70_000)}"`],
  ]
  const before = scene.table.generation()
  for (const [code, status, method, path, body, headers] of rows) {
    const answer = await scene.ask(method, path, body, headers)
    const type = `urn:bpvs:problem:${code.toLowerCase().replaceAll('_', '-')}`
    t.match(
      answer,
      { status, json: { code, status, type, title: String } },
      `${method} ${path} ${JSON.stringify(body)}`.slice(0, 120),
    )
    t.match(answer.headers['content-type'], /^application\/problem\+json/)
  }
  t.equal(scene.table.generation(), before, 'nothing was changed')
  t.equal((await scene.ask('PUT', '/v1/services', {})).headers.allow, 'GET, POST, HEAD')
})

t.test('where a sync daemon runs a server of another family than its service is refused', async (t) => {
  const scene = await AdminScene.start(t)
  await scene.ask('POST', '/v1/services', web)
  const server = { address: 'fd00::2', method: 'tunnel' }
  scene.syncs = true
  t.match(await scene.ask('POST', `${webPath}/servers`, server), { status: 400, json: { code: 'INVALID' } })
  scene.syncs = false
  t.equal((await scene.ask('POST', `${webPath}/servers`, server)).status, 201)
})

t.test('without a table the answer is 503; an unexpected error says nothing of itself', async (t) => {
  const scene = await AdminScene.start(t)
  scene.hasTable = false
  t.match(await scene.ask('GET', '/v1/services'), { status: 503, json: { code: 'NO_TABLE' } })
  scene.hasTable = true
  scene.table.eachService = () => {
    throw new RangeError('a secret')
  }
  const broken = await scene.ask('GET', '/v1/services')
  t.match(broken, { status: 500, json: { code: 'INTERNAL' } })
  t.notMatch(broken.text, /secret/)
  t.match(scene.log.of('admin request failed').at(-1), { err: { message: 'a secret' } })
})

t.test('the OpenAPI document is served, and is the one in docs/', async (t) => {
  const scene = await AdminScene.start(t)
  const served = await scene.ask('GET', '/openapi.json')
  const text = readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8')
  t.same(served.json, JSON.parse(text), 'else: run node tools/openapi.ts')
})

t.test('every reference of the OpenAPI document leads somewhere', async (t) => {
  const text = readFileSync(new URL('../../docs/openapi.json', import.meta.url), 'utf8')
  const { components } = JSON.parse(text) as { components: { schemas: Record<string, unknown> } }
  const names = new Set(Array.from(text.matchAll(/"#\/components\/schemas\/(\w+)"/g), ([, name = '']) => name))
  t.ok(names.size > 5)
  for (const name of names) t.ok(name in components.schemas, name)
})

t.test('a service is shown with its policy and the servers of insiders', async (t) => {
  const scene = await AdminScene.start(t)
  const policy = policyOf({ whenEmpty: 'drop', sources: [{ family: 4, address: '192.0.2.0', length: 24 }] })
  scene.table.addService({ ...serviceOf(1), policy })
  const { json } = await scene.ask('GET', webPath)
  t.match(json, { policy, servers: [] })
  t.notOk((json as { insiders?: unknown }).insiders)
  const view = scene.table.service(keyOf(1))
  if (view === undefined) throw new Error('no service')
  const counts = { id: 1, active: 0, inactive: 0, persistent: 0, counters: view.counters, rates: view.rates }
  const shown = showService({ ...view, insiders: [{ ...serverOf(7), ...counts }] }, () => undefined)
  t.match(shown.insiders, [{ name: '10.2.0.7-8080', address: '10.2.0.7', port: 8080, weight: 1 }])
})
