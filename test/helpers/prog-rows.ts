/** Tables of rows for BPF_PROG_RUN: services, then packets one after the other, and what has to become of each. */
import type { Test } from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import type { ConnectionView, Scheduler, ServerSpec } from '../../src/model/types.ts'
import { decode } from './decode.ts'
import { endpoint, real, service, virtual } from './director.ts'
import type { Action, Datapath, Input, Output } from './prog.ts'
import { end } from './prog-flow.ts'

type Tunnel = NonNullable<ServerSpec['tunnel']>

/**
 * A service with its servers: "tcp 10.9.0.1:80", "mark 1", "mark6 1"; a server is "10.2.0.11:8080", with its weight behind
 * a blank if not 1, and then its method if not "masq": "droute", "ipip", "gue" (to port 6080), "gre", the latter two also
 * as "gue+csum", "gue+remcsum".
 */
export interface GivenService {
  readonly at: string
  readonly scheduler?: Scheduler
  readonly persistent?: boolean
  readonly onePacket?: boolean
  readonly servers: readonly string[]
}

export interface Expectation {
  readonly action: Action
  /** The action's own name, where it matters. */
  readonly exactly?: string
  /** What the packet became; left out: it must not have changed in a single byte. */
  readonly packet?: Uint8Array
  /** What it became is another row's to judge. */
  readonly anyPacket?: boolean
  /** Verdicts that this packet was counted under; left out: none. */
  readonly verdicts?: Readonly<Record<string, number>>
  /** All connections afterwards, as "STATE seconds client virtual server". */
  readonly connections?: readonly string[]
  /** "active/inactive" of each server of the first service, in the kernel's order. */
  readonly counts?: readonly string[]
}

export interface Step extends Omit<Input, 'packet'> {
  /** The packet, or how it is made of what the step before made. */
  readonly packet: Uint8Array | ((previous: Uint8Array) => Uint8Array)
  /** How long ago known neighbours were seen to, in ticks; left out: just now. */
  readonly seenTicksAgo?: number
  /** Does something to the table before the packet comes. */
  readonly before?: (datapath: Datapath) => void
  readonly expect: Expectation
}

export interface Row {
  readonly name: string
  readonly services?: readonly GivenService[]
  /** Left out: packets pass by the host's stack where they can. */
  readonly bypass?: 'never' | 'always' | 'auto'
  readonly steps: readonly Step[]
}

const bypassModes = {
  never: LbBypassMode.BYPASS_NEVER,
  always: LbBypassMode.BYPASS_ALWAYS,
  auto: LbBypassMode.BYPASS_AUTO,
} as const

/** The key that "tcp 10.9.0.1:80" or "mark 1" stands for. */
export function keyOf(text: string): ReturnType<typeof virtual> {
  const [protocol, where = ''] = text.split(' ')
  if (protocol === 'mark') return { kind: 'fwmark', family: 4, mark: Number(where) }
  if (protocol === 'mark6') return { kind: 'fwmark', family: 6, mark: Number(where) }
  const { address, port } = end(where)
  return virtual(address, port, protocol === 'udp' || protocol === 'sctp' ? protocol : 'tcp')
}

/** How a server is reached, as rows write it. */
export function methodOf(text: string): Pick<ServerSpec, 'method' | 'tunnel'> {
  if (text === 'masq' || text === 'droute') return { method: text }
  const [type, checksum = 'none'] = text.split('+') as [Tunnel['type'], Tunnel['checksum']?]
  return { method: 'tunnel', tunnel: { type, port: type === 'gue' ? 6080 : 0, checksum } }
}

/** Adds a service and its servers, the first one first. */
export function addService({ table }: Datapath, given: GivenService): void {
  const key = keyOf(given.at)
  const { persistent = false, onePacket = false } = given
  const persistence = { timeoutS: 300, mask: key.family === 4 ? '255.255.255.255' : 128 }
  table.addService({ ...service(key, given.scheduler), onePacket, ...(persistent ? { persistence } : {}) })
  for (const server of given.servers) {
    const [where = '', weight = '1', method = 'masq'] = server.split(' ')
    const { address, port } = end(where)
    table.addServer(key, { ...real(address, port, Number(weight)), ...methodOf(method) })
  }
}

function connectionText({ state, expiresS, client, virtual, server }: ConnectionView): string {
  return [state, expiresS, ...[client, virtual, server].map(endpoint)].join(' ')
}

/** All connections, as rows write them, sorted. */
export function connectionTexts(datapath: Datapath): string[] {
  return Array.from(datapath.table.connections(), connectionText).sort()
}

/** "active/inactive" of a service's servers, in the kernel's order. */
export function countTexts(datapath: Datapath, at: string): string[] {
  const servers = datapath.table.service(keyOf(at))?.servers ?? []
  return servers.map(({ active, inactive }) => `${active}/${inactive}`)
}

/** Compares two packets byte by byte; if they differ, both are shown field by field. */
export function samePacket(t: Test, found: Uint8Array, wanted: Uint8Array, name: string): void {
  if (Buffer.compare(found, wanted) === 0) t.pass(name)
  else t.fail(name, { found: decode(found), wanted: decode(wanted), hex: Buffer.from(found).toString('hex') })
}

function checkStep(t: Test, datapath: Datapath, row: Row, step: Step, input: Uint8Array, output: Output): void {
  const { expect } = step
  t.equal(output.action, expect.action, `the action at ${step.at}`)
  if (expect.exactly !== undefined) t.equal(output.exactly, expect.exactly)
  if (expect.anyPacket !== true)
    samePacket(t, output.packet, expect.packet ?? input, expect.packet === undefined ? 'unchanged' : 'the packet')
  if (expect.connections !== undefined) t.same(connectionTexts(datapath), [...expect.connections].sort(), 'connections')
  const first = row.services?.[0]
  if (expect.counts !== undefined && first !== undefined)
    t.same(countTexts(datapath, first.at), expect.counts, 'counts')
}

function added(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const entries = Object.entries(after).map(([name, count]) => [name, count - (before[name] ?? 0)] as const)
  return Object.fromEntries(entries.filter(([, count]) => count !== 0))
}

/** Runs the rows, each as a test on a table that has nothing but what the row gives. */
export async function testRows(t: Test, datapath: Datapath, rows: readonly Row[]): Promise<void> {
  for (const row of rows) {
    await t.test(row.name, async (t) => {
      datapath.clear()
      datapath.maps.config.setBypass(0, bypassModes[row.bypass ?? 'always'])
      for (const given of row.services ?? []) addService(datapath, given)
      let previous = new Uint8Array(0)
      for (const step of row.steps) {
        step.before?.(datapath)
        const input = typeof step.packet === 'function' ? step.packet(previous) : step.packet
        datapath.settleHops(step.seenTicksAgo)
        const verdicts = datapath.verdicts()
        const output = datapath.run({ ...step, packet: input })
        t.same(added(verdicts, datapath.verdicts()), step.expect.verdicts ?? {}, 'verdicts')
        checkStep(t, datapath, row, step, input, output)
        previous = new Uint8Array(output.packet)
      }
    })
  }
}
