/**
 * The datapath's programs under BPF_PROG_RUN, on a table of their own in a private network namespace:
 *
 *   clients 10.1.0.0/16, fd00:1::/64                          servers 10.2.0.0/16, fd00:2::/64
 *           via 10.254.1.2, fd00:fe:1::2 --- cl0 [ director ] sv0 --- via 10.254.2.2, fd00:fe:2::2
 *           MAC 02:00:00:00:01:02       ...:01:01          ...:02:01       MAC 02:00:00:00:02:02
 *
 * Neighbours are permanent, so the fib answers at once. Virtual services are 10.9.0.0/16 and fd00:9::/64, of which the
 * director's own stack has no address, and 10.10.0.0/16 and fd00:10::/64, which are all local to it.
 */
import { join } from 'node:path'
import {
  type LbConnArray,
  LbConnLineArray,
  LbNextHopArray,
  type MapName,
  maps as mapTable,
} from '../../src/abi/generated.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { must } from '../../src/lab/command.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { Topology } from '../../src/lab/topology.ts'
import { currentTick } from '../../src/maps/connections.ts'
import { TableMaps } from '../../src/maps/table-maps.ts'
import { readVerdicts } from '../../src/maps/verdicts.ts'
import { listInterfaces } from '../../src/native/interfaces.ts'
import { openTable, unloadTable } from '../../src/native/loader.ts'
import type { PinnedTable } from '../../src/native/pinned-table.ts'
import type { ProgramName } from '../../src/native/programs.ts'
import { runProgram } from '../../src/native/run.ts'
import { enterNamespace } from '../../src/native/setns.ts'
import { closeFd, type Fd, openPin } from '../../src/native/shim.ts'
import type { TableSizes } from '../../src/native/sizes.ts'

/** Where a packet meets the datapath: hook and interface. */
export type Place = 'ingress' | 'egress' | 'xdp' | 'marked'
export type Side = 'clients' | 'servers'

/** MAC addresses, named by who owns them. */
export const macs = {
  client: '02:00:00:00:01:02',
  cl0: '02:00:00:00:01:01',
  sv0: '02:00:00:00:02:01',
  server: '02:00:00:00:02:02',
  /** Both ends of the veth that takes marked packets. */
  marked: '02:62:70:76:73:00',
} as const

const otherSide: Readonly<Record<Side, Side>> = { clients: 'servers', servers: 'clients' }

export interface Input {
  readonly at: Place
  readonly side: Side
  readonly packet: Uint8Array
  /** Segments that the packet stands for, and how long each one's payload is; tcx only. */
  readonly gso?: { readonly segments: number; readonly size: number }
  /** Firewall mark that it has; tcx only. */
  readonly mark?: number
  /** At "marked" and "egress": it is the director's own, and came in by no interface. */
  readonly own?: boolean
}

/** What hooks answer, under one name: `send` is TX or a redirect. */
export type Action = 'pass' | 'drop' | 'send'

export interface Output {
  readonly action: Action
  /** The action as the hook names it. */
  readonly exactly: string
  readonly packet: Uint8Array
}

const programs: Readonly<Record<Place, ProgramName>> = {
  ingress: 'lb_tc_ingress',
  egress: 'lb_tc_egress',
  marked: 'lb_tc_marked',
  xdp: 'lb_xdp',
}
const tcActions: ReadonlyMap<number, readonly [Action, string]> = new Map([
  [0xffffffff, ['pass', 'TC_ACT_UNSPEC']],
  [2, ['drop', 'TC_ACT_SHOT']],
  [7, ['send', 'TC_ACT_REDIRECT']],
])
const xdpActions: ReadonlyMap<number, readonly [Action, string]> = new Map([
  [1, ['drop', 'XDP_DROP']],
  [2, ['pass', 'XDP_PASS']],
  [3, ['send', 'XDP_TX']],
  [4, ['send', 'XDP_REDIRECT']],
])

/** Offsets in struct __sk_buff and struct xdp_md (linux/bpf.h). */
const skBuff = { size: 192, mark: 8, ingressIfindex: 36, ifindex: 40, gsoSegs: 164, gsoSize: 176 } as const
const xdpMd = { size: 24, dataEnd: 4, ifindex: 12 } as const

