/**
 * Ranges of cells for lists of servers, their tables (see hash-tables.ts) and their intervals (see audience.ts). A range has 1 << order cells, starts at a multiple of that, and is either in
 * force (a service points at it, or the head of its list), retired, or free (in a list by order, or above `cell_high`).
 *
 * A range that is no longer in force may still be read by a program that runs now, so it is retired: kept as it was
 * until a grace period has passed. The retired ranges are in the table, so they outlive the process and serve the next.
 *
 * All functions are called with the table's lock held.
 */
import type { LbCellArray } from '../abi/generated.ts'
import { allowedRange, type CellRange } from './audience.ts'
import { tableRange } from './hash-tables.ts'
import type { TableMaps } from './table-maps.ts'

/** Orders that lb_book has free lists for. */
export const CELL_ORDERS = 20

/** What of a list a range holds: itself, its table of buckets, the intervals of who may come. */
export type ListPart = 'list' | 'table' | 'allowed'

export interface ListRange extends CellRange {
  readonly part: ListPart
}

/** The ranges of the list whose head is `cell`: its own and those of the other parts that it has. */
export function listRanges(cells: LbCellArray, cell: number): ListRange[] {
  const ranges: ListRange[] = [{ part: 'list', start: cell, order: cells.listOrder(cell) }]
  const table = tableRange(cells, cell)
  if (table !== undefined) ranges.push({ part: 'table', ...table })
  const allowed = allowedRange(cells, cell)
  if (allowed !== undefined) ranges.push({ part: 'allowed', ...allowed })
  return ranges
}

/** Counts the cells of a list that is about to come into force. */
export function useCells(maps: TableMaps, cell: number): void {
  maps.book.setCellsUsed(0, maps.book.cellsUsed(0) + cellsOf(maps, cell))
}

/** Takes a list out of use that no service points at any more; its content stays until the next grace period. */
export function retireCells(maps: TableMaps, cell: number): void {
  const { book, cells } = maps
  cells.setListNext(cell, book.cellRetired(0))
  book.setCellRetired(0, cell)
  const freed = cellsOf(maps, cell)
  book.setCellsUsed(0, book.cellsUsed(0) - freed)
  book.setCellsRetired(0, book.cellsRetired(0) + freed)
}

function cellsOf(maps: TableMaps, cell: number): number {
  return listRanges(maps.cells, cell).reduce((sum, { order }) => sum + 2 ** order, 0)
}

/** Waits until nobody reads retired lists and services, and frees them. */
export function reclaimCells(maps: TableMaps): void {
  const { book, cells } = maps
  maps.handles.gracePeriod()
  let cell = book.cellRetired(0)
  book.setCellRetired(0, 0)
  book.setCellsRetired(0, 0)
  while (cell !== 0) {
    const next = cells.listNext(cell)
    for (const { start, order } of listRanges(cells, cell)) pushFree(maps, start, order)
    cell = next
  }
  freeRetiredServices(maps)
}

/** A free range of exactly this order, or else part of a larger one; 0: none. */
export function takeFree(maps: TableMaps, order: number): number {
  return popFree(maps, order) || splitLarger(maps, order)
}

/** Adds a range to the free ones. Its head is zeroed: a reader that is late finds no service there. */
export function pushFree(maps: TableMaps, cell: number, order: number): void {
  const { book, cells } = maps
  cells.clear(cell)
  cells.setListOrder(cell, order)
  cells.setListNext(cell, book.cellFree(0, order))
  book.setCellFree(0, order, cell)
}

/** Frees the cells from `start` up to `end`, as the largest ranges that may start there. */
export function pushFreeSpan(maps: TableMaps, start: number, end: number): void {
  for (let at = start; at < end; ) {
    let order = Math.min(31 - Math.clz32(at & -at), CELL_ORDERS - 1)
    while (at + 2 ** order > end) order--
    pushFree(maps, at, order)
    at += 2 ** order
  }
}

/** A free range of exactly this order; 0: none. */
export function popFree(maps: TableMaps, order: number): number {
  const cell = maps.book.cellFree(0, order)
  if (cell !== 0) maps.book.setCellFree(0, order, maps.cells.listNext(cell))
  return cell
}

/** Part of the smallest free range that is larger; 0: none. */
function splitLarger(maps: TableMaps, order: number): number {
  for (let larger = order + 1; larger < CELL_ORDERS; larger++) {
    const cell = popFree(maps, larger)
    if (cell === 0) continue
    for (let half = larger - 1; half >= order; half--) pushFree(maps, cell + 2 ** half, half)
    return cell
  }
  return 0
}

function freeRetiredServices(maps: TableMaps): void {
  const { book, services } = maps
  let id = book.serviceRetired(0)
  book.setServiceRetired(0, 0)
  while (id !== 0) {
    const next = services.next(id)
    services.setNext(id, book.serviceFree(0))
    book.setServiceFree(0, id)
    id = next
  }
}
