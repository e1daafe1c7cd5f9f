/** Timed runs: the balancer, its floor and the empty run of one case, one after the other, and what must be true of them. */
import { LbError } from '../../src/model/errors.ts'
import type { Case, Floor, Scale } from './cases.ts'
import { floorOf } from './cases.ts'
import type { Plan } from './plan.ts'
import { flowSet, type Rig, type Timing } from './rig.ts'
import { SERVICE_PORT } from './services.ts'

/** Nanoseconds per packet in one round, the empty run subtracted. */
export interface Sample {
  readonly ns: number
  readonly floorNs: number
  /** The empty run: writing the packet. */
  readonly restoreNs: number
}

const NOT_A_SERVICE = SERVICE_PORT + 1
/** XDP_PASS; TC_ACT_UNSPEC. XDP_TX and XDP_REDIRECT; TC_ACT_REDIRECT. */
export const actions = { xdp: { pass: [2], send: [3, 4] }, tc: { pass: [-1], send: [7] } } as const
/** The kernel's neighbour code gets a packet of each hop once a second: XDP passes it. Then the run is repeated. */
const TRIES = 4

function makePlan(one: Case): Plan {
  const { name, family, flows, over } = one
  if (name === 'new') return { ...flowSet(family, 'fresh', 1 << 30, over), shape: 'request', flags: 'syn' }
  const set = flowSet(family, over === 1 ? 'one' : 'spread', flows, over)
  if (name === 'foreign') return { ...set, vport: NOT_A_SERVICE, shape: 'foreign', flags: 'ack' }
  return { ...set, shape: name === 'reply' ? 'reply' : 'request', flags: 'ack' }
}

function programOf(one: Case, what: Floor | 'balance' | 'restore'): string {
  if (one.hook === 'xdp') return `xdp_${what}${one.family}`
  const egress = one.hook === 'stack' && one.name === 'reply' && what === 'balance'
  return `tc_${egress ? 'egress' : what}${one.family}`
}

/** Whether a packet still has the VIP as its destination (of a reply: has it as its source). */
function hasVip(packet: Uint8Array, plan: Plan): boolean {
  const view = new DataView(packet.buffer, packet.byteOffset)
  const l4 = plan.family === 4 ? 34 : 54
  const reply = plan.shape === 'reply'
  return view.getUint16(reply ? l4 : l4 + 2) === plan.vport
}

function isRight(one: Case, plan: Plan, { action, packet }: Timing): boolean {
  const kind = one.hook === 'xdp' ? actions.xdp : actions.tc
  const passes = one.name === 'foreign' || one.hook === 'stack'
  const expected: readonly number[] = passes ? kind.pass : kind.send
  return expected.includes(action) && hasVip(packet, plan) === (one.name === 'foreign' || one.name === 'reply')
}

/** Measures a case in its rig. */
export class Measurement {
  readonly case: Case
  readonly #rig: Rig
  readonly #plan: Plan
  /** The floors know requests only. */
  readonly #floorPlan: Plan
  readonly #repeat: number
  readonly #warm: number

  constructor(one: Case, rig: Rig, scale: Scale) {
    this.case = one
    this.#rig = rig
    this.#plan = makePlan(one)
    this.#floorPlan = makePlan(one.name === 'reply' ? { ...one, name: 'established' } : one)
    this.#repeat = one.name === 'new' ? scale.fresh : Math.max(scale.repeat, one.flows)
    this.#warm = one.name === 'new' ? 0 : Math.max(Math.floor(scale.repeat / 10), one.flows)
  }

  /** One round; `turn` says with which of the three it begins. NATIVE if the balancer did something else than it must. */
  sample(turn: number): Sample {
    const runs = [() => this.#restore(), () => this.#floor(floorOf(this.case.name)), () => this.#balance()]
    const results = [0, 0, 0]
    for (let i = 0; i < runs.length; i++) {
      const at = (turn + i) % runs.length
      results[at] = runs[at]?.() ?? 0
    }
    const [restoreNs = 0, floorNs = 0, ns = 0] = results
    return { ns: ns - restoreNs, floorNs: floorNs - restoreNs, restoreNs }
  }

  /** One round of some floors alone, in nanoseconds. */
  sampleFloors<F extends Floor>(floors: readonly F[]): Record<F, number> {
    const restoreNs = this.#restore()
    return Object.fromEntries(floors.map((floor) => [floor, this.#floor(floor) - restoreNs])) as Record<F, number>
  }

  #restore(): number {
    return this.#timed('restore').ns
  }

  #floor(floor: Floor): number {
    const { ns, action } = this.#timed(floor, this.#floorPlan)
    if (floor === 'insert') this.#rig.deleteInserted(this.#floorPlan, this.#repeat)
    const sent: readonly number[] = this.case.hook === 'xdp' ? actions.xdp.send : actions.tc.send
    if (!sent.includes(action)) throw new LbError('NATIVE', `${this.#describe()}: floor ${floor} has failed`)
    return ns
  }

  #balance(): number {
    for (let i = 0; i < TRIES; i++) {
      const timing = this.#timed('balance')
      if (this.case.name === 'new') this.#rig.resetConnections(this.#repeat)
      this.#rig.checkVerdicts()
      if (isRight(this.case, this.#plan, timing)) return timing.ns
      if (i === TRIES - 1) throw this.#wrong(timing)
    }
    throw new RangeError('no try at all')
  }

  #timed(what: Floor | 'balance' | 'restore', plan = this.#plan): Timing {
    const program = programOf(this.case, what)
    if (this.#warm > 0) this.#rig.run(program, plan, this.#warm)
    return this.#rig.run(program, plan, this.#repeat)
  }

  #describe(): string {
    const { name, hook, family, services, flows } = this.case
    return `${name}, ${hook}, IPv${family}, ${services} services, ${flows} flows`
  }

  #wrong({ action, packet }: Timing): LbError {
    const hex = Buffer.from(packet).toString('hex')
    return new LbError('NATIVE', `${this.#describe()}: the last packet got action ${action}: ${hex}`, { action })
  }
}