/** As much of a tap test as is needed. */
interface Teardown {
  teardown(handler: () => Promise<void>): void
}

const smallSizes: TableSizes = { services: 4096, servers: 4096, cells: 8192, connections: 16384 }

function describeNetwork(): Topology {
  const end = (name: string, subnet: number, host: number, namespace: string) => ({
    namespace,
    interface: name,
    addresses: [`10.254.${subnet}.${host}/30`, `fd00:fe:${subnet}::${host}/64`],
  })
  return new Topology({
    namespaces: [
      { name: 'director', forwarding: true },
      { name: 'far', sysctls: { 'net.ipv6.conf.all.disable_ipv6': 1, 'net.ipv6.conf.default.disable_ipv6': 1 } },
    ],
    links: [
      [end('cl0', 1, 1, 'director'), { namespace: 'far', interface: 'f1' }],
      [end('sv0', 2, 1, 'director'), { namespace: 'far', interface: 'f2' }],
    ],
  })
}

const director = [
  `link set dev cl0 address ${macs.cl0}`,
  `link set dev sv0 address ${macs.sv0}`,
  `neigh replace 10.254.1.2 lladdr ${macs.client} dev cl0 nud permanent`,
  `neigh replace fd00:fe:1::2 lladdr ${macs.client} dev cl0 nud permanent`,
  `neigh replace 10.254.2.2 lladdr ${macs.server} dev sv0 nud permanent`,
  `neigh replace fd00:fe:2::2 lladdr ${macs.server} dev sv0 nud permanent`,
  'route add 10.1.0.0/16 via 10.254.1.2',
  'route add fd00:1::/64 via fd00:fe:1::2',
  'route add 10.2.0.0/16 via 10.254.2.2',
  'route add fd00:2::/64 via fd00:fe:2::2',
  'route add default via 10.254.1.2',
  'route add default via fd00:fe:1::2',
  'route add unreachable 10.77.0.0/16',
  'route add local 10.10.0.0/16 dev lo',
  'route add local fd00:10::/64 dev lo',
]

/** The programs, and the table they work on. The thread that opens one lives in its namespace from then on. */
export class Datapath {
  readonly handles: PinnedTable
  readonly table: KernelTable
  readonly maps: TableMaps
  readonly lines: LbConnLineArray
  readonly #programs = new Map<Place, Fd>()
  readonly #interfaces: Readonly<Record<Side, number>>
  readonly #freshConfig: Uint8Array

  private constructor(handles: PinnedTable) {
    this.handles = handles
    this.table = new KernelTable(handles)
    this.maps = new TableMaps(handles)
    this.lines = new LbConnLineArray(handles.buffer('lb_conn_index'))
    const index = (name: string) => listInterfaces().find((each) => each.name === name)?.ifindex ?? 0
    this.#interfaces = { clients: index('cl0'), servers: index('sv0') }
    this.#freshConfig = new Uint8Array(handles.buffer('lb_config')).slice()
  }

  /** Makes namespace and table; both go with the test. The programs are on both interfaces, XDP too. */
  static async open(t: Teardown, sizes: Partial<TableSizes> = {}): Promise<Datapath> {
    const topology = describeNetwork()
    t.teardown(async () => {
      if (inside) unloadTable()
      await topology.close()
    })
    let inside = false
    await sweepRuns()
    await topology.create()
    const input = `${director.join('\n')}\n`
    await must('ip', ['-n', topology.nameOf('director'), '-batch', '-'], { input })
    enterNamespace(topology.pathOf('director'))
    inside = true
    const policy = { include: ['*'], exclude: ['lo'], xdp: 'native' } as const
    return new Datapath(openTable({ sizes: { ...smallSizes, ...sizes }, policy }) as PinnedTable)
  }

