/** What the director does for an open connection with each forwarding method, beside NAT: a packet, and a packet with its answer. */
import { setImmediate as breathe } from 'node:timers/promises'
import type { DesiredService } from '../../src/engine/table.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Family, ServerSpec } from '../../src/model/types.ts'
import type { BenchRun } from '../common/main.ts'
import type { Bar, Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import { buildNetwork, describeNetwork, serverAddress, serverNumbers } from './network.ts'
import { PACKET } from './plan.ts'
import { flowSet, Rig } from './rig.ts'
import { FIRST_SERVER_PORT, SERVICE_PORT, serviceAddress } from './services.ts'

/** XDP_TX, XDP_REDIRECT. */
const SENT: readonly number[] = [3, 4]
/** How many times what NAT costs for a packet and its answer a method may cost, whose answers do not come by. */
const LIMIT = 1
const TRIES = 4

type Tunnel = NonNullable<ServerSpec['tunnel']>

interface Method {
  readonly name: string
  readonly method: ServerSpec['method']
  readonly tunnel?: Tunnel
  /** Bytes that it puts around a packet, but for the outer IP header. */
  readonly room: number
}

const GUE_PORT = 6080
const methods: readonly Method[] = [
  { name: 'nat', method: 'masq', room: 0 },
  { name: 'direct routing', method: 'droute', room: 0 },
  { name: 'ipip', method: 'tunnel', tunnel: { type: 'ipip', port: 0, checksum: 'none' }, room: 0 },
  { name: 'gue', method: 'tunnel', tunnel: { type: 'gue', port: GUE_PORT, checksum: 'none' }, room: 12 },
  { name: 'gre', method: 'tunnel', tunnel: { type: 'gre', port: 0, checksum: 'none' }, room: 4 },
]

interface Row {
  readonly method: Method
  readonly family: Family
  readonly vaddr: string
  readonly samples: number[]
  /** Of answers, which only come by with NAT. */
  readonly replies: number[]
}

/** A method's cost. Times are nanoseconds per packet, the empty run subtracted; ratios are medians of the rounds' ratios. */
export interface MethodResult {
  readonly method: string
  readonly family: Family
  readonly ns: number
  readonly spread: number
  /** A packet against one with NAT. */
  readonly ratio: number
  /** A packet and its answer, if that comes by, against both with NAT. */
  readonly exchange: number
}

function listRows(): Row[] {
  return ([4, 6] as const).flatMap((family) =>
    methods.map((method, i) => ({ method, family, vaddr: serviceAddress(family, i), samples: [], replies: [] })),
  )
}

function describeService({ method, family, vaddr }: Row): DesiredService {
  const { tunnel } = method
  return {
    service: {
      key: { kind: 'address', family, protocol: 'tcp', address: vaddr, port: SERVICE_PORT },
      scheduler: 'rr',
      schedulerFlags: [],
      onePacket: false,
    },
    servers: [
      {
        family,
        address: serverAddress(family, serverNumbers[0]),
        port: method.method === 'masq' ? FIRST_SERVER_PORT : SERVICE_PORT,
        weight: 1,
        method: method.method,
        upper: 0,
        lower: 0,
        ...(tunnel === undefined ? {} : { tunnel }),
      },
    ],
  }
}

function flowsOf({ family, vaddr }: Row, flows: number) {
  return { ...flowSet(family, 'one', flows, 1), vaddr }
}

/** Bytes that the packet must have grown by. */
function growth({ method: { method, room }, family }: Row): number {
  return method === 'tunnel' ? room + (family === 4 ? 20 : 40) : 0
}

function sample(rig: Rig, row: Row, shape: 'request' | 'reply', flows: number): number {
  const plan = { ...flowsOf(row, flows), shape, flags: 'ack' } as const
  const repeat = 10 * flows
  for (let i = 0; ; i++) {
    const empty = rig.run(`xdp_restore${row.family}`, plan, repeat).ns
    const { ns, action, packet } = rig.run(`xdp_balance${row.family}`, plan, repeat)
    rig.checkVerdicts()
    if (SENT.includes(action) && packet.length === PACKET + growth(row)) return ns - empty
    if (i === TRIES) throw new LbError('NATIVE', `${row.method.name}: the last packet got action ${action}`, { action })
  }
}

/** Measures all methods in rounds. */
export async function measureMethods({ cleanup, say, options }: BenchRun, quick: boolean): Promise<MethodResult[]> {
  const role = 'director-methods'
  const topology = describeNetwork([role])
  cleanup.add(() => topology.close())
  await buildNetwork(topology, [role])
  const rows = listRows()
  const flows = quick ? 100 : 1000
  const open = rows.map((row) => flowsOf(row, flows))
  const table = rows.map(describeService)
  const rig = new Rig(topology, { role, services: 1, flows, stack: false, families: [4, 6], table, open })
  cleanup.add(() => rig.close())
  const rounds = options.rounds ?? (quick ? 3 : 15)
  for (let round = 0; round < rounds; round++) {
    say(`methods: round ${round + 1} of ${rounds}`)
    for (const row of rows) {
      await breathe() /* an interrupt is heard only between runs */
      row.samples.push(sample(rig, row, 'request', flows))
      if (row.method.method === 'masq') row.replies.push(sample(rig, row, 'reply', flows))
    }
  }
  return rows.map((row) => summarize(row, rows))
}

function summarize({ method, family, samples }: Row, rows: readonly Row[]): MethodResult {
  const nat = rows.find((one) => one.family === family && one.method.method === 'masq')
  const request = (i: number): number => nat?.samples[i] ?? Number.NaN
  const both = (i: number): number => request(i) + (nat?.replies[i] ?? Number.NaN)
  const ratios = samples.map((ns, i) => ns / request(i))
  return {
    method: method.name,
    family,
    ns: median(samples),
    spread: spread(ratios),
    ratio: median(ratios),
    exchange: method.method === 'masq' ? 1 : median(samples.map((ns, i) => ns / both(i))),
  }
}

/** A result as a line of JSON. */
export function methodLine({ method, family, ns, spread, ratio, exchange }: MethodResult): Line {
  const rounded = (value: number): number => Math.round(value * 1000) / 1000
  return {
    bench: 'packet',
    case: 'method',
    method,
    family,
    ns: rounded(ns),
    ratio: rounded(ratio),
    exchange: rounded(exchange),
    spread: rounded(spread),
  }
}

export const methodHead = ['method', 'IP', 'ns', '/nat', '+-', 'with the answer']

/** A result as a row of the table. */
export function methodRow({ method, family, ns, spread, ratio, exchange }: MethodResult): string[] {
  return [method, String(family), ns.toFixed(1), ratio.toFixed(2), spread.toFixed(2), exchange.toFixed(2)]
}

/** The bar that a method has to meet. */
export function methodBar({ method, family, exchange }: MethodResult): Bar[] {
  return method === 'nat'
    ? []
    : [{ what: `a packet and its answer, xdp, IPv${family}, ${method}: against NAT`, ratio: exchange, limit: LIMIT }]
}
