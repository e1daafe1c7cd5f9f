/** How soon changes are handed on, by a clock that the test moves. */
import t from 'tap'
import type { ApiResponse, ApiServer } from '../../src/kube/client/api-server.ts'
import { KubernetesSource } from '../../src/kube/client/kubernetes-source.ts'
import { FakeTimers } from '../helpers/fake-host.ts'
import { service } from '../helpers/source-scene.ts'
import { waitFor } from '../helpers/wait-for.ts'

/** Lists nothing, and then says what it is given of Services. */
class Server implements ApiServer {
  #version = 1
  #wake = (): void => undefined
  readonly #lines: string[] = []

  get(path: string): Promise<ApiResponse> {
    const isWatch = path.includes('watch=true')
    const list = JSON.stringify({ metadata: { resourceVersion: '1' }, items: [] })
    const body = isWatch ? this.#events(path.startsWith('/api/v1/services')) : once(list)
    return Promise.resolve({ status: 200, retryAfterMs: 0, body })
  }

  set(name: string): void {
    const object = service(name, '10.96.0.1')
    const metadata = { ...object.metadata, resourceVersion: String(++this.#version) }
    this.#lines.push(JSON.stringify({ type: 'MODIFIED', object: { ...object, metadata } }))
    this.#wake()
  }

  async *#events(ofServices: boolean): AsyncGenerator<Buffer> {
    const annotations = { 'k8s.io/initial-events-end': 'true' }
    yield line(JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '1', annotations } } }))
    for (;;) {
      if (ofServices) for (const text of this.#lines.splice(0)) yield line(text)
      await new Promise<void>((resolve) => {
        if (ofServices) this.#wake = resolve
      })
    }
  }
}

async function* once(text: string): AsyncGenerator<Buffer> {
  yield await Promise.resolve(Buffer.from(text))
}

function line(text: string): Buffer {
  return Buffer.from(`${text}\n`)
}

t.test('handing on takes half of the time at most; what takes long at first is no measure', async (t) => {
  const timers = new FakeTimers()
  const server = new Server()
  const took = [5000, 40, 0, 0]
  const handedOn: number[] = []
  const source = new KubernetesSource({
    api: server,
    clock: { now: () => timers.now(), after: (ms, run) => timers.after(ms, run), random: () => 0.5 },
    nodeName: 'here',
    gatherMs: 0,
    onChanges: ({ complete }) => {
      if (!complete) return
      handedOn.push(timers.now())
      timers.skip(took.shift() ?? 0)
    },
    onBad: () => t.fail('no object is bad'),
    onTrouble: (_kind, error) => t.fail(String(error)),
  })
  t.teardown(() => source.close())
  const next = async (): Promise<void> => {
    const count = handedOn.length
    await waitFor('something to hand on', () => {
      timers.pass(0)
      return handedOn.length > count
    })
  }
  source.start()
  await next()
  server.set('a')
  await next()
  t.same(handedOn, [0, 5000], 'the first change at once')
  server.set('b')
  const due = waitFor('the wait', () => {
    timers.pass(1)
    return handedOn.length > 2
  })
  await due
  t.equal(handedOn[2], 5080, 'the next one after as long as that took')
  timers.pass(1000)
  const at = timers.now()
  server.set('c')
  await next()
  t.equal(handedOn[3], at, 'after a pause at once')
})
