/**
 * Messages of IPVS's sync protocol, as ip_vs_sync.c writes and reads them: version 1, and version 0 for reading. Pure.
 *
 *   version 1:  0, sync id, size (16 bits), records, 1, 0 (16 bits)         version 0:  records, sync id, size (16 bits)
 *
 * Numbers are in network order; sizes count the header. A record of version 1 has a size of its own and starts at a multiple of
 * four bytes.
 */
import type { Family } from '../model/types.ts'

/** A connection, or a persistence template, as a director tells others of it. Addresses are 16 bytes, as in lb_addr. */
export interface SyncRecord {
  readonly family: Family
  /** IPPROTO_*. */
  readonly protocol: number
  /** `connFlags`. */
  readonly flags: number
  /** The number that IPVS gives the state, which depends on the protocol; of a template: 1 if it is assured. */
  readonly state: number
  /** 0: none. */
  readonly fwmark: number
  /** How long it lives without packets; 0: as long as the receiver thinks right. */
  readonly timeoutS: number
  readonly client: Uint8Array
  readonly clientPort: number
  readonly virtual: Uint8Array
  readonly virtualPort: number
  readonly server: Uint8Array
  readonly serverPort: number
}

/** Bits of `flags` (IP_VS_CONN_F_*). The lowest three are the forwarding method. */
export const connFlags = {
  METHOD: 0x7,
  SYNC: 0x20,
  HASHED: 0x40,
  NO_OUTPUT: 0x80,
  INACTIVE: 0x100,
  SEQUENCES: 0x600,
  NO_CLIENT_PORT: 0x800,
  TEMPLATE: 0x1000,
} as const

/** What of `flags` a receiver takes over (IP_VS_CONN_F_BACKUP_MASK). */
const ACCEPTED_FLAGS =
  connFlags.METHOD |
  connFlags.NO_OUTPUT |
  connFlags.INACTIVE |
  connFlags.SEQUENCES |
  connFlags.NO_CLIENT_PORT |
  connFlags.TEMPLATE

/** What came of a message: the records that are good, and how many were refused, and why the last one was. */
export interface Decoded {
  readonly records: readonly SyncRecord[]
  readonly refused: number
  readonly reason?: string
}

const HEADER = 8
const HEADER_V0 = 4
const VERSION = 1
const RECORD = { 4: 36, 6: 72 } as const
const RECORD_V0 = 24
const SEQUENCES = 24
const TYPE_IPV6 = 1
const SIZE_MASK = 0x0fff
/** The count of records is a byte. */
const MOST_RECORDS = 255
const TEMPLATE_STATES = 2
/** States of each protocol that is balanced: TCP, UDP, SCTP. */
const STATES: ReadonlyMap<number, number> = new Map([
  [6, 11],
  [17, 1],
  [132, 14],
])
const OPTION = { SEQUENCES: 1, ENGINE_DATA: 2, ENGINE_NAME: 3, MASK: 0x40 } as const
const ENGINE_NAME_MAX = 16

/** Why a whole message, or the rest of it, can't be read. */
class Malformed extends Error {}

/** Why one record can't be used; the next ones may. */
class Unusable extends Error {}

/** Builds messages of at most `maxLength` bytes; a record that alone is longer gets a message of its own. */
export class MessageBuilder {
  readonly #syncId: number
  readonly #maxLength: number
  #bytes: Uint8Array<ArrayBuffer>
  #view: DataView<ArrayBuffer>
  #size = HEADER
  #count = 0

  constructor(syncId: number, maxLength: number) {
    this.#syncId = syncId
    this.#maxLength = maxLength
    this.#bytes = new Uint8Array(Math.max(maxLength, HEADER + RECORD[6]))
    this.#view = new DataView(this.#bytes.buffer)
  }

  /** Adds a record; the message that was full before it, if there is one, is returned, valid until the next call. */
  add(record: SyncRecord): Uint8Array | undefined {
    const full = this.#size + RECORD[record.family] > this.#maxLength || this.#count === MOST_RECORDS
    const message = full ? this.take() : undefined
    this.#write(record)
    return message
  }

