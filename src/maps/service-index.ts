/**
 * The index of services: two lines of eight slots for each name, any of which may hold it. A slot is tag << 32 | id.
 *
 * A service that was deleted but whose removed servers are still kept stays in its slot under a tag with the lowest bit
 * inverted: the tags of packets have that bit set, so packets do not find it, and a service made anew under the same
 * name does. Each change is one aligned 64-bit store.
 */
import { LbLimit, LbLineArray } from '../abi/generated.ts'
import { littleEndian } from '../abi/codec.ts'
import { ENDPOINT_SIZE } from '../native/endpoints.ts'
import type { ServiceSpot, TableHandles } from '../native/handles.ts'
import { packService } from './names.ts'
import type { ServiceName } from './names.ts'
import type { TableMaps } from './table-maps.ts'

/** A service as the index knows it. */
export interface IndexEntry {
  readonly id: number
  /** Number of the slot, over all lines. */
  readonly slot: number
  /** Packets find it. */
  readonly live: boolean
}

const LINE_SLOTS = LbLimit.LINE_SLOTS
const LOW = littleEndian ? 0 : 1
const HIGH = 1 - LOW

/** Where the names lead, in one call. */
export function serviceSpots(handles: TableHandles, names: readonly ServiceName[]): ServiceSpot[] {
  const packed = new Uint8Array(names.length * ENDPOINT_SIZE)
  for (const [i, name] of names.entries()) packService(packed, i, name)
  const words = handles.hashServices(packed)
  return names.map((_, i) => ({
    first: words[i * 4] ?? 0,
    second: words[i * 4 + 1] ?? 0,
    tag: words[i * 4 + 2] ?? 0,
    filterBit: words[i * 4 + 3] ?? 0,
  }))
}

export function serviceSpot(handles: TableHandles, name: ServiceName): ServiceSpot {
  const [spot] = serviceSpots(handles, [name])
  if (spot === undefined) throw new RangeError('hashing one name gave none')
  return spot
}

/** The service of a name, deleted ones included. */
export function findService(maps: TableMaps, name: ServiceName, spot: ServiceSpot): IndexEntry | undefined {
  for (const line of linesOf(spot)) {
    for (let slot = line * LINE_SLOTS; slot < (line + 1) * LINE_SLOTS; slot++) {
      const tag = maps.index.u32[slot * 2 + HIGH] ?? 0
      const id = maps.index.u32[slot * 2 + LOW] ?? 0
      if (id === 0 || (tag !== spot.tag && tag !== dormantTag(spot))) continue
      if (id < maps.serviceMax && maps.serviceName(id) === name) return { id, slot, live: tag === spot.tag }
    }
  }
  return undefined
}

/**
 * A slot that the name may take, not `taken`: free, in the first line as long as more than half of that is free (packets look
 * there first), else in the line that has more free ones; or of a deleted service, which is then forgotten. -1: none.
 */
export function freeSlot(maps: TableMaps, spot: ServiceSpot, taken = -1): number {
  let dormant = -1
  let best = -1
  let most = 0
  for (const line of linesOf(spot)) {
    let free = 0
    let found = -1
    for (let slot = line * LINE_SLOTS; slot < (line + 1) * LINE_SLOTS; slot++) {
      if (slot === taken) continue
      if (maps.index.u32[slot * 2 + LOW] === 0) {
        free++
        if (found === -1) found = slot
      } else if (((maps.index.u32[slot * 2 + HIGH] ?? 0) & 1) === 0) dormant = slot
    }
    if (free > LINE_SLOTS / 2) return found
    if (free > most) {
      most = free
      best = found
    }
  }
  return best === -1 ? dormant : best
}

/** Packets find the service from here on. */
export function publishService(maps: TableMaps, slot: number, spot: ServiceSpot, id: number): void {
  store(maps, slot, spot.tag, id)
}

/** Packets do not find the service from here on; its name still does. */
export function hideService(maps: TableMaps, slot: number, spot: ServiceSpot, id: number): void {
  store(maps, slot, dormantTag(spot), id)
}

export function clearSlot(maps: TableMaps, slot: number): void {
  store(maps, slot, 0, 0)
}

/** What a slot holds; id 0: it is free. */
export function readSlot(maps: TableMaps, slot: number): { readonly tag: number; readonly id: number } {
  return { tag: maps.index.u32[slot * 2 + HIGH] ?? 0, id: maps.index.u32[slot * 2 + LOW] ?? 0 }
}

/** Slots of the whole index. */
export function slotCount(maps: TableMaps): number {
  return (maps.index.length * LbLineArray.size) / 8
}

function linesOf(spot: ServiceSpot): number[] {
  return spot.first === spot.second ? [spot.first] : [spot.first, spot.second]
}

function dormantTag(spot: ServiceSpot): number {
  return (spot.tag ^ 1) >>> 0
}

function store(maps: TableMaps, slot: number, tag: number, id: number): void {
  Atomics.store(maps.index.u64, slot, (BigInt(tag) << 32n) | BigInt(id))
}
