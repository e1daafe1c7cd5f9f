/** Events: what the API server gets of them, and what becomes of those that it will not have. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { HttpApiServer } from '../../src/kube/client/api-server.ts'
import { loadCredentials } from '../../src/kube/client/credentials.ts'
import { EventRecorder } from '../../src/kube/client/event-recorder.ts'
import { annotationEvent, healthCheckEvent, type KubeEvent, serverEvent, startingEvent } from '../../src/kube/events.ts'
import { TestApiServer } from '../helpers/api-server.ts'
import { waitFor } from '../helpers/wait-for.ts'

t.setTimeout(900_000)

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

/** A recorder and its server. Its time runs `speed` times as fast as ours, and jumps as it is told. */
class Scene {
  readonly server: TestApiServer
  readonly recorder: EventRecorder
  readonly troubles: string[] = []
  skippedMs = 0

  private constructor(server: TestApiServer, master: string, speed: number) {
    this.server = server
    this.recorder = new EventRecorder({
      api: new HttpApiServer(() => loadCredentials({ kubeconfig: master })),
      clock: {
        now: () => performance.now() * speed + this.skippedMs,
        random: Math.random,
        after: (ms, run) => {
          const timer = setTimeout(run, ms / speed)
          return { cancel: () => clearTimeout(timer) }
        },
      },
      wallMs: () => Date.UTC(2026, 10, 21, 5, 55, 3, 500) + this.skippedMs,
      host: 'box',
      onTrouble: (error) => this.troubles.push(error instanceof Error ? error.message : 'well again'),
    })
  }

  static async make(t: Teardown, speed = 100): Promise<Scene> {
    const server = await TestApiServer.start(t)
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-events-'))
    const file = join(directory, 'kubeconfig')
    const clusters = [{ name: 'c', cluster: { server: server.url } }]
    const contexts = [{ name: 'x', context: { cluster: 'c', user: 'u' } }]
    writeFileSync(
      file,
      JSON.stringify({ clusters, contexts, users: [{ name: 'u', user: { token: 'x' } }], 'current-context': 'x' }),
    )
    const scene = new Scene(server, file, speed)
    t.teardown(async () => {
      scene.recorder.close()
      rmSync(directory, { recursive: true })
    })
    return scene
  }

  until(what: string, is: () => boolean): Promise<true> {
    return waitFor(what, is)
  }

  /** Requests that were made for events. */
  get asked(): number {
    return this.server.requests.length
  }
}

const web = { namespace: 'shop', name: 'web', uid: 'u-1' }

t.test("the start of bpvsd is told as kube-proxy's", async (t) => {
  const scene = await Scene.make(t)
  scene.recorder.record(startingEvent('node-a'))
  await scene.until('the event', () => scene.server.events.all.length === 1)
  const [{ metadata, ...event } = { metadata: { name: '', namespace: '' } }] = scene.server.events.all
  t.match(metadata, { name: /^node-a\.[0-9a-f]{16}$/, namespace: 'default' })
  t.same(event, {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    eventTime: '2026-11-21T05:55:03.500000Z',
    reportingController: 'kube-proxy',
    reportingInstance: 'kube-proxy-box',
    action: 'StartKubeProxy',
    reason: 'Starting',
    regarding: { kind: 'Node', name: 'node-a', apiVersion: 'v1' },
    type: 'Normal',
  })
})

t.test('events about Services and about our own servers are what the API server takes', async (t) => {
  const scene = await Scene.make(t)
  const events: readonly KubeEvent[] = [
    annotationEvent(web, `annotation bpvs.io/weights: ${'\u20ac'.repeat(2000)}`),
    healthCheckEvent('node-a', { ...web, port: 30000 }, new Error('taken')),
    serverEvent('node-a', 'healthz', '0.0.0.0:10256', new Error('taken')),
    serverEvent('node-a', 'metrics', '127.0.0.1:10249', new Error('taken')),
  ]
  for (const event of events) scene.recorder.record(event)
  await scene.until('all', () => scene.server.events.all.length === events.length)
  const regarding = { kind: 'Service', namespace: 'shop', name: 'web', uid: 'u-1' }
  t.match(scene.server.events.all, [
    { type: 'Warning', reason: 'InvalidAnnotation', note: /^annotation bpvs\.io\/weights: \u20ac+\.\.\.$/, regarding },
    {
      type: 'Warning',
      reason: 'FailedToStartServiceHealthcheck',
      action: 'Listen',
      note: 'node node-a failed to start healthcheck "shop/web" on port 30000: taken',
      regarding,
    },
    { reason: 'FailedToStartProxierHealthcheck', note: 'failed to start proxier healthz on 0.0.0.0:10256: taken' },
    { reason: 'FailedToStartMetricServer', note: 'starting metrics server failed: taken' },
  ])
  t.same(scene.troubles, [])
})