  /** The message so far, if it has records; the next one begins. */
  take(): Uint8Array | undefined {
    if (this.#count === 0) return undefined
    this.#bytes[1] = this.#syncId
    this.#view.setUint16(2, this.#size)
    this.#bytes[4] = this.#count
    this.#bytes[5] = VERSION
    const message = this.#bytes.subarray(0, this.#size)
    this.#bytes = new Uint8Array(this.#bytes.length)
    this.#view = new DataView(this.#bytes.buffer)
    this.#size = HEADER
    this.#count = 0
    return message
  }

  #write(record: SyncRecord): void {
    const at = this.#size
    const length = record.family === 6 ? 16 : 4
    this.#bytes[at] = record.family === 6 ? TYPE_IPV6 : 0
    this.#bytes[at + 1] = record.protocol
    this.#view.setUint16(at + 2, RECORD[record.family])
    this.#view.setUint32(at + 4, record.flags)
    this.#view.setUint16(at + 8, record.state)
    this.#view.setUint16(at + 10, record.clientPort)
    this.#view.setUint16(at + 12, record.virtualPort)
    this.#view.setUint16(at + 14, record.serverPort)
    this.#view.setUint32(at + 16, record.fwmark)
    this.#view.setUint32(at + 20, record.timeoutS)
    this.#bytes.set(record.client.subarray(0, length), at + 24)
    this.#bytes.set(record.virtual.subarray(0, length), at + 24 + length)
    this.#bytes.set(record.server.subarray(0, length), at + 24 + 2 * length)
    this.#size += RECORD[record.family]
    this.#count++
  }
}

/**
 * Reads a message as ip_vs_process_message(). `syncId` 0 takes everybody's; a message of another id, of another size than it
 * says, or one that is longer than `maxLength`, has nothing for us. What comes before something malformed counts.
 */
export function decodeMessage(
  message: Uint8Array,
  { syncId, maxLength }: { syncId: number; maxLength: number },
): Decoded {
  const records: SyncRecord[] = []
  let refused = 0
  let reason: string | undefined
  const attempt = (read: () => void): void => {
    try {
      read()
    } catch (error) {
      if (!(error instanceof Malformed || error instanceof Unusable)) throw error
      refused++
      reason = error.message
    }
  }
  attempt(() => {
    const view = checkHeader(message, maxLength)
    if (syncId !== 0 && message[1] !== syncId) return
    const read = isVersion1(view) ? readRecords(view) : readRecordsV0(view)
    for (const one of read) attempt(() => records.push(one()))
  })
  return reason === undefined ? { records, refused } : { records, refused, reason }
}

function checkHeader(message: Uint8Array, maxLength: number): DataView {
  if (message.length > maxLength) throw new Malformed('longer than the sync-maxlen')
  if (message.length < HEADER_V0) throw new Malformed('no header')
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  if (view.getUint16(2) !== message.length) throw new Malformed('another size than it says')
  return view
}

function isVersion1(view: DataView): boolean {
  return view.byteLength >= HEADER && view.getUint8(0) === 0 && view.getUint8(5) === VERSION && view.getUint16(6) === 0
}

/** The records, each to be read; where they end is known before they are. */
function* readRecords(view: DataView): Generator<() => SyncRecord> {
  const count = view.getUint8(4)
  let at = HEADER
  for (let i = 0; i < count; i++) {
    if (at + RECORD[4] > view.byteLength) throw new Malformed('cut off')
    const size = view.getUint16(at + 2)
    if (size >> 12 !== 0) throw new Malformed(`a record of version ${size >> 12}`)
    const end = at + (size & SIZE_MASK)
    if (end > view.byteLength) throw new Malformed('cut off')
    const start = at
    checkOptions(view, start, end)
    yield () => readRecord(view, start, end)
    at += ((size & SIZE_MASK) + 3) & ~3
  }
}

function familyAt(view: DataView, at: number): Family {
  const type = view.getUint8(at)
  if ((type & TYPE_IPV6) !== 0) return 6
  if (type !== 0) throw new Malformed(`a record of type ${type}`)
  return 4
}

/** The parameters behind a record: each has a type, a length that is not 0, and fits; none of ours comes twice. */
function* parameters(view: DataView, at: number, end: number): Generator<{ type: number; at: number; length: number }> {
  while (at < end) {
    if (at + 2 > end) throw new Malformed('a parameter cut off')
    const type = view.getUint8(at)
    const length = view.getUint8(at + 1)
    at += 2
    if (length === 0 || at + length > end) throw new Malformed('a parameter cut off')
    yield { type, at, length }
    at += length
  }
}

