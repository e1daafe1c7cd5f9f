/** New servers of a Service with slow start: their weights over time. */
import t from 'tap'
import { nextStepMs, rampedWeight, SlowStart } from '../../src/kube/slow-start.ts'
import type { KubeVirtualService } from '../../src/kube/virtual-services.ts'
import type { ServerSpec } from '../../src/model/types.ts'

function serverOf(n: number, weight = 1): ServerSpec {
  return { family: 4, address: `10.0.0.${n}`, port: 80, weight, method: 'masq', upper: 0, lower: 0 }
}

const masquerade = { pods: false, node: false, others: false }
const policy = { masquerade, whenEmpty: 'refuse', nodePort: false, foreign: false } as const

function wanted(servers: readonly ServerSpec[], slowStartS?: number): KubeVirtualService {
  const key = { kind: 'address', family: 4, protocol: 'tcp', address: '10.96.0.1', port: 80 } as const
  return {
    service: { key, scheduler: 'wlc', schedulerFlags: [], onePacket: false, policy },
    servers,
    role: 'clusterIP',
    ...(slowStartS === undefined ? {} : { slowStartS }),
  }
}

/** A virtual service as it is wanted from one moment to the next, and what is given for it. */
class Scene {
  readonly slowStart: SlowStart
  nowMs = 1_000_000
  #want: KubeVirtualService | undefined
  #given: KubeVirtualService | undefined

  constructor(inForce: readonly ServerSpec[] = []) {
    this.slowStart = new SlowStart(() => inForce)
  }

  /** `1:10 2:1`: servers and their weights; what is said to change is what does. */
  want(want?: KubeVirtualService): string {
    const dropped = want === undefined || this.#want === undefined ? [] : [this.#want]
    const added = want === undefined ? [] : [want]
    this.#want = want ?? this.#want
    const desired = this.#want === undefined ? [] : [this.#want]
    const result = this.slowStart.apply({ desired, changes: { added, dropped } }, this.nowMs)
    const [given] = result.desired
    if (given !== this.#given) {
      t.same(result.changes.added.at(-1), given)
      t.equal(result.changes.dropped[0], this.#given)
    } else {
      t.same(result.changes, { added: [], dropped: [] })
    }
    this.#given = given
    return given?.servers.map(({ address, weight }) => `${address.slice(7)}:${weight}`).join(' ') ?? ''
  }

  pass(ms: number): string {
    this.nowMs += ms
    return this.want()
  }
}

t.test('a weight rises in ten steps, from a tenth to all of it', async (t) => {
  t.same(
    [-5, 0, 999, 1000, 5000, 8999, 9000, 9999, 1e9].map((ms) => rampedWeight(3, ms, 10)),
    [3, 3, 3, 6, 18, 27, 30, 30, 30],
  )
  t.equal(rampedWeight(0, 0, 10), 0)
  t.same(
    [0, 999, 1000, 8999, 9000, 1e9].map((ms) => nextStepMs(ms, 10)),
    [1000, 1, 1000, 1, undefined, undefined],
  )
})

t.test('a server that comes later has a small share first; those that were there keep theirs', async (t) => {
  const scene = new Scene()
  scene.want(wanted([serverOf(1)], 10))
  t.equal(scene.pass(20_000), '1:10')
  t.equal(scene.slowStart.dueMs(scene.nowMs), undefined)
  t.equal(scene.want(wanted([serverOf(1), serverOf(2, 2)], 10)), '1:10 2:2')
  t.equal(scene.slowStart.dueMs(scene.nowMs), 1000)
  t.equal(scene.pass(400), '1:10 2:2')
  t.equal(scene.slowStart.dueMs(scene.nowMs), 600)
  t.equal(scene.pass(600), '1:10 2:4')
  t.equal(scene.want(wanted([serverOf(2, 2), serverOf(3)], 10)), '2:4 3:1')
  t.equal(scene.pass(8000), '2:20 3:9')
  t.equal(scene.pass(1000), '2:20 3:10')
  t.equal(scene.slowStart.dueMs(scene.nowMs), undefined)
})

t.test('one that was gone begins anew; without the wish for it weights are plain', async (t) => {
  const scene = new Scene()
  scene.want(wanted([serverOf(1), serverOf(2)], 10))
  t.equal(scene.pass(20_000), '1:10 2:10')
  t.equal(scene.want(wanted([serverOf(1)], 10)), '1:10')
  t.equal(scene.want(wanted([serverOf(1), serverOf(2)], 10)), '1:10 2:1')
  t.equal(scene.want(wanted([serverOf(1), serverOf(2)])), '1:1 2:1')
  t.equal(scene.slowStart.dueMs(scene.nowMs), undefined)
})

t.test('servers that an earlier bpvsd left go on from the weights that they have', async (t) => {
  const scene = new Scene([serverOf(1, 10), serverOf(2, 3), serverOf(3, 0)])
  t.equal(scene.want(wanted([serverOf(1), serverOf(2), serverOf(3), serverOf(4)], 10)), '1:10 2:3 3:1 4:1')
  t.equal(scene.pass(1000), '1:10 2:4 3:2 4:2')
})

t.test('servers for clients in the cluster rise too', async (t) => {
  const slowStart = new SlowStart(() => [])
  const want = wanted([], 10)
  const local = { ...want, insiders: [serverOf(1)] }
  const weights = (nowMs: number, added: readonly KubeVirtualService[]): unknown => {
    const { desired } = slowStart.apply({ desired: [local], changes: { added, dropped: [] } }, nowMs)
    return desired[0]?.insiders?.map(({ weight }) => weight)
  }
  t.same(weights(0, [local]), [1])
  t.same(weights(5000, []), [6])
})
