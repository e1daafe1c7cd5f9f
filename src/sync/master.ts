/** The master: looks through the table for connections that others do not know as they are, and tells them. */
import { currentTick } from '../maps/connections.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { SyncScan } from '../native/sync.ts'
import { MessageBuilder } from './message.ts'
import type { SyncDaemon } from './options.ts'
import { recordOf } from './records.ts'
import type { SyncState } from './state.ts'

/** What becomes of a message: sent, failed for good, or to be sent again later. */
export type Send = (message: Uint8Array) => 'sent' | 'later' | 'failed'

/** A look at the table is taken in so many slices, one a step, so that each entry is looked at four times a second. */
const SLICES = 5
export const STEP_MS = 50
const SLICE = 4096
/** Records in one step: more than receivers have room for in their sockets is no use. */
const RECORDS_PER_STEP = 1000
/** Others are told of a connection in use again after this time, so that they learn what they missed. */
const REFRESH_S = 60

export class Master {
  readonly #maps: TableMaps
  readonly #state: SyncState
  readonly #send: Send
  readonly #scan: SyncScan
  readonly #builder: MessageBuilder
  readonly #unsent: Uint8Array[] = []
  #at = 0

  constructor(maps: TableMaps, daemon: SyncDaemon, state: SyncState, send: Send) {
    this.#maps = maps
    this.#state = state
    this.#send = send
    this.#builder = new MessageBuilder(daemon.syncId, daemon.maxLength)
    const { hz, tickShift, connMax } = maps.handles.rodata
    const input = { conns: maps.handles.buffer('lb_conns'), config: maps.handles.buffer('lb_config') }
    this.#scan = new SyncScan({ ...input, entries: connMax, hz, tickShift, refreshS: REFRESH_S }, RECORDS_PER_STEP)
  }

  /** Looks at the next slice. Nothing is looked at while the socket has no room. */
  step(): void {
    this.#flush()
    if (this.#unsent.length > 0) return
    const { conns, connPools } = this.#maps
    const high = Math.min(connPools.high(0), conns.length)
    if (this.#at >= high) this.#at = 0
    const end = Math.min(high, this.#at + Math.max(SLICE, Math.ceil(high / SLICES)))
    const { due, next } = this.#scan.run(this.#at, end, currentTick(this.#maps))
    this.#at = next
    for (const i of due) this.#tell(i)
    this.#queue(this.#builder.take())
    this.#flush()
  }

  #tell(i: number): void {
    const record = recordOf(this.#maps, i)
    if (record === undefined) return
    this.#state.count({ connections: 1 })
    this.#queue(this.#builder.add(record))
  }

  #queue(message: Uint8Array | undefined): void {
    if (message !== undefined) this.#unsent.push(message)
  }

  #flush(): void {
    for (let message = this.#unsent[0]; message !== undefined; message = this.#unsent[0]) {
      const outcome = this.#send(message)
      if (outcome === 'later') return
      this.#state.count(outcome === 'sent' ? { messages: 1 } : { failed: 1 })
      this.#unsent.shift()
    }
  }
}