function checkOptions(view: DataView, start: number, end: number): void {
  const first = start + RECORD[familyAt(view, start)]
  if (first > end) throw new Malformed('cut off')
  const seen = new Set<number>()
  for (const { type, length } of parameters(view, first, end)) {
    const kind = type & ~OPTION.MASK
    const unknown = kind < OPTION.SEQUENCES || kind > OPTION.ENGINE_NAME
    if (unknown && (type & OPTION.MASK) === 0) return // The record is unusable; what follows is not looked at.
    if (unknown) continue
    if (seen.has(kind)) throw new Malformed('a parameter twice')
    seen.add(kind)
    const fits =
      kind === OPTION.SEQUENCES ? length === SEQUENCES : kind !== OPTION.ENGINE_NAME || length <= ENGINE_NAME_MAX
    if (!fits) throw new Malformed('a parameter of a wrong length')
  }
}

/** Unusable by its parameters: of a persistence engine, which nobody here knows, or a kind that may not be ignored. */
function refuseOptions(view: DataView, first: number, end: number): void {
  for (const { type } of parameters(view, first, end)) {
    const kind = type & ~OPTION.MASK
    if (kind === OPTION.ENGINE_DATA) throw new Unusable('of a persistence engine')
    const known = kind === OPTION.SEQUENCES || kind === OPTION.ENGINE_NAME
    if (!known && (type & OPTION.MASK) === 0) throw new Unusable(`has a parameter of kind ${kind}`)
  }
}

function readRecord(view: DataView, at: number, end: number): SyncRecord {
  const family = familyAt(view, at)
  const length = family === 6 ? 16 : 4
  refuseOptions(view, at + RECORD[family], end)
  return usable({
    family,
    protocol: view.getUint8(at + 1),
    flags: view.getUint32(at + 4) & ACCEPTED_FLAGS,
    state: view.getUint16(at + 8),
    clientPort: view.getUint16(at + 10),
    virtualPort: view.getUint16(at + 12),
    serverPort: view.getUint16(at + 14),
    fwmark: view.getUint32(at + 16),
    timeoutS: view.getUint32(at + 20),
    client: addressAt(view, at + 24, length),
    virtual: addressAt(view, at + 24 + length, length),
    server: addressAt(view, at + 24 + 2 * length, length),
  })
}

function addressAt(view: DataView, at: number, length: number): Uint8Array {
  const address = new Uint8Array(16)
  address.set(new Uint8Array(view.buffer, view.byteOffset + at, length))
  return address
}

/** Passes a record whose protocol and state are known. */
function usable(record: SyncRecord): SyncRecord {
  const template = (record.flags & connFlags.TEMPLATE) !== 0
  const states = template ? TEMPLATE_STATES : STATES.get(record.protocol)
  if (states === undefined) throw new Unusable(`of protocol ${record.protocol}`)
  if (record.state >= states)
    throw new Unusable(`in state ${record.state} of ${template ? 'a template' : record.protocol}`)
  return record
}

/** IPv4 only, without mark and timeout. */
function* readRecordsV0(view: DataView): Generator<() => SyncRecord> {
  const count = view.getUint8(0)
  let at = HEADER_V0
  for (let i = 0; i < count; i++) {
    if (at + RECORD_V0 > view.byteLength) throw new Malformed('cut off')
    const start = at
    at += RECORD_V0 + ((view.getUint16(start + 20) & connFlags.SEQUENCES) === 0 ? 0 : SEQUENCES)
    if (at > view.byteLength) throw new Malformed('cut off')
    yield () => readRecordV0(view, start)
  }
}

function readRecordV0(view: DataView, at: number): SyncRecord {
  return usable({
    family: 4,
    protocol: view.getUint8(at + 1),
    clientPort: view.getUint16(at + 2),
    virtualPort: view.getUint16(at + 4),
    serverPort: view.getUint16(at + 6),
    client: addressAt(view, at + 8, 4),
    virtual: addressAt(view, at + 12, 4),
    server: addressAt(view, at + 16, 4),
    flags: view.getUint16(at + 20) & ACCEPTED_FLAGS,
    state: view.getUint16(at + 22),
    fwmark: 0,
    timeoutS: 0,
  })
}
