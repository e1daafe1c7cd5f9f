/** What kube-proxy answers on its ports, byte for byte but for times; its metrics by name, type, labels and buckets. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { HealthCheckPorts, type HealthCheckPort } from '../../src/api/health-check-ports.ts'
import { healthServer } from '../../src/api/health-server.ts'
import { serve } from '../../src/api/http.ts'
import { metricsServer } from '../../src/api/metrics-server.ts'
import type { ZPagesSource } from '../../src/api/zpages.ts'
import { flagTexts } from '../../src/config/kube-proxy/flagz.ts'
import { parseFlags } from '../../src/config/kube-proxy/flags.ts'
import { featuresOf, kubeProxySettings } from '../../src/config/kube-proxy/settings.ts'
import { ProxyHealth } from '../../src/daemon/health.ts'
import { ProxyStatus } from '../../src/daemon/status.ts'
import { translate } from '../../src/kube/translator.ts'
import { ProxyMetrics } from '../../src/observe/proxy-metrics.ts'
import { FakeLog } from '../helpers/fake-host.ts'
import { cases, objectsOf, optionsOf } from '../helpers/kube-cases.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { waitFor } from '../helpers/wait-for.ts'

interface Recorded {
  readonly http: Readonly<Record<'ipvs', Readonly<Record<string, string>>>>
  readonly metrics: string
}

const { http, metrics: recordedMetrics } = readJsonRecording<Recorded>('kube-proxy')

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** The headers that say something; those of the connection and the clock left out. */
const telling = ['content-type', 'x-content-type-options', 'x-load-balancing-endpoint-weight', 'content-length']

/** An answer as `curl -si` shows it; times replaced, and with them the length. */
function parseAnswer(text: string): Answer {
  const end = text.indexOf('\n\n')
  const [first = '', ...lines] = text.slice(0, end).split('\n')
  const headers = lines.map((line) => [
    line.slice(0, line.indexOf(':')).toLowerCase(),
    line.slice(line.indexOf(':') + 2),
  ])
  return tidy(Number(first.split(' ')[1]), Object.fromEntries(headers) as Record<string, string>, text.slice(end + 2))
}

function tidy(status: number, headers: Readonly<Record<string, unknown>>, body: string): Answer {
  const timeless = body.replace(/"\d{4}-[^"]*Z"/g, '"TIME"')
  const kept = telling.filter((name) => headers[name] !== undefined && (name !== 'content-length' || timeless === body))
  return { status, headers: Object.fromEntries(kept.map((name) => [name, String(headers[name])])), body: timeless }
}

/** A status of which everything was applied a moment ago. */
function statusAt(nowMs: number): { health: ProxyHealth; metrics: ProxyMetrics; status: ProxyStatus } {
  const health = new ProxyHealth(true)
  const metrics = new ProxyMetrics(0)
  const status = new ProxyStatus(health, metrics, () => nowMs)
  status.changed([], [])
  status.applied(5, { services: 0, servers: 0, failed: 0 })
  return { health, metrics, status }
}

t.test('healthz and livez answer as kube-proxy does; a Node that is to go is not eligible', async (t) => {
  const { health, metrics, status } = statusAt(Date.UTC(2026, 10, 21))
  const app = healthServer({ answer: (what) => status.answer(what), asked: (what, code) => metrics.asked(what, code) })
  t.teardown(() => app.close())
  const ask = async (path: string, method: 'GET' | 'POST' = 'GET'): Promise<Answer> => {
    const { statusCode, headers, body } = await app.inject({ method, path, payload: method === 'POST' ? 'x' : '' })
    return tidy(statusCode, headers, body)
  }
  const recorded = (name: string): Answer => parseAnswer(http.ipvs[name] ?? '')
  t.same(await ask('/healthz'), recorded('healthz'))
  t.same(await ask('/livez'), recorded('livez'))
  t.same(await ask('/healthz', 'POST'), recorded('healthz POST'))
  t.same(await ask('/'), recorded('10256/'))
  health.setNodeEligible(false)
  t.same(await ask('/healthz'), recorded('healthz with taint ToBeDeletedByClusterAutoscaler'))
  t.same(await ask('/livez'), recorded('livez with that taint'))
  const text = metrics.registry.text()
  t.match(text, /^kubeproxy_proxy_healthz_total\{code="200"\} 2$/m)
  t.match(text, /^kubeproxy_proxy_healthz_total\{code="503"\} 1$/m)
  t.match(text, /^kubeproxy_proxy_livez_total\{code="200"\} 2$/m)
})

