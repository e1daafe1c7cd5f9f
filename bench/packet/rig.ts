/** A table of its own in a namespace of its own, with services, open connections, and the bench's programs on it. */
import { LbBypassMode, LbConfigArray, LbConnArray, LbConnPoolArray, type MapName } from '../../src/abi/generated.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import type { Topology } from '../../src/lab/topology.ts'
import { readVerdicts } from '../../src/maps/verdicts.ts'
import { LbError } from '../../src/model/errors.ts'
import type { PortRange } from '../../src/model/masquerade-ports.ts'
import type { Family } from '../../src/model/types.ts'
import type { TableHandles } from '../../src/native/handles.ts'
import { listInterfaces } from '../../src/native/interfaces.ts'
import { openTable, unloadTable } from '../../src/native/loader.ts'
import { mapPin } from '../../src/native/pins.ts'
import { runProgram } from '../../src/native/run.ts'
import { closeFd, openPin } from '../../src/native/shim.ts'
import type { TableSizes } from '../../src/native/sizes.ts'
import { deleteEntries, readEntry, updateEntries, updateEntry } from './map-calls.ts'
import { serverAddress, serverNumbers } from './network.ts'
import { type BenchObject, loadBench } from './object.ts'
import {
  decodeAction,
  encodePlan,
  FLOOR_VALUE,
  type Flows,
  floorConnections,
  floorKeys,
  floorServers,
  type Plan,
  PACKET,
} from './plan.ts'
import { describeServices, FIRST_SERVER_PORT, SERVICE_PORT, serviceAddress } from './services.ts'

/** Bytes that the kernel's own clock does not count: a call's way there and back, in nanoseconds. */
const CALL_NS = 20_000

/** The same for all rigs, so that tables differ in their content alone. */
const sizes: TableSizes = { services: 262144, servers: 131072, cells: 524288, connections: 524288 }

export interface RigOptions {
  /** The namespace. */
  readonly role: string
  /** Services of each family. */
  readonly services: number
  /** Flows that are open, over one service, and again over all. */
  readonly flows: number
  /** Packets go up the stack in place of straight out. */
  readonly stack: boolean
  readonly families: readonly Family[]
  /** What the table holds in place of so many services with round robin. */
  readonly table?: readonly DesiredService[]
  /** The flows that are open, in place of those two sets. */
  readonly open?: readonly Flows[]
  /** What masqueraded connections are sent from, in place of what a table begins with. */
  readonly masqueradePorts?: PortRange
}

/** How one timed run went. */
export interface Timing {
  /** Per packet. */
  readonly ns: number
  /** What the last packet's program returned (XDP_*, TC_ACT_*). */
  readonly action: number
  readonly packet: Uint8Array
}

type Direction = 'request' | 'reply'

/** A set of flows by what it is for; sets have clients of their own. */
export function flowSet(family: Family, set: 'one' | 'spread' | 'fresh', flows: number, over: number): Flows {
  const ipv4 = { one: '10.1.0.1', spread: '10.1.32.1', fresh: '10.1.64.1' } as const
  const ipv6 = { one: 'fd00:1::1', spread: 'fd00:1::2001', fresh: 'fd00:1::4001' } as const
  return {
    family,
    client: family === 4 ? ipv4[set] : ipv6[set],
    vaddr: serviceAddress(family, 0),
    vport: SERVICE_PORT,
    server: serverAddress(family, serverNumbers[0]),
    sport: FIRST_SERVER_PORT,
    flows,
    over,
  }
}

function emptyPacket(family: Family): Uint8Array {
  const packet = new Uint8Array(PACKET).fill(2, 0, 12)
  packet.set(family === 4 ? [0x08, 0x00] : [0x86, 0xdd], 12)
  return packet
}

/** Whether the packet ends in the table's own programs, whose action is the run's result; others note theirs. */
function isBalancer(program: string): boolean {
  return /_(?:balance|egress)\d$/.test(program)
}

