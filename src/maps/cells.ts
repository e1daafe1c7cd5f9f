/** Allocation of ranges of cells (see free-cells.ts), with the table's lock held. */
import { LbError } from '../model/errors.ts'
import { makeRoom, rebuildFreeRanges } from './cell-compaction.ts'
import { popFree, pushFreeSpan, reclaimCells, takeFree } from './free-cells.ts'
import type { TableMaps } from './table-maps.ts'

/** Retired cells that are worth a grace period, which takes up to some ms: so it is paid once in very many edits. */
const RECLAIM_CELLS = 4096

/** A range of 1 << order cells, not in force. Other services' lists may have moved afterwards. TABLE_FULL. */
export function allocateCells(maps: TableMaps, order: number): number {
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
    rebuildFreeRanges(maps, [])
    cell = takeFree(maps, order) || makeRoom(maps, order)
  }
  if (cell === 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_cells', cells: 2 ** order })
  return cell
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
