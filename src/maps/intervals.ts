/**
 * Sets of addresses as the datapath searches them: intervals of addresses of one family, in order, apart from each other.
 * Pure.
 */
import { Buffer } from 'node:buffer'
import { LbLimit } from '../abi/generated.ts'
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Family, Prefix } from '../model/types.ts'

/** Addresses from the first to the last, as numbers of 32 or 128 bits. */
export interface Interval {
  readonly first: bigint
  readonly last: bigint
}

/** Intervals as struct lb_interval has them, one character a byte: they compare as strings. */
export type PackedIntervals = string

/** sizeof(struct lb_interval), which is a cell. */
export const INTERVAL_BYTES = 2 * ADDRESS_BYTES

const addressBits = { 4: 32, 6: 128 } as const

/** The addresses that are in any of the prefixes, which may overlap. INVALID: one is none, or of another family. */
export function intervalsOf(prefixes: readonly Prefix[], family: Family): Interval[] {
  const sorted = prefixes
    .map((prefix) => intervalOf(prefix, family))
    .sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))
  const merged: Interval[] = []
  for (const next of sorted) {
    const before = merged.at(-1)
    if (before === undefined || next.first > before.last + 1n) merged.push(next)
    else if (next.last > before.last) merged[merged.length - 1] = { first: before.first, last: next.last }
  }
  return merged
}

/** The fewest prefixes that are these intervals, in order. */
export function prefixesOf(intervals: readonly Interval[], family: Family): Prefix[] {
  const bits = addressBits[family]
  const prefixes: Prefix[] = []
  for (const { first, last } of intervals) {
    for (let at = first; at <= last; ) {
      let free = 0 /* bits that do not count */
      while (free < bits && at % (1n << BigInt(free + 1)) === 0n && at + (1n << BigInt(free + 1)) - 1n <= last) free++
      prefixes.push({ family, address: formatAddress(bytesOf(at, family), 0, family), length: bits - free })
      at += 1n << BigInt(free)
    }
  }
  return prefixes
}

/** For the table. INVALID: more than it takes of one service. */
export function packIntervals(intervals: readonly Interval[], family: Family): PackedIntervals {
  const { length } = intervals
  if (length > LbLimit.MAX_INTERVALS) {
    const text = `${length} separate ranges of source addresses are more than ${LbLimit.MAX_INTERVALS}`
    throw new LbError('INVALID', text, { what: 'source addresses', value: length, most: LbLimit.MAX_INTERVALS })
  }
  return Buffer.concat(
    intervals.flatMap(({ first, last }) => [bytesOf(first, family), bytesOf(last, family)]),
  ).toString('latin1')
}

export function unpackIntervals(packed: PackedIntervals, family: Family): Interval[] {
  const bytes = Buffer.from(packed, 'latin1')
  return Array.from({ length: intervalCount(packed) }, (_, i) => ({
    first: numberOf(bytes, i * INTERVAL_BYTES, family),
    last: numberOf(bytes, i * INTERVAL_BYTES + ADDRESS_BYTES, family),
  }))
}

export function intervalCount(packed: PackedIntervals): number {
  return packed.length / INTERVAL_BYTES
}

function intervalOf(prefix: Prefix, family: Family): Interval {
  const { address, length } = prefix
  const bytes = new Uint8Array(ADDRESS_BYTES)
  const bits = addressBits[family]
  const valid = Number.isInteger(length) && length >= 0 && length <= bits
  if (prefix.family !== family || !valid || !writeAddress(bytes, 0, address, family)) {
    throw new LbError('INVALID', undefined, { what: `IPv${family} prefix`, value: `${address}/${length}` })
  }
  const size = 1n << BigInt(bits - length)
  const first = (numberOf(bytes, 0, family) / size) * size
  return { first, last: first + size - 1n }
}

/** As lb_addr has it. */
function bytesOf(address: bigint, family: Family): Buffer {
  const bytes = Buffer.alloc(ADDRESS_BYTES)
  bytes.write(address.toString(16).padStart(addressBits[family] / 4, '0'), 'hex')
  return bytes
}

function numberOf(bytes: Uint8Array, at: number, family: Family): bigint {
  return BigInt(`0x${Buffer.from(bytes.subarray(at, at + addressBits[family] / 8)).toString('hex')}`)
}
