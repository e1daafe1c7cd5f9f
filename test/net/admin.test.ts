/** The admin API of a real bpvsd: what it does to the kernel's table, beside manifests and bpvsadm. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lstatSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openKernelTable } from '../../src/engine/open.ts'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { virtual } from '../helpers/director.ts'
import { ask, type HttpAnswer } from '../helpers/http-client.ts'
import { needsRoot, topology } from '../helpers/topology.ts'
import { waitFor } from '../helpers/wait-for.ts'

t.setTimeout(900_000)

const web = { protocol: 'tcp', address: '10.9.0.1', port: 80 }
const webPath = '/v1/services/tcp-10.9.0.1-80'
const keptPath = '/v1/services/tcp-10.96.0.1-80'

t.test(
  'services made by the admin API are in force at once, and those of manifests are kept',
  { skip: needsRoot },
  async (t) => {
    const net = await topology(t, { clients: 0, servers: 0 })
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-admin-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const path = join(directory, 'admin.sock')
    const manifests = new Manifests(t)
    manifests.write({ name: 'kept', address: '10.96.0.1', port: 80, targetPort: 8080, servers: ['10.2.0.1'] })
    const bpvsd = new Daemon(net.topology, manifests, '--admin-socket', path)
    await bpvsd.logged('ready')
    await bpvsd.logged('listening', ({ server }) => server === 'admin')
    t.equal(lstatSync(path).mode & 0o777, 0o600)
    const call = (method: string, url: string, body?: unknown, headers?: Record<string, string>): Promise<HttpAnswer> =>
      ask(path, method, url, body, headers)
    const within = <T>(work: (table: ReconcilingTable) => T): T =>
      net.topology.within('director', () => {
        const table = openKernelTable({ create: false })
        if (table === undefined) throw new Error('there is no table')
        try {
          return work(table)
        } finally {
          table.close()
        }
      })

    await t.test('a service and its servers come, change and go in the kernel', async (t) => {
      t.equal((await call('POST', '/v1/services', { ...web, scheduler: 'wrr' })).status, 201)
      const server = { address: '10.2.0.9', port: 8080, method: 'masq', weight: 3 }
      const made = await call('POST', `${webPath}/servers`, server)
      t.equal(made.status, 201)
      const key = virtual('10.9.0.1', 80)
      t.match(
        within((table) => table.service(key)),
        { scheduler: 'wrr', source: 'command', servers: [server] },
      )
      t.equal((await call('PATCH', String(made.headers.location), { weight: 0 })).status, 200)
      t.match(
        within((table) => table.service(key)),
        { servers: [{ weight: 0 }] },
      )
      t.match(await call('GET', `/v1/services/tcp-10.9.0.1-81`), { status: 404, json: { code: 'NO_SERVICE' } })
    })

    await t.test("another process's edit makes a tag void", async (t) => {
      const { etag } = (await call('GET', webPath)).headers
      within((table) => table.deleteServer(virtual('10.9.0.1', 80), { family: 4, address: '10.2.0.9', port: 8080 }))
      t.match(await call('DELETE', webPath, undefined, { 'if-match': String(etag) }), { status: 412 })
      t.equal((await call('DELETE', webPath)).status, 204)
      t.equal(
        within((table) => table.service(virtual('10.9.0.1', 80))),
        undefined,
      )
    })

    await t.test('the list comes in pages; what the kernel refuses is a problem', async (t) => {
      for (const port of [1, 2, 3]) t.equal((await call('POST', '/v1/services', { ...web, port })).status, 201)
      const names: string[] = []
      let after: number | undefined = 0
      while (after !== undefined) {
        const { json } = await call('GET', `/v1/services?limit=2&after=${after}`)
        const page = json as { services: { name: string }[]; next?: number }
        names.push(...page.services.map(({ name }) => name))
        after = page.next
      }
      t.same(names.sort(), ['tcp-10.9.0.1-1', 'tcp-10.9.0.1-2', 'tcp-10.9.0.1-3', 'tcp-10.96.0.1-80'])
      const refused = await call('POST', '/v1/services', { ...web, port: 0 })
      t.match(refused, { status: 400, json: { code: 'INVALID', context: { what: 'port', value: 0 } } })
    })

    await t.test('what a manifest asks for has an owner, and is put right when it was changed', async (t) => {
      const shown = await call('GET', keptPath)
      t.match(shown.json, { source: 'manifest', owner: 'default/kept', scheduler: 'rr' })
      t.equal((await call('PATCH', keptPath, { scheduler: 'lc' })).status, 200)
      await waitFor('the repair', async () => (await call('GET', keptPath)).headers.etag === shown.headers.etag)
      t.equal((await bpvsd.logged('repaired what others changed')).changed, 1)
      t.equal((await call('GET', '/v1/services/tcp-10.9.0.1-1')).status, 200, 'what was made here is left alone')
    })

    await t.test("what the kernel's table has beside services is shown and set", async (t) => {
      const shown = async (url: string): Promise<unknown> => (await call('GET', `/v1/${url}`)).json
      const hooks = (await shown('hooks')) as { hooks: { hook: string }[] }
      t.ok(hooks.hooks.length > 0, 'programs are attached')
      t.match(await shown('verdicts'), { verdicts: { DROP_MALFORMED: '0' } })
      t.same(await shown('connections'), { connections: [] })
      const ended = await call('DELETE', '/v1/connections/tcp-10.1.0.1-1000-10.96.0.1-80')
      t.match(ended, { status: 404, json: { code: 'NO_CONNECTION' } })
      t.match(await shown('stats'), { counters: { conns: '0' }, rates: { inBytes: '0' } })
      t.match(await shown('services/tcp-10.96.0.1-80/stats'), { servers: [{ name: '10.2.0.1-8080', active: 0 }] })
      t.same(await shown('health'), { healthy: true, table: true })
      t.match(await shown('configuration'), { bpvs: { adminSocket: path }, kubeProxy: { kind: String } })
      t.match((await call('PATCH', '/v1/timeouts', { tcpFinS: 30 })).json, { tcpS: 900, tcpFinS: 30 })
      t.match((await call('PATCH', '/v1/settings', { tunables: { sloppy_tcp: 1 } })).json, { bypass: 'auto' })
      t.match(
        within((table) => [table.timeouts(), table.settings()]),
        [{ tcpFinS: 30 }, { tunables: { sloppy_tcp: 1 } }],
      )
    })

    t.equal(await bpvsd.end('SIGTERM'), 0)
    t.notOk(existsSync(path), 'the socket is gone with bpvsd')
    t.match(
      within((table) => table.service(virtual('10.9.0.1', 1))),
      { source: 'command' },
      'the table goes on',
    )
  },
)

/** Asks over TLS from inside the namespace, and writes the status. */
const askOverTls = `
const [authorization] = process.argv.slice(1)
const options = { host: '127.0.0.1', port: 9443, path: '/v1/services', rejectUnauthorized: false }
const headers = authorization === undefined ? {} : { authorization }
require('https').get({ ...options, headers }, (answer) => process.exit(answer.statusCode === 200 ? 0 : 3))
`

