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
import { orderFor } from './lists.ts'
import { CELL_ORDERS, pushFreeSpan, reclaimCells, takeFree } from './free-cells.ts'
import type { TableMaps } from './table-maps.ts'

/** A block of 1 << order cells that is being emptied. */
interface Block {
  readonly start: number
  readonly order: number
}

/**
 * Finds out anew which cells are free: those of no service's list and of no block of `kept`. Everything else, above
 * `cell_high` too, comes into the free lists as the largest ranges there can be. Waits a grace period if ranges are
 * retired.
 */
export function rebuildFreeRanges(maps: TableMaps, kept: readonly Block[]): void {
  if (maps.book.cellRetired(0) !== 0) reclaimCells(maps)
  const owners = cellOwners(maps)
  for (const { start, order } of kept) owners.fill(0xffffffff, start, start + 2 ** order)
  for (let order = 0; order < CELL_ORDERS; order++) maps.book.setCellFree(0, order, 0)
  maps.book.setCellHigh(0, maps.cells.length)
  for (let start = 1; start < owners.length; ) {
    let end = start
    while (end < owners.length && owners[end] === 0) end++
    pushFreeSpan(maps, start, end)
    start = end + 1
  }
}

/** Makes a range by moving lists out of a block; 0: there is not enough free, or all of it around cell 0. */
export function makeRoom(maps: TableMaps, order: number): number {
  const cell = emptyBlock(maps, order, [])
  if (cell === 0) {
    maps.handles.gracePeriod()
    rebuildFreeRanges(maps, [])
  }
  return cell
}

function emptyBlock(maps: TableMaps, order: number, outer: readonly Block[]): number {
  const owners = cellOwners(maps)
  const start = leastUsed(owners, order, outer)
  if (start === 0) return 0
  const kept = [...outer, { start, order }]
  const movers = new Set(owners.subarray(start, start + 2 ** order))
  movers.delete(0)
  rebuildFreeRanges(maps, kept)
  const byOrder = [...movers].sort((a, b) => orderOf(maps, b) - orderOf(maps, a))
  for (const service of byOrder) {
    const to = takeFree(maps, orderOf(maps, service)) || emptyBlock(maps, orderOf(maps, service), kept)
    if (to === 0) return 0
    moveList(maps, service, to)
  }
  if (byOrder.length > 0) maps.handles.gracePeriod()
  return start
}

/** Start of the block with the fewest used cells, outside `outer`; 0: all are full. */
function leastUsed(owners: Uint32Array, order: number, outer: readonly Block[]): number {
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

/** The service whose list holds a cell; 0: none. */
function cellOwners(maps: TableMaps): Uint32Array {
  const owners = new Uint32Array(maps.cells.length)
  const high = maps.book.serviceHigh(0)
  for (let id = 1; id < high; id++) {
    const cell = maps.services.list(id)
    if (cell !== 0) owners.fill(id, cell, cell + 2 ** maps.cells.listOrder(cell))
  }
  return owners
}

function orderOf(maps: TableMaps, service: number): number {
  return orderFor(maps.cells.listCount(maps.services.list(service)))
}

/** Copies a list and switches to the copy. The old range stays as it is. */
function moveList(maps: TableMaps, service: number, to: number): void {
  const from = maps.services.list(service)
  const bytes = 2 ** orderOf(maps, service) * LbCellArray.size
  maps.cells.u8.copyWithin(to * LbCellArray.size, from * LbCellArray.size, from * LbCellArray.size + bytes)
  maps.switchList(service, to)
}
