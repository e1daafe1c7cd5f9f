/** What a new connection costs with each scheduler and number of servers; and a packet of an open one, beside round robin's. */
import { setImmediate as breathe } from 'node:timers/promises'
import type { DesiredService } from '../../src/engine/table.ts'
import type { Scheduler } from '../../src/model/types.ts'
import { schedulers } from '../../src/model/types.ts'
import type { BenchRun } from '../common/main.ts'
import type { Bar, Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import { buildNetwork, describeNetwork, serverAddress, serverNumbers } from './network.ts'
import type { Plan } from './plan.ts'
import { flowSet, Rig } from './rig.ts'
import { SERVICE_PORT, serviceAddress } from './services.ts'

/** A scheduler's cost. Times are nanoseconds per packet, the empty run subtracted. */
export interface SchedulerResult {
  readonly scheduler: Scheduler
  readonly servers: number
  readonly ns: number
  readonly spread: number
  /** A packet of an open connection against the same with rr: the median of the rounds' ratios. */
  readonly established: number
}

const sizes = [3, 100, 4096] as const
/** SYNs of a timed run: fewer where each is dear. */
const fresh = { 3: 2000, 100: 2000, 4096: 500 } as const
const FIRST_PORT = 10_000
/** Connections that are open to each service, and packets of a timed run over them. */
const OPEN = 16
const PACKETS = 10_000
/** How many times the cost of a packet with rr that with another scheduler may be: nothing about it is the scheduler's. */
const LIMIT = 1.1

interface Row {
  readonly scheduler: Scheduler
  readonly servers: (typeof sizes)[number]
  readonly vaddr: string
  /** Whose connections are open: a client with many services would look for them in another way. */
  readonly client: string
  readonly samples: number[]
  readonly established: number[]
}

function listRows(): Row[] {
  return schedulers.flatMap((scheduler, i) =>
    sizes.map((servers, k) => ({
      scheduler,
      servers,
      vaddr: serviceAddress(4, i * sizes.length + k),
      client: `10.1.32.${1 + i * sizes.length + k}`,
      samples: [],
      established: [],
    })),
  )
}

/** ovf refuses connections beyond a server's weight; to the others weights that are all the same are no matter. */
function describeService({ scheduler, servers, vaddr }: Row): DesiredService {
  return {
    service: {
      key: { kind: 'address', family: 4, protocol: 'tcp', address: vaddr, port: SERVICE_PORT },
      scheduler,
      schedulerFlags: [],
      onePacket: false,
    },
    servers: Array.from({ length: servers }, (_, n) => ({
      family: 4,
      address: serverAddress(4, serverNumbers[n % serverNumbers.length] ?? serverNumbers[0]),
      port: FIRST_PORT + n,
      weight: scheduler === 'ovf' ? 1_000_000 : 1,
      method: 'masq',
      upper: 0,
      lower: 0,
    })),
  }
}

function sample(rig: Rig, { servers, vaddr }: Row): number {
  const plan: Plan = { ...flowSet(4, 'fresh', 1 << 30, 1), vaddr, shape: 'request', flags: 'syn' }
  const empty = rig.run('xdp_restore4', plan, fresh[servers]).ns
  const { ns } = rig.run('xdp_balance4', plan, fresh[servers])
  rig.resetConnections(fresh[servers])
  rig.checkVerdicts()
  return ns - empty
}

function openFlows({ vaddr, client }: Row) {
  return { ...flowSet(4, 'one', OPEN, 1), vaddr, client }
}

function sampleEstablished(rig: Rig, row: Row): number {
  const plan: Plan = { ...openFlows(row), shape: 'request', flags: 'ack' }
  const empty = rig.run('xdp_restore4', plan, PACKETS).ns
  const { ns } = rig.run('xdp_balance4', plan, PACKETS)
  rig.checkVerdicts()
  return ns - empty
}

/** Measures all schedulers in rounds. */
export async function measureSchedulers(
  { cleanup, say, options }: BenchRun,
  quick: boolean,
): Promise<SchedulerResult[]> {
  const role = 'director-schedulers'
  const topology = describeNetwork([role])
  cleanup.add(() => topology.close())
  await buildNetwork(topology, [role])
  const rows = listRows()
  const table = rows.map(describeService)
  const rig = new Rig(topology, {
    role,
    services: 1,
    flows: 1,
    stack: false,
    families: [4],
    table,
    open: rows.map(openFlows),
  })
  cleanup.add(() => rig.close())
  const rounds = options.rounds ?? (quick ? 2 : 5)
  for (let round = 0; round < rounds; round++) {
    say(`schedulers: round ${round + 1} of ${rounds}`)
    for (const row of rows) {
      await breathe() /* an interrupt is heard only between runs */
      row.samples.push(sample(rig, row))
      row.established.push(sampleEstablished(rig, row))
    }
  }
  const rr = rows[0]?.established ?? []
  return rows.map(({ scheduler, servers, samples, established }) => ({
    scheduler,
    servers,
    ns: median(samples),
    spread: spread(samples),
    established: median(established.map((ns, i) => ns / (rr[i] ?? Number.NaN))),
  }))
}

/** The bar that a scheduler has to meet. */
export function schedulerBar({ scheduler, servers, established }: SchedulerResult): Bar {
  return {
    what: `established, xdp, IPv4, ${scheduler}, ${servers} servers: against rr`,
    ratio: established,
    limit: LIMIT,
  }
}

/** A result as a line of JSON. */
export function schedulerLine({ scheduler, servers, ns, spread, established }: SchedulerResult): Line {
  return {
    bench: 'packet',
    case: 'scheduler',
    scheduler,
    servers,
    ns: Math.round(ns),
    spread: Math.round(spread * 1000) / 1000,
    established: Math.round(established * 1000) / 1000,
  }
}

export const schedulerHead = ['scheduler', 'servers', 'ns', '+-', 'established']

/** A result as a row of the table. */
export function schedulerRow({ scheduler, servers, ns, spread, established }: SchedulerResult): string[] {
  return [scheduler, String(servers), ns.toFixed(0), spread.toFixed(2), established.toFixed(2)]
}
