/** What a new connection costs with each scheduler and number of servers. */
import { setImmediate as breathe } from 'node:timers/promises'
import type { DesiredService } from '../../src/engine/table.ts'
import type { Scheduler } from '../../src/model/types.ts'
import { schedulers } from '../../src/model/types.ts'
import type { BenchRun } from '../common/main.ts'
import type { Line } from '../common/report.ts'
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
}

const sizes = [3, 100, 4096] as const
/** SYNs of a timed run: fewer where each is dear. */
const fresh = { 3: 2000, 100: 2000, 4096: 500 } as const
const FIRST_PORT = 10_000

interface Row {
  readonly scheduler: Scheduler
  readonly servers: (typeof sizes)[number]
  readonly vaddr: string
  readonly samples: number[]
}

function listRows(): Row[] {
  return schedulers.flatMap((scheduler, i) =>
    sizes.map((servers, k) => ({
      scheduler,
      servers,
      vaddr: serviceAddress(4, i * sizes.length + k),
      samples: [],
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
  const rig = new Rig(topology, { role, services: 1, flows: 1, stack: false, families: [4], table })
  cleanup.add(() => rig.close())
  const rounds = options.rounds ?? (quick ? 2 : 5)
  for (let round = 0; round < rounds; round++) {
    say(`schedulers: round ${round + 1} of ${rounds}`)
    for (const row of rows) {
      await breathe() /* an interrupt is heard only between runs */
      row.samples.push(sample(rig, row))
    }
  }
  return rows.map(({ scheduler, servers, samples }) => {
    return { scheduler, servers, ns: median(samples), spread: spread(samples) }
  })
}

/** A result as a line of JSON. */
export function schedulerLine({ scheduler, servers, ns, spread }: SchedulerResult): Line {
  return {
    bench: 'packet',
    case: 'scheduler',
    scheduler,
    servers,
    ns: Math.round(ns),
    spread: Math.round(spread * 1000) / 1000,
  }
}

export const schedulerHead = ['scheduler', 'servers', 'ns', '+-']

/** A result as a row of the table. */
export function schedulerRow({ scheduler, servers, ns, spread }: SchedulerResult): string[] {
  return [scheduler, String(servers), ns.toFixed(0), spread.toFixed(2)]
}