t.test('what comes again soon becomes a series, and later, or when it has expired, another event', async (t) => {
  const scene = await Scene.make(t, 1)
  const event = annotationEvent(web, 'x')
  const count = (): number => scene.server.events.all[0]?.series?.count ?? 0
  scene.recorder.record(event)
  await scene.until('the event', () => scene.server.events.all.length === 1)
  scene.skippedMs += 1000
  scene.recorder.record(event)
  await scene.until('the series', () => count() === 2)
  t.equal(scene.server.events.all[0]?.series?.lastObservedTime, '2026-11-21T05:55:04.500000Z')
  for (let i = 0; i < 50; i++) scene.recorder.record(event)
  await scene.until('the count of all', () => count() === 52)
  t.ok(scene.asked < 10, `${scene.asked} requests`)
  scene.server.events.clear()
  scene.recorder.record(event)
  await scene.until('a new event', () => scene.server.events.all.length === 1)
  scene.skippedMs += 400_000
  scene.recorder.record(event)
  await scene.until('one more', () => scene.server.events.all.length === 2)
})

t.test('there are not too many at once, and of those that wait the oldest are forgotten', async (t) => {
  const scene = await Scene.make(t, 1)
  for (let i = 0; i < 1000; i++) scene.recorder.record(annotationEvent(web, `note ${i}`))
  await scene.until('a burst', () => scene.server.events.all.length === 25)
  scene.skippedMs += 3000
  await scene.until('one a second', () => scene.server.events.all.length >= 28)
  t.ok(scene.server.events.all.length < 40)
  t.match(scene.server.events.all.at(-1)?.note, /^note 5\d\d$/)
})

t.test('a server that is away or in trouble gets it later, and once', async (t) => {
  const scene = await Scene.make(t)
  const faults = [{ status: 500 }, 'reset', { status: 429, headers: { 'retry-after': '1' } }] as const
  let n = 0
  scene.server.fault = () => faults[n++]
  scene.recorder.record(startingEvent('node-a'))
  await scene.until('the event', () => scene.server.events.all.length === 1)
  t.equal(scene.asked, 4)
  await scene.until('the end of the trouble', () => scene.troubles.length === 2)
  t.same(scene.troubles, ['the API server answers 500: something is wrong', 'well again'])
})

t.test('who may not write events stops trying for a while; an event that is refused keeps no other one', async (t) => {
  const scene = await Scene.make(t, 1)
  scene.server.fault = () => ({ status: 403, message: 'events is forbidden' })
  for (let i = 0; i < 20; i++) scene.recorder.record(annotationEvent(web, `note ${i}`))
  await scene.until('the refusals', () => scene.recorder.isSilent)
  t.equal(scene.asked, 3)
  t.same(scene.troubles, ['the API server answers 403: events is forbidden'])
  scene.server.fault = () => undefined
  scene.recorder.record(startingEvent('node-a'))
  scene.skippedMs += 600_000
  scene.recorder.record(startingEvent('node-b'))
  await scene.until('an event', () => scene.server.events.all.length === 1)
  t.match(scene.server.events.all, [{ regarding: { name: 'node-b' } }])
  t.equal(scene.asked, 4)
  scene.recorder.record({ ...startingEvent('node-c'), reason: '' })
  scene.recorder.record(startingEvent('node-d'))
  await scene.until('the good one', () => scene.server.events.all.length === 2)
  t.equal(scene.asked, 6)
})

t.test('after its end nothing is written', async (t) => {
  const scene = await Scene.make(t)
  scene.server.fault = () => ({ status: 503 })
  scene.recorder.record(startingEvent('node-a'))
  await scene.until('a try', () => scene.asked === 1)
  scene.recorder.close()
  scene.recorder.record(startingEvent('node-b'))
  scene.server.fault = () => undefined
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(scene.asked, 1)
  t.same(scene.server.events.all, [])
})
