/** The backup: enters into the table what others tell of their connections. */
import { LbLimit, LbSyncConnArray } from '../abi/generated.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { ServerFinder } from './finder.ts'
import { connFlags, decodeMessage, type SyncRecord } from './message.ts'
import type { SyncDaemon } from './options.ts'
import { putRecord } from './records.ts'
import type { SyncState } from './state.ts'

/** Connections that wait for their servers; beyond, the one that waited longest is forgotten. */
const MOST_WAITING = 65_536
/** How long a record that says nothing of it may wait. */
const DEFAULT_WAIT_S = 180

interface Waiting {
  readonly record: SyncRecord
  readonly untilMs: number
}

export class Backup {
  readonly #maps: TableMaps
  readonly #daemon: SyncDaemon
  readonly #state: SyncState
  readonly #nowMs: () => number
  readonly #finder: ServerFinder
  readonly #batch: LbSyncConnArray
  readonly #waiting = new Map<string, Waiting>()
  #generation: bigint

  /** `nowMs` is any clock that only goes forward. */
  constructor(maps: TableMaps, daemon: SyncDaemon, state: SyncState, nowMs: () => number) {
    this.#maps = maps
    this.#daemon = daemon
    this.#state = state
    this.#nowMs = nowMs
    this.#finder = new ServerFinder(maps)
    this.#batch = new LbSyncConnArray(maps.handles.buffer('lb_sync_conns'))
    this.#generation = maps.generation()
  }

  /** Takes a message. What is malformed, or of no use here, is refused and counted. */
  receive(message: Uint8Array): void {
    const { records, refused } = decodeMessage(message, this.#daemon)
    const useful = records.filter(({ flags }) => (flags & connFlags.NO_CLIENT_PORT) === 0)
    const failed = this.#enter(useful)
    this.#state.count({
      messages: 1,
      connections: useful.length,
      refused: refused + records.length - useful.length,
      failed,
      waiting: this.#waiting.size,
    })
  }

  /** If the table was edited, looks whether connections that wait have their servers now. */
  step(): void {
    const generation = this.#maps.generation()
    if (generation === this.#generation) return
    this.#generation = generation
    const now = this.#nowMs()
    const waiting = [...this.#waiting.values()].filter(({ untilMs }) => untilMs > now)
    this.#waiting.clear()
    // A record counts from when it came: what is left of its time goes with it.
    const left = ({ record, untilMs }: Waiting): SyncRecord => {
      return { ...record, timeoutS: Math.max(1, Math.ceil((untilMs - now) / 1000)) }
    }
    const failed = this.#enter(waiting.map(left))
    this.#state.count({ failed, waiting: this.#waiting.size })
  }

  /** Enters records whose servers are in the table, others wait. The order of their coming is kept. How many had no room. */
  #enter(records: readonly SyncRecord[]): number {
    let failed = 0
    this.#maps.handles.withLock(() => {
      let count = 0
      for (const record of records) {
        const server = this.#finder.find(record)
        if (!this.#wait(record, server)) putRecord(this.#batch, count++, record, server)
        if (count < LbLimit.SYNC_BATCH) continue
        failed += this.#run(count)
        count = 0
      }
      failed += this.#run(count)
    })
    return failed
  }

  /** Whether a record waits for its server. */
  #wait(record: SyncRecord, server: number): boolean {
    const key = keyOf(record)
    this.#waiting.delete(key)
    if (server !== 0) return false
    this.#waiting.set(key, { record, untilMs: this.#nowMs() + 1000 * (record.timeoutS || DEFAULT_WAIT_S) })
    const [oldest] = this.#waiting.size > MOST_WAITING ? this.#waiting.keys() : []
    if (oldest !== undefined) this.#waiting.delete(oldest)
    return true
  }

  /** Enters what is in the batch; how many had no room. */
  #run(count: number): number {
    if (count === 0) return 0
    if (count < LbLimit.SYNC_BATCH) this.#batch.clear(count)
    this.#maps.handles.enterSynced()
    let failed = 0
    for (let i = 0; i < count; i++) if (this.#batch.verdict(i) !== 0) failed++
    return failed
  }
}

/** Tells one connection from another. */
function keyOf(record: SyncRecord): string {
  const { family, protocol, flags, clientPort, virtualPort } = record
  const ends = Buffer.concat([record.client, record.virtual]).toString('latin1')
  return `${ends}${family}.${protocol}.${flags & connFlags.TEMPLATE}.${clientPort}.${virtualPort}`
}
