/** Allocation of ranges of cells (see free-cells.ts), with the table's lock held. */
import { LbError } from '../model/errors.ts'
import { makeRoom, rebuildFreeRanges } from './cell-compaction.ts'
import { allowedOrder, type CellRange } from './audience.ts'
import { popFree, pushFree, pushFreeSpan, reclaimCells, takeFree } from './free-cells.ts'
import { tableOrder } from './hash-tables.ts'
import { orderFor } from './lists.ts'
import type { TableMaps } from './table-maps.ts'

/** Retired cells that are worth a grace period, which takes up to some ms: so it is paid once in very many edits. */
const RECLAIM_CELLS = 4096

/** What a list is to hold. */
export interface ListNeeds {
  readonly servers: number
  /** enum lb_sched */
  readonly scheduler: number
  readonly audience: boolean
  /** Of clients who may come. */
  readonly intervals: number
}

/** Room for a list, and for its other parts, where it has them; 0: it has not. */
export interface ListRoom {
  /** Of the list's head. */
  readonly cell: number
  /** Of the table's first buckets. */
  readonly table: number
  /** Of the first interval. */
  readonly allowed: number
}

/** Ranges for lists, in their order. Other services' lists may have moved afterwards. TABLE_FULL: there are none of them. */
export function allocateLists(maps: TableMaps, lists: readonly ListNeeds[]): ListRoom[] {
  const rooms = lists.map(() => ({ cell: 0, table: 0, allowed: 0 }))
  const wanted = lists.flatMap((needs, i) => partsOf(needs).map((part) => ({ ...part, room: rooms[i] })))
  // Said at once: a full table may be asked for room a hundred thousand times in one edit. Cell 0 is no range's.
  const cells = wanted.reduce((sum, { order }) => sum + 2 ** order, 0)
  if (maps.book.cellsUsed(0) + cells > maps.cells.length - 1) throw noCells(cells)
  /* The largest first: room for the others can then be made around it. */
  if (wanted.length > 1) wanted.sort((a, b) => b.order - a.order)
  const taken: CellRange[] = []
  try {
    for (const { room, as, order } of wanted) {
      const start = allocateCells(maps, order, taken)
      taken.push({ start, order })
      if (room !== undefined) room[as] = start
    }
  } catch (error) {
    for (const { start, order } of taken) pushFree(maps, start, order)
    throw error
  }
  return rooms
}

/** Orders of the ranges that a list needs. */
function partsOf({ servers, scheduler, audience, intervals }: ListNeeds): { as: keyof ListRoom; order: number }[] {
  const parts: { as: keyof ListRoom; order: number }[] = [{ as: 'cell', order: orderFor(servers, audience) }]
  const table = tableOrder(scheduler, servers)
  if (table !== undefined) parts.push({ as: 'table', order: table })
  const allowed = allowedOrder(intervals)
  if (allowed !== undefined) parts.push({ as: 'allowed', order: allowed })
  return parts
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
