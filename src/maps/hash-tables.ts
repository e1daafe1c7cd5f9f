/**
 * Tables of schedulers by hash (dh, sh, mh): which server of a list each bucket is for. A table follows from its list
 * alone, has a range of cells of its own, and comes into force with the list whose head names it.
 */
import { LbCellArray, LbLimit, LbSched, LbServerArray } from '../abi/generated.ts'
import { fillByWeight, fillInTurn, fillMaglev, foldAddress } from './buckets.ts'
import type { CellRange } from './audience.ts'
import { readList } from './lists.ts'
import type { TableMaps } from './table-maps.ts'

const bucketCounts: ReadonlyMap<number, number> = new Map([
  [LbSched.SCHED_DH, LbLimit.HASH_BUCKETS],
  [LbSched.SCHED_SH, LbLimit.HASH_BUCKETS],
  [LbSched.SCHED_MH, LbLimit.MH_BUCKETS],
])

/** Order of the range for the table of a list; undefined: it has none. `scheduler`: enum lb_sched. */
export function tableOrder(scheduler: number, servers: number): number | undefined {
  const buckets = bucketCounts.get(scheduler)
  if (buckets === undefined || servers === 0) return undefined
  return Math.ceil(Math.log2(buckets / LbLimit.CELL_BUCKETS))
}

/** The range of the table of the list whose head is `cell`, if it has one. */
export function tableRange(cells: LbCellArray, cell: number): CellRange | undefined {
  const order = tableOrder(cells.listSched(cell), cells.listCount(cell))
  return order === undefined ? undefined : { start: cells.listTable(cell), order }
}

/** Fills the table of a list that is written, with servers that are. */
export function writeTable(maps: TableMaps, cell: number): void {
  tableOf(maps, cell)?.set(computeTable(maps, cell))
}

/** Whether the table of a list is what it must be. */
export function isTableRight(maps: TableMaps, cell: number): boolean {
  const table = tableOf(maps, cell)
  if (table === undefined) return maps.cells.listTable(cell) === 0
  const due = computeTable(maps, cell)
  return table.every((server, bucket) => server === due[bucket])
}

/** The buckets of a list's table, in place; undefined: it has none. */
function tableOf({ cells }: TableMaps, cell: number): Uint16Array | undefined {
  const buckets = bucketCounts.get(cells.listSched(cell))
  if (buckets === undefined || cells.listCount(cell) === 0) return undefined
  const { buffer, byteOffset } = cells.u8
  return new Uint16Array(buffer, byteOffset + cells.listTable(cell) * LbCellArray.size, buckets)
}

function computeTable(maps: TableMaps, cell: number): Uint16Array {
  const { cells } = maps
  const scheduler = cells.listSched(cell)
  const buckets = new Uint16Array(bucketCounts.get(scheduler) ?? 0)
  const { ids, weights } = readList(cells, cell)
  if (scheduler === LbSched.SCHED_DH) fillInTurn(buckets, ids.length)
  else if (scheduler === LbSched.SCHED_SH) fillByWeight(buckets, weights)
  else fillOldest(maps, cells.listService(cell), buckets, ids)
  return buckets
}

/** The kernel leaves mh's table as it is while there are more servers than buckets, so the newest of them get none. */
function fillOldest(maps: TableMaps, service: number, buckets: Uint16Array, ids: readonly number[]): void {
  const { servers, services } = maps
  const first = Math.max(0, ids.length - buckets.length)
  const family = services.af(service) /* the service's, for servers of the other one too (ip_vs_mh_permutate()) */
  fillMaglev(
    buckets,
    ids.slice(first).map((id) => ({
      key: (servers.port(id) + foldAddress(servers.view, id * LbServerArray.size, family)) >>> 0,
      weight: servers.lastWeight(id),
    })),
  )
  if (first > 0) for (let i = 0; i < buckets.length; i++) buckets[i] = (buckets[i] ?? 0) + first
}