/** struct xdp_md or struct __sk_buff, as far as a packet of an interface fills it; `own`: it came by none. */
function context(program: string, ifindex: number, own: boolean): Uint8Array {
  const words = program.startsWith('xdp_')
    ? [0, PACKET, 0, ifindex, 0, 0]
    : [0, 0, 0, 0, 0, 0, 0, 0, 0, own ? 0 : ifindex, ifindex]
  const bytes = new Uint8Array(program.startsWith('xdp_') ? 24 : 256) /* the kernel wants room for all it may return */
  bytes.set(new Uint8Array(Uint32Array.from(words).buffer))
  return bytes
}

const KEY = new Uint8Array(4)
/** What new connections change, but for the entries themselves. */
const changing = [
  'lb_conn_index',
  'lb_conn_pools',
  'lb_server_states',
  'lb_service_states',
  'lb_memos',
  'lb_memo_lines',
  'lb_memo_pool',
] as const satisfies readonly MapName[]

export class Rig {
  readonly options: RigOptions
  readonly table: KernelTable
  readonly #topology: Topology
  readonly #handles: TableHandles
  readonly #object: BenchObject
  readonly #ifindex: Readonly<Record<Direction, number>>
  readonly #saved: ReadonlyMap<MapName, Uint8Array>
  readonly #verdicts: string

