/** What a masqueraded connection costs beside one of NAT: its client's packets, its server's, and a new one. */
import { setImmediate as breathe } from 'node:timers/promises'
import type { DesiredService } from '../../src/engine/table.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Family, ServicePolicy } from '../../src/model/types.ts'
import type { BenchRun } from '../common/main.ts'
import type { Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import { actions } from './measure.ts'
import { buildNetwork, describeNetwork, directorAddress, serverAddress, serverNumbers } from './network.ts'
import { FIRST_PORT, type Plan } from './plan.ts'
import { flowSet, Rig } from './rig.ts'
import { FIRST_SERVER_PORT, SERVICE_PORT, serviceAddress } from './services.ts'

/**
 * Connections that are open to each service. As many ports as a new connection tries at most, so that all of a range are taken: it
 * is then known which ports the server answers to.
 */
const OPEN = 64
const PACKETS = 10_000
const FRESH = 2000
const TRIES = 4
const narrowPorts = { first: FIRST_PORT, last: FIRST_PORT + OPEN - 1 }
/** Room for the new ones, as a host with the usual settings has it. */
const widePorts = { first: narrowPorts.last + 1, last: 29_999 }

const shapes = ['established', 'reply', 'new'] as const
type Shape = (typeof shapes)[number]
const hooks = ['xdp', 'tcx'] as const
type Hook = (typeof hooks)[number]

/** All connections. */
export const masqueradeAll: ServicePolicy = {
  masquerade: { pods: true, node: true, others: true },
  whenEmpty: 'refuse',
  nodePort: false,
  foreign: false,
}

/** The NAT service, or the one whose connections are masqueraded. */
interface Target {
  readonly family: Family
  readonly masquerade: boolean
}

interface Row {
  readonly shape: Shape
  readonly hook: Hook
  readonly family: Family
  readonly samples: number[]
  readonly nat: number[]
}

/** A masqueraded connection's packet. Times are nanoseconds, the empty run subtracted; the ratio is the median of the rounds' ratios. */
export interface MasqueradeResult {
  readonly shape: Shape
  readonly hook: Hook
  readonly family: Family
  readonly ns: number
  readonly natNs: number
  readonly ratio: number
  readonly spread: number
}

function listRows(families: readonly Family[]): Row[] {
  return hooks.flatMap((hook) =>
    families.flatMap((family) => shapes.map((shape) => ({ shape, hook, family, samples: [], nat: [] }))),
  )
}

function targets(families: readonly Family[]): Target[] {
  return families.flatMap((family) => [false, true].map((masquerade) => ({ family, masquerade })))
}

function serverPort({ masquerade }: Target): number {
  return FIRST_SERVER_PORT + (masquerade ? 1 : 0)
}

function address({ family, masquerade }: Target): string {
  return serviceAddress(family, masquerade ? 1 : 0)
}

function describeService(target: Target): DesiredService {
  const { family, masquerade } = target
  return {
    service: {
      key: { kind: 'address', family, protocol: 'tcp', address: address(target), port: SERVICE_PORT },
      scheduler: 'rr',
      schedulerFlags: [],
      onePacket: false,
      ...(masquerade ? { policy: masqueradeAll } : {}),
    },
    servers: [
      {
        family,
        address: serverAddress(family, serverNumbers[0]),
        port: serverPort(target),
        weight: 1,
        method: 'masq',
        upper: 0,
        lower: 0,
      },
    ],
  }
}

function openFlows(target: Target) {
  return { ...flowSet(target.family, 'one', OPEN, 1), vaddr: address(target), sport: serverPort(target) }
}

/** The server of a masqueraded connection answers to the director. */
function makePlan(shape: Shape, target: Target): Plan {
  const flows = openFlows(target)
  if (shape === 'new') {
    return {
      ...flows,
      client: flowSet(target.family, 'fresh', 1, 1).client,
      flows: 1 << 30,
      shape: 'request',
      flags: 'syn',
    }
  }
  if (shape === 'established') return { ...flows, shape: 'request', flags: 'ack' }
  const client = target.masquerade ? directorAddress(target.family) : flows.client
  return { ...flows, client, shape: 'reply', flags: 'ack' }
}

function sample(rig: Rig, { shape, hook, family }: Row, masquerade: boolean): number {
  const plan = makePlan(shape, { family, masquerade })
  const [kind, sent] = hook === 'xdp' ? (['xdp', actions.xdp.send] as const) : (['tc', actions.tc.send] as const)
  const repeat = shape === 'new' ? FRESH : PACKETS
  for (let i = 0; ; i++) {
    const empty = rig.run(`${kind}_restore${family}`, plan, repeat).ns
    const { ns, action } = rig.run(`${kind}_balance${family}`, plan, repeat)
    if (shape === 'new') rig.resetConnections(2 * FRESH)
    rig.checkVerdicts()
    if ((sent as readonly number[]).includes(action)) return ns - empty
    if (i === TRIES) {
      const what = `${masquerade ? 'masqueraded' : 'NAT'}, ${shape}, ${hook}, IPv${family}`
      throw new LbError('NATIVE', `${what}: the last packet got action ${action}`, { action })
    }
  }
}

/** Measures all in rounds, NAT in turn before and after. */
export async function measureMasquerade(run: BenchRun, quick: boolean): Promise<MasqueradeResult[]> {
  const role = 'director-masquerade'
  const families: readonly Family[] = quick ? [4] : [4, 6]
  const topology = describeNetwork([role])
  run.cleanup.add(() => topology.close())
  await buildNetwork(topology, [role])
  const all = targets(families)
  const tables = { table: all.map(describeService), open: all.map(openFlows), masqueradePorts: narrowPorts }
  const rig = new Rig(topology, { role, services: 1, flows: OPEN, stack: false, families, ...tables })
  run.cleanup.add(() => rig.close())
  rig.table.changeSettings({ masqueradePorts: widePorts })
  const rows = listRows(families)
  const rounds = run.options.rounds ?? (quick ? 3 : 15)
  for (let round = 0; round < rounds; round++) {
    run.say(`masqueraded connections: round ${round + 1} of ${rounds}`)
    for (const row of rows) {
      await breathe() /* an interrupt is heard only between runs */
      const natFirst = round % 2 === 0
      if (natFirst) row.nat.push(sample(rig, row, false))
      row.samples.push(sample(rig, row, true))
      if (!natFirst) row.nat.push(sample(rig, row, false))
    }
  }
  return rows.map(summarize)
}

function summarize({ shape, hook, family, samples, nat }: Row): MasqueradeResult {
  const ratios = samples.map((ns, i) => ns / (nat[i] ?? Number.NaN))
  return { shape, hook, family, ns: median(samples), natNs: median(nat), ratio: median(ratios), spread: spread(ratios) }
}

/** A result as a line of JSON. */
export function masqueradeLine({ shape, hook, family, ...values }: MasqueradeResult): Line {
  const rounded = Object.entries(values).map(([name, value]) => [name, Math.round(value * 1000) / 1000])
  return { bench: 'packet', case: `masqueraded ${shape}`, hook, family, ...Object.fromEntries(rounded) }
}

export const masqueradeHead = ['masqueraded', 'hook', 'IP', 'ns', 'nat ns', '/nat', '+-']

/** A result as a row of the table. */
export function masqueradeRow({ shape, hook, family, ns, natNs, ratio, spread }: MasqueradeResult): string[] {
  return [shape, hook, String(family), ns.toFixed(1), natNs.toFixed(1), ratio.toFixed(2), spread.toFixed(2)]
}
