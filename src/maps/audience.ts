/**
 * The audience of a list: who gets other servers, and who may come at all. It is in the last cell of the list's range, if
 * the list's policy says so; the intervals that clients must be in are in a range of their own.
 */
import { Buffer } from 'node:buffer'
import { LbCellArray, LbPolicy } from '../abi/generated.ts'
import { INTERVAL_BYTES, intervalCount, type PackedIntervals } from './intervals.ts'
import type { TableMaps } from './table-maps.ts'

/** 1 << order cells from `start`. */
export interface CellRange {
  readonly start: number
  readonly order: number
}

export interface Audience {
  /** Id of the service that insiders get; 0: this one. */
  readonly insiders: number
  /** First cell of the intervals; 0: everybody may come. */
  readonly allowed: number
  readonly allowedCount: number
}

/** Where the audience of a list is. */
export function audienceCell(cell: number, order: number): number {
  return cell + 2 ** order - 1
}

/** Of the list whose head is `cell`; undefined: it has none. */
export function readAudience(cells: LbCellArray, cell: number): Audience | undefined {
  if ((cells.listPolicy(cell) & LbPolicy.POLICY_AUDIENCE) === 0) return undefined
  const at = audienceCell(cell, cells.listOrder(cell))
  return {
    insiders: cells.audienceInsiders(at),
    allowed: cells.audienceAllowed(at),
    allowedCount: cells.audienceAllowedCount(at),
  }
}

export function writeAudience(cells: LbCellArray, at: number, audience: Audience): void {
  cells.clear(at)
  cells.setAudienceInsiders(at, audience.insiders)
  cells.setAudienceAllowed(at, audience.allowed)
  cells.setAudienceAllowedCount(at, audience.allowedCount)
}

/** Order of the range for so many intervals; undefined: there are none. */
export function allowedOrder(intervals: number): number | undefined {
  return intervals === 0 ? undefined : 32 - Math.clz32(intervals - 1)
}

/** The range of the intervals of the list whose head is `cell`, if it has some. */
export function allowedRange(cells: LbCellArray, cell: number): CellRange | undefined {
  const audience = readAudience(cells, cell)
  const order = allowedOrder(audience?.allowedCount ?? 0)
  return audience === undefined || order === undefined ? undefined : { start: audience.allowed, order }
}

/** Who may use the list whose head is `cell`; empty: everybody. */
export function readAllowed(cells: LbCellArray, cell: number): PackedIntervals {
  const audience = readAudience(cells, cell)
  if (audience === undefined || audience.allowedCount === 0) return ''
  const from = audience.allowed * LbCellArray.size
  return Buffer.from(cells.u8.buffer, cells.u8.byteOffset + from, audience.allowedCount * INTERVAL_BYTES).toString(
    'latin1',
  )
}

/** Writes intervals into a range that nobody reads. */
export function writeAllowed(cells: LbCellArray, start: number, allowed: PackedIntervals): void {
  const from = start * LbCellArray.size
  const size = intervalCount(allowed) * INTERVAL_BYTES
  Buffer.from(cells.u8.buffer, cells.u8.byteOffset + from, size).write(allowed, 'latin1')
}

/** Id of the service whose servers a service in force has for insiders; 0: it has none. */
export function insidersOf({ cells, services }: TableMaps, id: number): number {
  return readAudience(cells, services.list(id))?.insiders ?? 0
}