/** The port of metrics of a bpvsd that began 72 s ago. */
function metricsPort(t: Test, more: Partial<ZPagesSource> = {}): FastifyInstance {
  const startMs = Date.UTC(2026, 10, 21, 5, 55)
  const pages = { statusz: true, flagz: true }
  const zpages = { startMs, now: () => startMs + 72_999, version: '1.2.3', flags: {}, pages, ...more }
  const configz = { 'kubeproxy.config.k8s.io': {} }
  const app = metricsServer({ metrics: () => 'a 1\n', proxyMode: 'ipvs', configz, zpages })
  t.teardown(() => app.close())
  return app
}

t.test('statusz and flagz tell as text what kube-proxy does, but for versions', async (t) => {
  const argv = ['--config', '/run/kp-8/config', '-v', '2']
  const app = metricsPort(t, { flags: flagTexts(parseFlags(argv)) })
  for (const [page, delimiter] of [
    ['statusz', '  '],
    ['flagz', ''],
  ] as const) {
    const { statusCode, headers, body } = await app.inject(`/${page}`)
    const recorded = parseAnswer(http.ipvs[page] ?? '')
    const { 'content-length': _, ...told } = recorded.headers
    t.same(tidy(statusCode, headers, body).headers, { ...told, 'content-length': String(body.length) }, 'no nosniff')
    const versions = (text: string) => text.replace(/^((Go|Binary) version: ).*$/gm, '$1')
    const expected = delimiter === '' ? recorded.body : recorded.body.replaceAll(`:${delimiter}`, ': ')
    t.equal(versions(body), versions(expected))
  }
  const { body } = await app.inject('/statusz')
  t.match(body, /^Go version: node v\d+.*\nBinary version: 1\.2\.3$/m)
})

t.test('statusz and flagz are objects for who asks for these, and for nobody else', async (t) => {
  const app = metricsPort(t, { flags: flagTexts(parseFlags(['--proxy-mode=ipvs', '--healthz-port=0'])) })
  const ask = async (path: string, accept: string) => {
    const { statusCode: status, headers, body } = await app.inject({ path, headers: { accept } })
    return { status, type: headers['content-type'], body }
  }
  const status = await ask('/statusz', 'application/json;as=Statusz;v=v1beta1;g=config.k8s.io')
  t.match(status, { status: 200, type: 'application/json' })
  t.match(JSON.parse(status.body), {
    kind: 'Statusz',
    apiVersion: 'config.k8s.io/v1beta1',
    metadata: { name: 'kube-proxy' },
    startTime: '2026-11-21T05:55:00Z',
    uptimeSeconds: 72,
    binaryVersion: '1.2.3',
    emulationVersion: '1.36',
    paths: ['/configz', '/flagz', '/healthz', '/metrics', '/proxyMode'],
  })
  const flags = JSON.parse((await ask('/flagz', 'application/json; g=config.k8s.io; v=v1beta1; as=Flagz')).body)
  t.match(flags, { kind: 'Flagz', flags: { 'proxy-mode': 'ipvs', 'healthz-port': '0', 'bind-address': '0.0.0.0' } })
  for (const accept of ['*/*', 'text/*', 'text/html, text/plain;q=0.9', '']) {
    t.match(await ask('/statusz', accept), { status: 200, type: 'text/plain; charset=utf-8' }, accept)
  }
  for (const accept of ['application/json', 'application/json;as=Flagz;v=v1beta1;g=config.k8s.io', 'text/html']) {
    t.equal((await ask('/statusz', accept)).status, 406, accept)
  }
})

