/** Typed views over all maps of one table. */
import { Buffer } from 'node:buffer'
import {
  LbBookArray,
  LbCellArray,
  LbConfigArray,
  LbConnArray,
  LbConnPoolArray,
  LbCountersArray,
  LbDefenceArray,
  LbLineArray,
  LbRatesArray,
  LbServerArray,
  LbServerFlag,
  LbServerStateArray,
  LbServerStateFlag,
  LbServiceArray,
  LbServiceFlag,
  LbServiceStateArray,
} from '../abi/generated.ts'
import type { TableHandles } from '../native/handles.ts'
import { SERVER_NAME_BYTES, SERVICE_NAME_BYTES } from './names.ts'
import type { ServerName, ServiceName } from './names.ts'

/** Ids and cells start at 1: 0 is "none" everywhere. */
export class TableMaps {
  readonly handles: TableHandles
  readonly config: LbConfigArray
  readonly book: LbBookArray
  readonly index: LbLineArray
  readonly services: LbServiceArray
  readonly serviceStates: LbServiceStateArray
  readonly cells: LbCellArray
  readonly servers: LbServerArray
  readonly serverStates: LbServerStateArray
  readonly stats: LbCountersArray
  readonly statsBase: LbCountersArray
  readonly rates: LbRatesArray
  readonly connPools: LbConnPoolArray
  readonly conns: LbConnArray
  readonly defence: LbDefenceArray
  /** Lanes of lb_stats and lb_verdicts. */
  readonly lanes: number
  /** Ids below these exist. */
  readonly serviceMax: number
  readonly serverMax: number
  readonly #serviceBytes: Buffer<ArrayBuffer>
  readonly #serverBytes: Buffer<ArrayBuffer>

  constructor(handles: TableHandles) {
    this.handles = handles
    this.config = new LbConfigArray(handles.buffer('lb_config'))
    this.book = new LbBookArray(handles.buffer('lb_book'))
    this.index = new LbLineArray(handles.buffer('lb_service_index'), 0, handles.rodata.serviceLineMask + 1)
    this.services = new LbServiceArray(handles.buffer('lb_services'))
    this.serviceStates = new LbServiceStateArray(handles.buffer('lb_service_states'))
    this.cells = new LbCellArray(handles.buffer('lb_cells'))
    this.servers = new LbServerArray(handles.buffer('lb_servers'))
    this.serverStates = new LbServerStateArray(handles.buffer('lb_server_states'))
    this.stats = new LbCountersArray(handles.buffer('lb_stats'))
    this.statsBase = new LbCountersArray(handles.buffer('lb_stats_base'))
    this.rates = new LbRatesArray(handles.buffer('lb_rates'))
    this.connPools = new LbConnPoolArray(handles.buffer('lb_conn_pools'))
    this.conns = new LbConnArray(handles.buffer('lb_conns'))
    this.defence = new LbDefenceArray(handles.buffer('lb_defence'))
    this.lanes = handles.rodata.laneMask + 1
    this.serverMax = handles.rodata.serverMax
    this.serviceMax = Math.min(this.services.length, this.statsBase.length - this.serverMax)
    this.#serviceBytes = Buffer.from(handles.buffer('lb_services'))
    this.#serverBytes = Buffer.from(handles.buffer('lb_servers'))
  }

  /** The name of a service, or of a VIP record (see vips.ts), whose count of services is no part of it. */
  serviceName(id: number): ServiceName {
    const at = id * LbServiceArray.size
    if (this.isVip(id)) {
      return `${this.#serviceBytes.toString('latin1', at, at + LbServiceArray.at.fwmark)}\0\0\0\0`
    }
    return this.#serviceBytes.toString('latin1', at, at + SERVICE_NAME_BYTES)
  }

  setServiceName(id: number, name: ServiceName): void {
    this.#serviceBytes.write(name, id * LbServiceArray.size, 'latin1')
  }

  /** Whether the record is no service, but says that an address has some (see vips.ts). */
  isVip(id: number): boolean {
    return (this.services.flags(id) & LbServiceFlag.SERVICE_VIP) !== 0
  }

  /** Whether the service is one for insiders: another's list leads to it, and no name. */
  isForInsiders(id: number): boolean {
    return (this.services.flags(id) & LbServiceFlag.SERVICE_INSIDERS) !== 0
  }

  serverName(id: number): ServerName {
    const at = id * LbServerArray.size
    return this.#serverBytes.toString('latin1', at, at + SERVER_NAME_BYTES)
  }

  setServerName(id: number, name: ServerName): void {
    this.#serverBytes.write(name, id * LbServerArray.size, 'latin1')
  }

  /** One aligned store: from here on packets see the other list. */
  switchList(id: number, cell: number): void {
    Atomics.store(this.services.u32, (id * LbServiceArray.size + LbServiceArray.at.list) / 4, cell)
  }

  /** One aligned store: the table of the list whose head is `cell` is elsewhere; it says the same there. */
  switchTable(cell: number, table: number): void {
    Atomics.store(this.cells.u32, (cell * LbCellArray.size + LbCellArray.at.listTable) / 4, table)
  }

  /** One aligned store, in the last cell of a list: the intervals of who may come are elsewhere; they say the same there. */
  switchAllowed(audience: number, allowed: number): void {
    Atomics.store(this.cells.u32, (audience * LbCellArray.size + LbCellArray.at.audienceAllowed) / 4, allowed)
  }

  /** Whether a server takes packets, in one store. */
  setAvailable(id: number, available: boolean): void {
    const at = (id * LbServerArray.size + LbServerArray.at.flags) / 4
    if (available) Atomics.or(this.servers.u32, at, LbServerFlag.SERVER_AVAILABLE)
    else Atomics.and(this.servers.u32, at, ~LbServerFlag.SERVER_AVAILABLE)
  }

  /** Whether a server has as many connections as it may. The datapath changes that too. */
  setOverloaded(id: number, overloaded: boolean): void {
    const at = (id * LbServerStateArray.size + LbServerStateArray.at.flags) / 4
    if (overloaded) Atomics.or(this.serverStates.u32, at, LbServerStateFlag.SERVER_OVERLOAD)
    else Atomics.and(this.serverStates.u32, at, ~LbServerStateFlag.SERVER_OVERLOAD)
  }

  /** Whether connections, templates, or what lblc and lblcr remember refer to a server. */
  isReferenced(id: number): boolean {
    const { serverStates: states } = this
    return (states.active(id) | states.inactive(id) | states.persistent(id) | states.memos(id)) !== 0
  }

  generation(): bigint {
    return Atomics.load(this.config.u64, LbConfigArray.at.generation / 8)
  }

  raiseGeneration(): void {
    Atomics.add(this.config.u64, LbConfigArray.at.generation / 8, 1n)
  }
}
