/**
 * The last resort of the allocator of cells: joins free neighbours, then moves lists together.
 *
 * Why it always succeeds while enough is free: ranges are aligned, so to free a block of 2^k cells take the one of
 * these blocks that is used least and move its ranges out. Each needs a free place elsewhere, smaller than the block;
 * if there is none, make one the same way. What is free outside a block is never less than what is used inside as long
 * as 2^k cells are free in all, so the argument holds at every step. (Cell 0 is no range's; the block that holds it is
 * left out.)
 */
import { LbCellArray } from '../abi/generated.ts'
import { audienceCell, type CellRange } from './audience.ts'
import { CELL_ORDERS, type ListRange, listRanges, pushFreeSpan, reclaimCells, takeFree } from './free-cells.ts'
import type { TableMaps } from './table-maps.ts'

/** A range in force, as one number: the service's id << 2, and which of its ranges. 0: none. */
type Owner = number
const WHICH = 3
/** Cells that are not free and stay where they are. */
const KEPT: Owner = 0xffffffff

/**
 * Finds out anew which cells are free: those of no service's list and of no block of `kept`. Everything else, above
 * `cell_high` too, comes into the free lists as the largest ranges there can be. Waits a grace period if ranges are
 * retired.
 */
export function rebuildFreeRanges(maps: TableMaps, kept: readonly CellRange[]): void {
  if (maps.book.cellRetired(0) !== 0) reclaimCells(maps)
  const owners = cellOwners(maps)
  maps.book.setCellsUsed(
    0,
    owners.reduce((used, owner) => (owner === 0 ? used : used + 1), 0),
  )
  for (const { start, order } of kept) owners.fill(KEPT, start, start + 2 ** order)
  for (let order = 0; order < CELL_ORDERS; order++) maps.book.setCellFree(0, order, 0)
  maps.book.setCellHigh(0, maps.cells.length)
  for (let start = 1; start < owners.length; ) {
    let end = start
    while (end < owners.length && owners[end] === 0) end++
    pushFreeSpan(maps, start, end)
    start = end + 1
  }
}

/**
 * Makes a range by moving others out of a block that is no part of `kept`; 0: there is not enough free, or all of it
 * around cell 0.
 */
export function makeRoom(maps: TableMaps, order: number, kept: readonly CellRange[]): number {
  const cell = emptyBlock(maps, order, kept)
  if (cell === 0) {
    maps.handles.gracePeriod()
    rebuildFreeRanges(maps, kept)
  }
  return cell
}

function emptyBlock(maps: TableMaps, order: number, outer: readonly CellRange[]): number {
  const owners = cellOwners(maps)
  const start = leastUsed(owners, order, outer)
  if (start === 0) return 0
  const kept = [...outer, { start, order }]
  const movers = new Set(owners.subarray(start, start + 2 ** order))
  movers.delete(0)
  rebuildFreeRanges(maps, kept)
  const byOrder = [...movers].sort((a, b) => orderOf(maps, b) - orderOf(maps, a))
  for (const owner of byOrder) {
    const to = takeFree(maps, orderOf(maps, owner)) || emptyBlock(maps, orderOf(maps, owner), kept)
    if (to === 0) return 0
    moveRange(maps, owner, to)
  }
  if (byOrder.length > 0) maps.handles.gracePeriod()
  return start
}

/** Start of the block with the fewest used cells, outside `outer`; 0: all are full. */
function leastUsed(owners: Uint32Array, order: number, outer: readonly CellRange[]): number {
  const size = 2 ** order
  let best = 0
  let least = size
  for (let start = size; start + size <= owners.length && least > 0; start += size) {
    if (outer.some((block) => start >= block.start && start < block.start + 2 ** block.order)) continue
    let used = 0
    for (let cell = start; cell < start + size && used < least; cell++) if (owners[cell] !== 0) used++
    if (used < least) {
      least = used
      best = start
    }
  }
  return best
}

/** What a cell belongs to. */
function cellOwners(maps: TableMaps): Uint32Array {
  const owners = new Uint32Array(maps.cells.length)
  const high = maps.book.serviceHigh(0)
  for (let id = 1; id < high; id++) {
    for (const [which, { start, order }] of rangesOf(maps, id).entries()) {
      owners.fill(((id << 2) | which) >>> 0, start, start + 2 ** order)
    }
  }
  return owners
}

function rangesOf(maps: TableMaps, service: number): ListRange[] {
  const cell = maps.services.list(service)
  return cell === 0 ? [] : listRanges(maps.cells, cell)
}

function rangeOf(maps: TableMaps, owner: Owner): ListRange {
  const range = rangesOf(maps, owner >>> 2)[owner & WHICH]
  if (range === undefined) throw new RangeError(`owner ${owner} has no range`)
  return range
}

function orderOf(maps: TableMaps, owner: Owner): number {
  return rangeOf(maps, owner).order
}

/** Copies a range and switches to the copy by one store. The old range stays as it is. */
function moveRange(maps: TableMaps, owner: Owner, to: number): void {
  const { part, start, order } = rangeOf(maps, owner)
  const from = start * LbCellArray.size
  maps.cells.u8.copyWithin(to * LbCellArray.size, from, from + 2 ** order * LbCellArray.size)
  const service = owner >>> 2
  const list = maps.services.list(service)
  if (part === 'list') maps.switchList(service, to)
  else if (part === 'table') maps.switchTable(list, to)
  else maps.switchAllowed(audienceCell(list, maps.cells.listOrder(list)), to)
}
