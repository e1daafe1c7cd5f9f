/**
 * What a packet that is nobody's costs elsewhere than at a plain table's ingress: where it leaves the host, with service ranges, with
 * connections that are masqueraded; and one that a server sends, or is sent, of no connection of ours. Beside one look-up in a hash.
 */
import { setImmediate as breathe } from 'node:timers/promises'
import { LbError } from '../../src/model/errors.ts'
import type { Family } from '../../src/model/types.ts'
import type { BenchRun } from '../common/main.ts'
import type { Bar, Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import { limitOf } from './cases.ts'
import { masqueradeAll } from './masquerade.ts'
import { actions } from './measure.ts'
import { buildNetwork, describeNetwork, serverAddress, serverNumbers } from './network.ts'
import type { Plan } from './plan.ts'
import { flowSet, Rig } from './rig.ts'
import { describeServices, FIRST_SERVER_PORT } from './services.ts'

const FLOWS = 1000
const PACKETS = 10_000

/** What the table has beyond services: nothing, connections that were masqueraded, ranges of services' addresses. */
const tables = ['plain', 'masquerade', 'ranges'] as const
type TableKind = (typeof tables)[number]

/** The hooks, with the program that runs, and whether what leaves is the host's own. */
const places = {
  xdp: { program: 'xdp_balance', own: false },
  tcx: { program: 'tc_balance', own: false },
  'egress, forwarded': { program: 'tc_egress', own: false },
  'egress, own': { program: 'tc_egress', own: true },
} as const
type Place = keyof typeof places

/** Whose a packet is: nobody's of ours; for or of a server, but of no connection of ours. */
type Party = 'foreign' | 'to a server' | 'of a server'

interface Row {
  readonly party: Party
  readonly place: Place
  readonly table: TableKind
  readonly family: Family
  readonly samples: number[]
  readonly lookups: number[]
}

/** A packet's cost. Times are nanoseconds, the empty run subtracted; the ratio is the median of the rounds' ratios. */
export interface ForeignResult {
  readonly party: Party
  readonly place: Place
  readonly table: TableKind
  readonly family: Family
  readonly ns: number
  readonly lookupNs: number
  readonly ratio: number
  readonly spread: number
}

/** What differs: an ingress does not ask whether anything was masqueraded, and packets to a server interest egress alone. */
function isSeparate(party: Party, place: Place, table: TableKind): boolean {
  const leaves = places[place].program === 'tc_egress'
  if (party === 'of a server') return !leaves && table === 'plain'
  if (party === 'to a server') return leaves && table !== 'ranges'
  return leaves || table === 'ranges'
}

function listRows(families: readonly Family[]): Row[] {
  const parties: readonly Party[] = ['foreign', 'to a server', 'of a server']
  return families.flatMap((family) =>
    parties.flatMap((party) =>
      (Object.keys(places) as Place[]).flatMap((place) =>
        tables
          .filter((table) => isSeparate(party, place, table))
          .map((table): Row => ({ party, place, table, family, samples: [], lookups: [] })),
      ),
    ),
  )
}

function makePlan({ party, place, family }: Row): Plan {
  const { own } = places[place]
  const flows = { ...flowSet(family, 'fresh', FLOWS, 1), flags: 'ack', own } as const
  if (party === 'of a server') return { ...flows, shape: 'reply' }
  if (party === 'to a server') {
    return { ...flows, vaddr: serverAddress(family, serverNumbers[0]), vport: FIRST_SERVER_PORT, shape: 'foreign' }
  }
  return { ...flows, vaddr: family === 4 ? '10.77.0.1' : 'fd00:77::1', shape: 'foreign' }
}

function sample(rig: Rig, row: Row): void {
  const plan = makePlan(row)
  const { program } = places[row.place]
  const kind = program === 'xdp_balance' ? 'xdp' : 'tc'
  const empty = rig.run(`${kind}_restore${row.family}`, plan, PACKETS).ns
  const lookup = rig.run(`${kind}_lookup${row.family}`, plan, PACKETS).ns
  const { ns, action } = rig.run(`${program}${row.family}`, plan, PACKETS)
  rig.checkVerdicts()
  if (!(actions[kind].pass as readonly number[]).includes(action)) {
    throw new LbError('NATIVE', `${row.party}, ${row.place}, ${row.table}: the last packet got action ${action}`, {
      action,
    })
  }
  row.samples.push(ns - empty)
  row.lookups.push(lookup - empty)
}

function setRanges(rig: Rig, on: boolean): void {
  const ranges = [
    { family: 4, address: '10.96.0.0', length: 16 },
    { family: 6, address: 'fd00:96::', length: 64 },
  ] as const
  rig.table.setServiceRanges(on ? ranges : [], on)
}

/** Measures all in rounds. */
export async function measureForeign(run: BenchRun, quick: boolean): Promise<ForeignResult[]> {
  const families: readonly Family[] = quick ? [4] : [4, 6]
  const roles = ['director-foreign', 'director-leaving'] as const
  const topology = describeNetwork(roles)
  run.cleanup.add(() => topology.close())
  await buildNetwork(topology, roles)
  const [plain, masquerade] = roles.map((role) => {
    const services = describeServices(families, 1)
    const table =
      role === 'director-foreign'
        ? services
        : services.map(({ service, servers }) => ({ service: { ...service, policy: masqueradeAll }, servers }))
    const open = families.map((family) => flowSet(family, 'one', 16, 1))
    const rig = new Rig(topology, { role, services: 1, flows: 1, stack: false, families, table, open })
    run.cleanup.add(() => rig.close())
    return rig
  })
  if (plain === undefined || masquerade === undefined) throw new RangeError('no table')
  const rows = listRows(families)
  const rounds = run.options.rounds ?? (quick ? 3 : 15)
  for (let round = 0; round < rounds; round++) {
    run.say(`foreign packets: round ${round + 1} of ${rounds}`)
    for (const row of rows) {
      await breathe() /* an interrupt is heard only between runs */
      setRanges(plain, row.table === 'ranges')
      sample(row.table === 'masquerade' ? masquerade : plain, row)
    }
  }
  return rows.map(summarize)
}

function summarize({ samples, lookups, ...row }: Row): ForeignResult {
  const ratios = samples.map((ns, i) => ns / (lookups[i] ?? Number.NaN))
  return { ...row, ns: median(samples), lookupNs: median(lookups), ratio: median(ratios), spread: spread(ratios) }
}

/** The bar that a packet of nobody's has to meet, wherever it is. */
export function foreignBar({ party, place, table, family, ratio }: ForeignResult): Bar[] {
  const limit = limitOf('foreign', 'tcx')
  if (party !== 'foreign' || limit === undefined) return []
  return [{ what: `foreign, ${place}, IPv${family}, table ${table}: against floor "lookup"`, ratio, limit }]
}

/** A result as a line of JSON. */
export function foreignLine({ party, place, table, family, ...values }: ForeignResult): Line {
  const rounded = Object.entries(values).map(([name, value]) => [name, Math.round(value * 1000) / 1000])
  return { bench: 'packet', case: party, hook: place, table, family, ...Object.fromEntries(rounded) }
}

export const foreignHead = ['packet', 'hook', 'table', 'IP', 'ns', 'lookup ns', 'ratio', '+-']

/** A result as a row of the table. */
export function foreignRow({ party, place, table, family, ns, lookupNs, ratio, spread }: ForeignResult): string[] {
  return [party, place, table, String(family), ns.toFixed(1), lookupNs.toFixed(1), ratio.toFixed(2), spread.toFixed(2)]
}