t.test('with adminListen the API is served over TLS, to those with the token', { skip: needsRoot }, async (t) => {
  const net = await topology(t, { clients: 0, servers: 0 })
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-admin-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const [cert, key, token] = ['crt', 'key', 'token'].map((name) => join(directory, name)) as [string, string, string]
  writeFileSync(token, 'open-sesame')
  const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=a']
  if (spawnSync('openssl', [...kind, '-keyout', key, '-out', cert]).status !== 0) t.fail('openssl is needed')
  const listen = ['--admin-listen', '127.0.0.1:9443', '--admin-cert', cert, '--admin-key', key]
  const bpvsd = new Daemon(net.topology, new Manifests(t), ...listen, '--admin-token-file', token)
  await bpvsd.logged('listening', ({ server, port }) => server === 'admin' && port === 9443)
  await bpvsd.logged('ready')
  const status = async (...args: readonly string[]): Promise<unknown> => {
    const child = net.topology.spawn('director', process.execPath, ['-e', askOverTls, ...args], { stdio: 'inherit' })
    return (await once(child, 'exit'))[0]
  }
  t.equal(await status('Bearer open-sesame'), 0)
  t.equal(await status('Bearer other'), 3)
  t.equal(await status(), 3)
  t.equal(await bpvsd.end('SIGTERM'), 0)
})
