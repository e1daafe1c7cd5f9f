/** Allocation of ranges of cells (see free-cells.ts), with the table's lock held. */
import { LbError } from '../model/errors.ts'
import { makeRoom, rebuildFreeRanges } from './cell-compaction.ts'
import { popFree, pushFree, pushFreeSpan, reclaimCells, takeFree } from './free-cells.ts'
import { type CellRange, tableOrder } from './hash-tables.ts'
import { orderFor } from './lists.ts'
import type { TableMaps } from './table-maps.ts'

/** Retired cells that are worth a grace period, which takes up to some ms: so it is paid once in very many edits. */
const RECLAIM_CELLS = 4096

/** Room for a list, and for its table if it has one. */
export interface ListRoom {
  /** Of the list's head. */
  readonly cell: number
  /** Of the table's first buckets; 0: the scheduler has none. */
  readonly table: number
}

/** Ranges for a list of a scheduler (enum lb_sched). Other services' lists may have moved afterwards. TABLE_FULL. */
export function allocateList(maps: TableMaps, servers: number, scheduler: number): ListRoom {
  const listOrder = orderFor(servers)
  const order = tableOrder(scheduler, servers)
  // Said at once: a full table may be asked for room a hundred thousand times in one edit. Cell 0 is no range's.
  const wanted = 2 ** listOrder + (order === undefined ? 0 : 2 ** order)
  if (maps.book.cellsUsed(0) + wanted > maps.cells.length - 1) throw noCells(wanted)
  if (order === undefined) return { cell: allocateCells(maps, listOrder), table: 0 }
  /* The larger one first: room for the other can then be made around it. */
  const larger = { start: allocateCells(maps, Math.max(listOrder, order)), order: Math.max(listOrder, order) }
  let smaller: number
  try {
    smaller = allocateCells(maps, Math.min(listOrder, order), [larger])
  } catch (error) {
    pushFree(maps, larger.start, larger.order)
    throw error
  }
  return listOrder > order ? { cell: larger.start, table: smaller } : { cell: smaller, table: larger.start }
}

/**
 * A range of 1 << order cells, not in force; what is in `kept`, none of them smaller, is not in force either, and taken.
 * Other services' lists may have moved afterwards. TABLE_FULL.
 */
export function allocateCells(maps: TableMaps, order: number, kept: readonly CellRange[] = []): number {
  const { book } = maps
  let cell = popFree(maps, order)
  if (cell === 0 && book.cellsRetired(0) >= Math.max(RECLAIM_CELLS, maps.cells.length >> 3)) {
    reclaimCells(maps)
    cell = popFree(maps, order)
  }
  cell ||= takeNew(maps, order) || takeFree(maps, order)
  if (cell === 0 && book.cellRetired(0) !== 0) {
    reclaimCells(maps)
    cell = takeFree(maps, order)
  }
  if (cell === 0) {
    rebuildFreeRanges(maps, kept)
    cell = takeFree(maps, order) || makeRoom(maps, order, kept)
  }
  if (cell === 0) throw noCells(2 ** order)
  return cell
}

function noCells(cells: number): LbError {
  return new LbError('TABLE_FULL', undefined, { map: 'lb_cells', cells })
}

/** From above `cell_high`; cells skipped for alignment become free. 0: no room. */
function takeNew(maps: TableMaps, order: number): number {
  const { book } = maps
  const high = Math.max(book.cellHigh(0), 1)
  const size = 2 ** order
  const start = Math.ceil(high / size) * size
  if (start + size > maps.cells.length) return 0
  book.setCellHigh(0, start + size)
  pushFreeSpan(maps, high, start)
  return start
}
