/**
 * What must go well with any API server: with the one of these tests and, where KUBEBUILDER_ASSETS names a folder with kube-apiserver
 * and etcd, with the real one.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { HttpApiServer } from '../../src/kube/client/api-server.ts'
import { loadCredentials } from '../../src/kube/client/credentials.ts'
import { EventRecorder } from '../../src/kube/client/event-recorder.ts'
import { startingEvent } from '../../src/kube/events.ts'
import { type ApiObject, TestApiServer } from '../helpers/api-server.ts'
import { assets, RealApiServer, type WrittenKind } from '../helpers/real-api-server.ts'
import { type Cluster, service, slice, SourceScene } from '../helpers/source-scene.ts'
import { waitFor } from '../helpers/wait-for.ts'

t.setTimeout(900_000)

/** A server to write to, and how to reach it. */
interface Place extends Cluster {
  put(kind: WrittenKind, object: ApiObject): Promise<void>
  remove(kind: WrittenKind, namespace: string, name: string): Promise<void>
  /** Events that it has stored; undefined: it is not asked. */
  readonly events?: () => number
}

async function ours(t: Test): Promise<Place> {
  const server = await TestApiServer.start(t)
  const token = 'right'
  server.tokens = [token]
  return {
    cluster: { server: server.url },
    user: { token },
    put: async (kind, object) => void server.set(kind, object),
    remove: async (kind, namespace, name) => server.delete(kind, namespace, name),
    events: () => server.events.all.length,
  }
}

const folder = assets
const servers: Readonly<Record<string, (t: Test) => Promise<Place>>> = {
  "the tests' own": ours,
  ...(folder === undefined ? {} : { 'kube-apiserver': (t: Test) => RealApiServer.start(t, folder) }),
}

/** What is known of the test's own objects: a real server has some more. */
function known(scene: SourceScene): Readonly<Record<string, readonly string[]>> {
  return Object.fromEntries([...scene.objects].filter(([name]) => !/default\/kubernetes$/.test(name)).sort())
}

function knows(scene: SourceScene, what: string, wanted: Readonly<Record<string, readonly string[]>>): Promise<true> {
  const text = JSON.stringify(wanted)
  return waitFor(`${what}: ${text}`, () => JSON.stringify(known(scene)) === text, 60_000)
}

const web = (port: number): ApiObject => ({
  metadata: { name: 'web', namespace: 'default' },
  spec: { clusterIP: '10.96.1.1', clusterIPs: ['10.96.1.1'], ports: [{ port, protocol: 'TCP' }] },
})

async function follow(t: Test, place: Place): Promise<void> {
  await place.put('Node', { metadata: { name: 'here', labels: { 'topology.kubernetes.io/zone': 'z1' } } })
  await place.put('Service', web(80))
  await place.put('EndpointSlice', slice('web', '10.0.0.1'))
  const scene = SourceScene.follow(t, place)
  await scene.start()
  await knows(scene, 'the first list', { 'EndpointSlice default/web-1': ['10.0.0.1'], 'Service default/web': [] })
  t.match(await waitFor('our Node', () => scene.said.at(-1)?.node), { name: 'here', zone: 'z1' })

  await place.put('EndpointSlice', slice('web', '10.0.0.1', '10.0.0.2'))
  await place.put('Service', service('b', '10.96.1.2'))
  const two = ['10.0.0.1', '10.0.0.2']
  const both = { 'EndpointSlice default/web-1': two, 'Service default/b': [], 'Service default/web': [] }
  await knows(scene, 'what came', both)
  scene.source.reload()
  await knows(scene, 'the same, asked for anew', both)
  await place.remove('Service', 'default', 'b')
  await place.remove('EndpointSlice', 'default', 'web-1')
  await knows(scene, 'what is left', { 'Service default/web': [] })
  t.same(scene.bad, [])
  t.same(scene.troubles, [])
}

async function select(t: Test, place: Place): Promise<void> {
  const mesh = service('mesh', '10.96.2.1')
  const labels = { 'service.kubernetes.io/service-proxy-name': 'mesh' }
  await place.put('Service', { ...mesh, metadata: { ...mesh.metadata, labels } })
  await place.put('Service', service('none', 'None'))
  await place.put('Service', service('plain', '10.96.2.2'))
  const scene = SourceScene.follow(t, place)
  await scene.start()
  await knows(scene, 'the one to serve', { 'Service default/plain': [], 'Service default/web': [] })
}

async function pages(t: Test, place: Place): Promise<void> {
  const names = Array.from({ length: 600 }, (_, n) => `s${String(n).padStart(3, '0')}`)
  for (const [n, name] of names.entries()) await place.put('Service', service(name, `10.96.${3 + (n >> 8)}.${n & 255}`))
  const scene = SourceScene.follow(t, place)
  await scene.start()
  t.equal(Object.keys(known(scene)).filter((name) => /\/s\d{3}$/.test(name)).length, 600)
}

async function strangers(t: Test, place: Place): Promise<void> {
  const scene = SourceScene.follow(t, { cluster: place.cluster, user: { token: 'wrong' } })
  scene.source.start()
  await waitFor('the refusal', () => scene.troubles.some((text) => text.includes('401')))
  t.same(known(scene), {})
  scene.writeKubeconfig(place.user)
  await waitFor('everything, with the right token', () => scene.complete, 120_000)
}

async function events(t: Test, place: Place): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-events-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const kubeconfig = join(directory, 'kubeconfig')
  const contexts = [{ name: 'x', context: { cluster: 'c', user: 'u' } }]
  const clusters = [{ name: 'c', cluster: place.cluster }]
  const users = [{ name: 'u', user: place.user }]
  writeFileSync(kubeconfig, JSON.stringify({ clusters, contexts, users, 'current-context': 'x' }))
  const statuses: (number | undefined)[] = []
  const api = new HttpApiServer(
    () => loadCredentials({ kubeconfig }),
    () => performance.now(),
    ({ status }) => statuses.push(status),
  )
  const after = (ms: number, run: () => void) => {
    const timer = setTimeout(run, ms)
    return { cancel: () => clearTimeout(timer) }
  }
  const troubles: unknown[] = []
  const recorder = new EventRecorder({
    api,
    clock: { now: () => performance.now(), random: Math.random, after },
    wallMs: Date.now,
    host: 'here',
    onTrouble: (error) => troubles.push(error),
  })
  t.teardown(() => recorder.close())
  recorder.record(startingEvent('here'))
  await waitFor('the answer', () => statuses.length > 0)
  t.same(statuses, [201], 'it is taken')
  t.same(troubles, [])
  if (place.events !== undefined) t.equal(place.events(), 1)
}

for (const [name, start] of Object.entries(servers)) {
  t.test(name, async (t) => {
    const place = await start(t)
    await t.test('objects are listed and followed', (t) => follow(t, place))
    await t.test('headless objects and those of another proxy are not asked for', (t) => select(t, place))
    await t.test('a list of many is read to its end', (t) => pages(t, place))
    await t.test('who is not known is refused, and comes back with the right token', (t) => strangers(t, place))
    await t.test('events are taken', (t) => events(t, place))
  })
}
