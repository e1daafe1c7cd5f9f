/**
 * Counters. The datapath counts per lane and server and is never written to; what is shown is the sum of the lanes less
 * a base, and a service's is the sum of its servers', removed ones too, plus a base of its own: what freed servers
 * counted. All arithmetic is modulo 2^64.
 */
import { LbCountersArray } from '../abi/generated.ts'
import type { Counters } from '../model/types.ts'
import type { TableMaps } from './table-maps.ts'

/** conns, in_pkts, out_pkts, in_bytes, out_bytes. */
export type CounterSums = BigUint64Array<ArrayBuffer>

const { at, size } = LbCountersArray
const WORDS = size / 8
const FIELDS = [at.conns / 8, at.inPkts / 8, at.outPkts / 8, at.inBytes / 8, at.outBytes / 8] as const

export function newSums(): CounterSums {
  return new BigUint64Array(FIELDS.length)
}

/** Adds what a server counted since its last zeroing. */
export function addServerCounters(maps: TableMaps, id: number, sums: CounterSums): void {
  for (let lane = 0; lane < maps.lanes; lane++) addFields(maps.stats, lane * maps.serverMax + id, sums, 1n)
  addFields(maps.statsBase, id, sums, -1n)
}

/** Adds a service's base. */
export function addServiceBase(maps: TableMaps, id: number, sums: CounterSums): void {
  addFields(maps.statsBase, maps.serverMax + id, sums, 1n)
}

/** Of what has counted nothing, which in a large table is most. */
export const NO_COUNTERS: Counters = Object.freeze({ conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n })

export function toCounters(sums: CounterSums): Counters {
  if (isZero(sums)) return NO_COUNTERS
  return {
    conns: sums[0] ?? 0n,
    inPkts: sums[1] ?? 0n,
    outPkts: sums[2] ?? 0n,
    inBytes: sums[3] ?? 0n,
    outBytes: sums[4] ?? 0n,
  }
}

/** Adds sums to others. */
export function addSums(from: CounterSums, to: CounterSums): void {
  if (isZero(from)) return
  for (let f = 0; f < to.length; f++) to[f] = (to[f] ?? 0n) + (from[f] ?? 0n)
}

function isZero(sums: CounterSums): boolean {
  for (let f = 0; f < sums.length; f++) if (sums[f] !== 0n) return false
  return true
}

/** A server's counters read 0 from here on. */
export function zeroServer(maps: TableMaps, id: number): void {
  const sums = newSums()
  for (let lane = 0; lane < maps.lanes; lane++) addFields(maps.stats, lane * maps.serverMax + id, sums, 1n)
  setFields(maps.statsBase, id, sums)
}

/**
 * Adds what was counted of everything since its last zeroing: by all servers there are, and, in the base of service 0, by
 * those that were freed. To zero a server or a service changes nothing of it.
 */
export function addTotal(maps: TableMaps, sums: CounterSums): void {
  for (let lane = 0; lane < maps.lanes; lane++) {
    for (let id = 1; id < maps.book.serverHigh(0); id++) addFields(maps.stats, lane * maps.serverMax + id, sums, 1n)
  }
  addFields(maps.statsBase, maps.serverMax, sums, 1n)
}

/** What was counted in each lane, of the servers that there are. As in the kernel, zeroing changes nothing of it. */
export function laneCounters(maps: TableMaps): Counters[] {
  return Array.from({ length: maps.lanes }, (_, lane) => {
    const sums = newSums()
    for (let id = 1; id < maps.book.serverHigh(0); id++) addFields(maps.stats, lane * maps.serverMax + id, sums, 1n)
    return toCounters(sums)
  })
}

/** The counters of everything read 0 from here on. */
export function zeroTotal(maps: TableMaps): void {
  const shown = newSums()
  addTotal(maps, shown)
  const base = newSums()
  addFields(maps.statsBase, maps.serverMax, base, 1n)
  for (let f = 0; f < base.length; f++) base[f] = (base[f] ?? 0n) - (shown[f] ?? 0n)
  setFields(maps.statsBase, maps.serverMax, base)
}

/** A service's base becomes 0; its servers are zeroed apart. */
export function zeroServiceBase(maps: TableMaps, id: number): void {
  maps.statsBase.clear(maps.serverMax + id)
}

/** Moves what a server counted to its service's base and the total's, and makes all its counters 0: it is about to be freed. */
export function foldServer(maps: TableMaps, id: number, service: number): void {
  const sums = newSums()
  addServerCounters(maps, id, sums)
  addServiceBase(maps, service, sums)
  setFields(maps.statsBase, maps.serverMax + service, sums)
  const raw = newSums()
  addFields(maps.statsBase, maps.serverMax, raw, 1n)
  for (let lane = 0; lane < maps.lanes; lane++) addFields(maps.stats, lane * maps.serverMax + id, raw, 1n)
  setFields(maps.statsBase, maps.serverMax, raw)
  for (let lane = 0; lane < maps.lanes; lane++) maps.stats.clear(lane * maps.serverMax + id)
  maps.statsBase.clear(id)
}

/** Adds a service's base to another's: it is about to be freed. */
export function foldService(maps: TableMaps, id: number, into: number): void {
  const sums = newSums()
  addServiceBase(maps, id, sums)
  addServiceBase(maps, into, sums)
  setFields(maps.statsBase, maps.serverMax + into, sums)
}

function addFields(array: LbCountersArray, i: number, sums: CounterSums, sign: bigint): void {
  const base = i * WORDS
  for (let f = 0; f < FIELDS.length; f++) {
    const word = base + (FIELDS[f] ?? 0)
    // Reading a bigint allocates; most counters of a large table are 0.
    if (((array.u32[word * 2] ?? 0) | (array.u32[word * 2 + 1] ?? 0)) === 0) continue
    sums[f] = (sums[f] ?? 0n) + sign * (array.u64[word] ?? 0n)
  }
}

function setFields(array: LbCountersArray, i: number, sums: CounterSums): void {
  const base = i * WORDS
  for (let f = 0; f < FIELDS.length; f++) array.u64[base + (FIELDS[f] ?? 0)] = sums[f] ?? 0n
}