t.test('feature gates take statusz and flagz away', async (t) => {
  const settings = (gates: string) => kubeProxySettings(parseFlags(gates === '' ? [] : [`--feature-gates=${gates}`]))
  const features = (gates: string) => Object.values(featuresOf(settings(gates).configuration))
  t.same(features(''), [true, true])
  t.same(features('ComponentStatusz=false'), [false, true])
  t.same(features('AllBeta=false,ComponentFlagz=true'), [false, true])
  t.same(settings('ComponentStatusz=false').warnings, [])
  t.match(settings('SomethingElse=true').warnings, [/featureGates: .* has no effect/])
  const app = metricsPort(t, { pages: { statusz: true, flagz: false } })
  t.equal((await app.inject('/flagz')).statusCode, 404)
  t.match((await app.inject('/statusz')).body, /^Paths: \/configz \/healthz \/metrics \/proxyMode$/m)
})

t.test('what health checks came to is counted, until it is reset', async (t) => {
  const app = metricsPort(t)
  t.equal((await app.inject('/metrics/slis')).body, '')
  for (const path of ['/healthz', '/healthz?verbose']) await app.inject(path)
  const { body, headers } = await app.inject('/metrics/slis')
  t.match(headers['content-type'], /^text\/plain; version=0\.0\.4/)
  t.match(body, /^# TYPE kubernetes_healthcheck gauge$/m)
  t.match(body, /^kubernetes_healthcheck\{name="ping",type="healthz"\} 1$/m)
  t.match(body, /^kubernetes_healthchecks_total\{name="ping",status="success",type="healthz"\} 2$/m)
  t.equal((await app.inject('/healthz?verbose')).body, '[+]ping ok\nhealthz check passed\n')
  t.equal((await app.inject('/healthz/ping')).body, 'ok')
  t.equal((await app.inject({ method: 'DELETE', path: '/metrics/slis' })).body, 'metrics reset\n')
  t.equal((await app.inject('/metrics/slis')).body, '')
})

t.test('the port of metrics answers as kube-proxy does', async (t) => {
  const app = metricsPort(t)
  const ask = async (path: string): Promise<Answer> => {
    const { statusCode, headers, body } = await app.inject(path)
    return tidy(statusCode, headers, body)
  }
  const recorded = (name: string): Answer => parseAnswer(http.ipvs[name] ?? '')
  t.same(await ask('/proxyMode'), recorded('proxyMode'))
  t.same(await ask('/healthz'), recorded('10249 healthz'))
  t.same(await ask('/'), recorded('10249/'))
  const { 'content-length': _, ...headers } = recorded('configz').headers
  t.match(await ask('/configz'), { status: 200, headers, body: '{"kubeproxy.config.k8s.io":{}}' })
  t.match(await ask('/metrics'), {
    status: 200,
    headers: { 'content-type': /^text\/plain; version=0\.0\.4/ },
    body: 'a 1\n',
  })
})

t.test('what waits for a minute makes the proxy ill, until it is applied', async (t) => {
  const health = new ProxyHealth(true)
  t.match(health.livez(0), { status: 200, body: { lastUpdated: '1970-01-01T00:00:00.000Z', status: {} } })
  health.queued(1000)
  health.queued(50_000)
  t.equal(health.livez(60_999).status, 200)
  t.match(health.livez(61_000), { status: 503, body: { healthy: false, lastUpdated: '0001-01-01T00:00:00Z' } })
  t.equal(health.healthz(61_000).status, 503)
  health.updated(62_000)
  t.match(health.livez(90_000), { status: 200, body: { healthy: true, status: { IPv4: { healthy: true }, IPv6: {} } } })
})

/** `name{labels}` of every line, without values. */
function series(text: string): string[] {
  const lines = text.split('\n').filter((line) => /^(kubeproxy|rest_client|process|kubernetes)_/.test(line))
  return lines.map((line) => line.slice(0, line.lastIndexOf(' ')))
}

t.test("kube-proxy's metrics are there by its names, types, help, labels and buckets", async (t) => {
  const { metrics, status } = statusAt(Date.now())
  metrics.programmed(300, 'IPv4')
  status.translated({ noLocal: { 4: { internal: 0, external: 0 }, 6: { internal: 0, external: 0 } } })
  metrics.asked('healthz', 200)
  metrics.asked('livez', 200)
  for (const method of ['GET', 'POST']) {
    metrics.requested({
      method,
      host: '198.18.1.1:56443',
      status: method === 'GET' ? 200 : 201,
      tookMs: 10,
      watch: false,
    })
  }
  const text = metrics.registry.text()
  const ours = new Set(text.split('\n').filter((line) => line.startsWith('#')))
  const notOurs = /conntrack_reconciler|rest_client_(exec_plugin|rate_limiter|request_size|response_size|transport)/
  for (const line of recordedMetrics.split('\n')) {
    if (line.startsWith('#') && !notOurs.test(line)) t.ok(ours.has(line), line)
  }
  t.same(
    series(text).sort(),
    series(recordedMetrics)
      .filter((line) => !notOurs.test(line))
      .sort(),
  )
  t.match(text, /^process_resident_memory_bytes \d{7,}$/m)
  t.match(text, /^process_virtual_memory_bytes \d{8,}$/m)
  t.match(text, /^process_(open|max)_fds [1-9]\d*$/m)
})

t.test('figures are true: what waits, what was applied, how long it took', async (t) => {
  let now = 1_000_000
  const metrics = new ProxyMetrics(0)
  const status = new ProxyStatus(new ProxyHealth(true), metrics, () => now)
  const slice = {
    kind: 'EndpointSlice',
    namespace: 'default',
    name: 'a',
    service: 'a',
    headless: false,
    family: 6,
    endpoints: [],
    ports: [],
    triggerMs: 1_000_100,
  } as const
  now = 1_000_200
  status.changed([slice], ['Service default/b', 'EndpointSlice default/b'])
  let text = metrics.registry.text()
  t.match(text, /^kubeproxy_sync_proxy_rules_service_changes_pending 1$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_endpoint_changes_pending 2$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds\{ip_family="IPv6"\} 1000\.2$/m)
  now = 1_000_350
  status.applied(3, { services: 7, servers: 9, failed: 1 })
  status.programmed([slice, { ...slice, triggerMs: 999_999 }])
  text = metrics.registry.text()
  t.match(text, /^kubeproxy_sync_proxy_rules_service_changes_pending 0$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_service_changes_total 1$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_endpoint_changes_total 2$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_duration_seconds_bucket\{ip_family="IPv4",le="0\.002"\} 0$/m)
  t.match(text, /^kubeproxy_sync_proxy_rules_duration_seconds_bucket\{ip_family="IPv4",le="0\.004"\} 1$/m)
  t.match(text, /^kubeproxy_network_programming_duration_seconds_sum\{ip_family="IPv6"\} 0\.25$/m)
  t.match(text, /^kubeproxy_network_programming_duration_seconds_count\{ip_family="IPv6"\} 1$/m)
  t.match(text, /^bpvs_virtual_services 7$/m)
  t.match(text, /^bpvs_real_servers 9$/m)
  t.match(text, /^bpvs_virtual_services_failed 1$/m)
})

const withChecks = cases.filter((each) => each.http?.['healthCheckNodePort listeners'] !== undefined)

t.test('health check node ports answer as recorded, and end with their Service', async (t) => {
  t.ok(withChecks.length >= 4)
  const log = new FakeLog()
  const after = (): { cancel(): void } => ({ cancel: () => undefined })
  const onTrouble = (check: HealthCheckPort, error: Error): unknown => t.fail(`${check.name}: ${error.message}`)
  const ports = new HealthCheckPorts({ log, healthy: () => true, after, onTrouble })
  t.teardown(() => ports.close())
  const everywhere = { 4: [], 6: [] }
  const ask = async (check: HealthCheckPort): Promise<Answer> => {
    const response = await fetch(`http://127.0.0.1:${check.port}/any`)
    return tidy(response.status, Object.fromEntries(response.headers), await response.text())
  }
  for (const recording of withChecks) {
    const { healthChecks } = translate(objectsOf(recording), optionsOf(recording))
    t.equal(healthChecks.length, 1, recording.case)
    ports.sync(healthChecks, everywhere)
    const [check] = healthChecks
    if (check === undefined) continue
    const answer = await waitFor('the port', () => ask(check).catch(() => undefined))
    const expected = parseAnswer(recording.http?.[`healthCheckNodePort 127.0.0.1:${check.port}/`] ?? '')
    const { 'content-length': _, ...headers } = expected.headers
    t.match(answer, { ...expected, headers }, recording.case)
    ports.sync([], everywhere)
    await t.rejects(fetch(`http://127.0.0.1:${check.port}/`), recording.case)
  }
  t.same(log.of('health checks of a service cannot be served'), [])
})

t.test('the port of a health check that is taken is told of', async (t) => {
  const holder = createServer()
  t.teardown(() => holder.close())
  await once(holder.listen(0, '127.0.0.1'), 'listening')
  const { port } = holder.address() as AddressInfo
  const troubles: string[] = []
  const ports = new HealthCheckPorts({
    log: new FakeLog(),
    healthy: () => true,
    after: () => ({ cancel: () => undefined }),
    onTrouble: (check, { message }) => troubles.push(`${check.namespace}/${check.name} ${message}`),
  })
  t.teardown(() => ports.close())
  ports.sync([{ namespace: 'shop', name: 'web', port, family: 4, localEndpoints: 1 }], { 4: ['127.0.0.1'], 6: [] })
  await waitFor('the trouble', () => troubles.length === 1)
  t.match(troubles, [/^shop\/web .*EADDRINUSE/])
})

t.test('of a Service without local endpoints there is a figure, by policy and family', async (t) => {
  const figures = Object.fromEntries(
    cases.map((each) => [each.case, translate(objectsOf(each), { ...optionsOf({ ...each, config: {} }) }).noLocal]),
  )
  const none = { internal: 0, external: 0 }
  t.same(figures['3-lb-etp-remote'], { 4: { internal: 0, external: 1 }, 6: none })
  t.same(figures['4-itp-remote'], { 4: { internal: 1, external: 0 }, 6: none })
  t.same(figures['4-itp-none'], { 4: none, 6: none }, 'nowhere is not: not here')
  t.same(figures['3-lb-etp-local'], { 4: none, 6: none })
})

t.test('a port that is taken is tried again, and that is said once', async (t) => {
  const log = new FakeLog()
  const timers: (() => void)[] = []
  const after = (_ms: number, run: () => void): { cancel(): void } => {
    timers.push(run)
    return { cancel: () => undefined }
  }
  const make = (): ReturnType<typeof healthServer> => {
    return healthServer({ answer: () => ({ status: 200, body: {} }), asked: () => undefined })
  }
  const holder = make()
  await holder.listen({ host: '127.0.0.1', port: 0 })
  const address = holder.server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const refused: unknown[] = []
  const troubles: unknown[] = []
  const server = serve(
    make,
    { host: '127.0.0.1', port },
    {
      name: 'healthz',
      log,
      after,
      onRefused: (error) => refused.push(error),
      onTrouble: (error) => troubles.push(error),
    },
  )
  await waitFor('the first failure', () => timers.length === 1)
  timers.shift()?.()
  await waitFor('the second failure', () => timers.length === 1)
  t.equal(log.of('cannot listen').length, 1)
  t.equal(refused.length, 2)
  t.equal(troubles.length, 1)
  await holder.close()
  timers.shift()?.()
  await waitFor('the port', () => log.of('listening').length === 1)
  t.equal((await fetch(`http://127.0.0.1:${port}/healthz`)).status, 200)
  await server.close()
})