  /** Makes the table, its services and connections, and what the floors need. */
  constructor(topology: Topology, options: RigOptions) {
    this.#topology = topology
    this.options = options
    this.#handles = topology.within(options.role, () =>
      openTable({ sizes, policy: { include: [], exclude: [], xdp: 'off' } }),
    )
    this.table = new KernelTable(this.#handles)
    this.#writeTable()
    this.#object = topology.within(options.role, () => {
      return loadBench(this.#handles.dir, (program) => this.#wants(program))
    })
    this.#ifindex = this.#findInterfaces()
    for (const flows of options.open ?? this.#openSets()) this.#openFlows(flows)
    this.#verdicts = this.verdicts()
    this.#saved = new Map(
      changing.map((name) => {
        return [name, Uint8Array.from(new Uint8Array(this.#handles.buffer(name)))]
      }),
    )
  }

  /** Runs a program over the flows of a plan, from the first on, and says what a packet took. NATIVE, PERMISSION. */
  run(program: string, plan: Plan, repeat: number): Timing {
    const fd = this.#object.programs.get(program)
    const plans = this.#object.maps.get('bench_plans')
    if (fd === undefined || plans === undefined) throw new LbError('LAYOUT', `packet.bpf.o: no program ${program}`)
    const bytes = encodePlan(this.#object.plan, plan)
    updateEntry(plans, KEY, bytes)
    const direction = plan.shape === 'reply' && !program.startsWith('tc_egress') ? 'reply' : 'request'
    const around = context(program, this.#ifindex[direction], plan.own === true)
    const input = { packet: emptyPacket(plan.family), context: around, repeat }
    return this.#topology.within(this.options.role, () => {
      const before = process.hrtime.bigint()
      const { result, packet, durationNs } = runProgram(fd, input)
      const wallNs = Number(process.hrtime.bigint() - before) / repeat
      readEntry(plans, KEY, bytes)
      /* The kernel's figure is whole nanoseconds, cut off, but leaves out the time that others had the CPU. */
      const undisturbed = wallNs <= durationNs + 1 + CALL_NS / repeat
      return {
        ns: undisturbed ? wallNs : durationNs + 0.5,
        action: isBalancer(program) ? result | 0 : decodeAction(this.#object.plan, bytes),
        packet,
      }
    })
  }

  /** Forgets every connection but those that were opened at first. */
  resetConnections(used: number): void {
    const high = new LbConnPoolArray(this.#handles.buffer('lb_conn_pools')).high(0)
    for (const [name, bytes] of this.#saved) new Uint8Array(this.#handles.buffer(name)).set(bytes)
    const first = new LbConnPoolArray(this.#handles.buffer('lb_conn_pools')).high(0)
    if (high - first > used) throw new LbError('NATIVE', `${high - first} connections were made, not ${used}`)
    const { size } = LbConnArray
    new Uint8Array(this.#handles.buffer('lb_conns')).fill(0, first * size, high * size)
  }

  /** Takes the entries that the floor "insert" has made out of its map again. */
  deleteInserted(flows: Flows, count: number): void {
    deleteEntries(this.#floorMap('lru', flows.family), floorKeys(flows, 1, count + 1), count)
  }

  /** Packets that were refused or dropped since the table was made, as text; "": none. */
  verdicts(): string {
    const counted = [...readVerdicts(this.#handles)].filter(
      ([verdict, count]) => verdict !== 'MASQUERADED' && count > 0n,
    )
    return counted.map(([name, count]) => `${name} ${count}`).join(', ')
  }

  /** NATIVE if a packet was refused or dropped since the rig was made. */
  checkVerdicts(): void {
    const now = this.verdicts()
    if (now !== this.#verdicts) throw new LbError('NATIVE', `${this.options.role}: packets were refused: ${now}`)
  }

  /** Unloads everything. */
  close(): void {
    this.#object.close()
    this.#handles.close()
    this.#topology.within(this.options.role, unloadTable)
  }

  #wants(program: string): boolean {
    const family = Number(program.at(-1))
    return this.options.families.some((one) => one === family) && !(this.options.stack && program.startsWith('xdp_'))
  }

  #writeTable(): void {
    const { services, stack, role, families, table, masqueradePorts } = this.options
    const config = new LbConfigArray(this.#handles.buffer('lb_config'))
    config.setBypass(0, stack ? LbBypassMode.BYPASS_NEVER : LbBypassMode.BYPASS_ALWAYS)
    if (masqueradePorts !== undefined) this.table.changeSettings({ masqueradePorts })
    const { failed } = this.table.apply('command', table ?? describeServices(families, services))
    if (failed[0] === undefined) return
    const why = failed[0].error instanceof Error ? failed[0].error.message : String(failed[0].error)
    throw new LbError('NATIVE', `${role}: ${failed.length} services were refused: ${why}`)
  }

  #findInterfaces(): Record<Direction, number> {
    return this.#topology.within(this.options.role, () => {
      const all = new Map(listInterfaces().map(({ name, ifindex }) => [name, ifindex]))
      const ports = openPin(`${this.#handles.dir}/${mapPin('lb_xdp_ports')}`)
      for (const ifindex of all.values()) {
        const bytes = new Uint8Array(Uint32Array.of(ifindex).buffer)
        updateEntry(ports, bytes, bytes)
      }
      closeFd(ports)
      return { request: all.get('a0') ?? 0, reply: all.get('b0') ?? 0 }
    })
  }

  #floorMap(kind: 'hash' | 'lru', family: Family) {
    const fd = this.#object.maps.get(`bench_${kind}${family}`)
    if (fd === undefined) throw new LbError('LAYOUT', `packet.bpf.o: no map bench_${kind}${family}`)
    return fd
  }

  #openSets(): Flows[] {
    const { flows, services, families } = this.options
    return families.flatMap((family) => [flowSet(family, 'one', flows, 1), flowSet(family, 'spread', flows, services)])
  }

  /** Opens connections by a SYN and an ACK each, and enters the same flows in the floors' maps. */
  #openFlows(flows: Flows): void {
    const { family, flows: count, over } = flows
    for (const flag of ['syn', 'ack'] as const) {
      this.run(`tc_balance${family}`, { ...flows, shape: 'request', flags: flag }, count)
    }
    const servers = floorServers(flows, over)
    updateEntries(this.#floorMap('hash', family), servers.keys, servers.values, over)
    const values = floorConnections(flows, 0, count)
    updateEntries(this.#floorMap('lru', family), floorKeys(flows, 0, count), values, values.length / FLOOR_VALUE)
  }
}