  /** Runs one program on one packet. */
  run(input: Input): Output {
    const { at, side, packet } = input
    const context = at === 'xdp' ? this.#xdpContext(side, packet) : this.#skbContext(input)
    const { result, packet: after } = runProgram(this.#program(at), { packet, context })
    const known = (at === 'xdp' ? xdpActions : tcActions).get(result)
    if (known === undefined) throw new Error(`${programs[at]} returned ${result}`)
    return { action: known[0], exactly: known[1], packet: after.slice() }
  }

  /** Everything as in a new table: no service, no connection, every count 0, settings as they were. */
  clear(): void {
    this.#bytes('lb_conns').fill(0) /* first: what the sweeper may be looking at */
    this.handles.gracePeriod()
    for (const name of Object.keys(mapTable) as MapName[]) if (name !== 'lb_config') this.#bytes(name).fill(0)
    this.#bytes('lb_config').set(this.#freshConfig)
  }

  /** Connections forgotten, with what was counted of them; services stay. */
  clearConnections(): void {
    this.#bytes('lb_conns').fill(0)
    this.handles.gracePeriod()
    for (const name of ['lb_conns', 'lb_conn_index', 'lb_conn_pools', 'lb_server_states'] as const) {
      this.#bytes(name).fill(0)
    }
  }

  /**
   * As if every known neighbour had just been seen to: about once a second the kernel's own code sends a packet there, whose
   * MAC addresses are not written yet. That must not be the packet of a test that was kept waiting. `ticksAgo`: it was seen to
   * so long ago.
   */
  settleHops(ticksAgo = 0): void {
    const hops = new LbNextHopArray(this.handles.buffer('lb_next_hops'))
    for (let i = 0; i < hops.length; i++) if (hops.generation(i) !== 0) hops.setKicked(i, this.tick() - ticksAgo)
  }

  /** Verdicts that were counted, by name. */
  verdicts(): Record<string, number> {
    const counted = [...readVerdicts(this.handles)].filter(([, count]) => count !== 0n)
    return Object.fromEntries(counted.map(([name, count]) => [name, Number(count)]))
  }

  /** Indexes of the entries that are in use, expired ones too. */
  entries(): number[] {
    const { conns, connPools } = this.maps
    return Array.from({ length: Math.min(connPools.high(0), conns.length) }, (_, i) => i).filter(
      (i) => conns.af(i) !== 0,
    )
  }

  /** The coarse clock. */
  tick(): number {
    return currentTick(this.maps)
  }

  /** Makes connections end `ticks` from now (negative: ended by now); all, or those that `which` picks. */
  expire(ticks: number, which: (conns: LbConnArray, i: number) => boolean = () => true): void {
    const { conns } = this.maps
    const when = (this.tick() + ticks) >>> 0
    for (const i of this.entries()) if (which(conns, i)) conns.setExpires(i, when)
  }

  #bytes(name: MapName): Uint8Array {
    return new Uint8Array(this.handles.buffer(name))
  }

  #program(at: Place): Fd {
    let program = this.#programs.get(at)
    if (program === undefined) {
      program = openPin(join(this.handles.dir, `prog-${programs[at]}`))
      this.#programs.set(at, program)
    }
    return program
  }

  #skbContext({ at, side, gso, mark = 0, own = false }: Input): Uint8Array {
    const context = new DataView(new ArrayBuffer(skBuff.size))
    context.setUint32(skBuff.mark, mark, true)
    context.setUint32(skBuff.ifindex, this.#interfaces[side], true)
    const cameBy = at === 'egress' ? otherSide[side] : side
    if (at !== 'ingress' && !own) context.setUint32(skBuff.ingressIfindex, this.#interfaces[cameBy], true)
    if (gso !== undefined) {
      context.setUint32(skBuff.gsoSegs, gso.segments, true)
      context.setUint32(skBuff.gsoSize, gso.size, true)
    }
    return new Uint8Array(context.buffer)
  }

  #xdpContext(side: Side, packet: Uint8Array): Uint8Array {
    const context = new DataView(new ArrayBuffer(xdpMd.size))
    context.setUint32(xdpMd.dataEnd, packet.length, true)
    context.setUint32(xdpMd.ifindex, this.#interfaces[side], true)
    return new Uint8Array(context.buffer)
  }

  /** Closes the programs' descriptors; the table goes with the test. */
  close(): void {
    for (const program of this.#programs.values()) closeFd(program)
    this.#programs.clear()
    this.table.close()
  }
}
