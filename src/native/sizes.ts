/** How big each map is, from how much a table is to hold. Pure. */
import { LbLimit, type MapName, maps } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'

/** What a table is to hold, at least. */
export interface TableSizes {
  /** Records: one for each service, one more for each address that services have. */
  readonly services: number
  readonly servers: number
  /** Cells of 4 servers; lists and their successors live in ranges of 2^n cells. A list of sh or dh takes 16 cells more, of mh 256. */
  readonly cells: number
  readonly connections: number
}

/**
 * Enough for a director or a small cluster. In MiB: services 2 + state 1 + index 0.5, servers 4 + state 2,
 * cells 8, counters 8 (2 lanes) + base 6, rates 5, filter 0.25, memos 1, connections 16 +
 * index 8: 62 in all.
 */
export const defaultSizes: TableSizes = { services: 32768, servers: 65536, cells: 262144, connections: 262144 }

/** Counters are per CPU as long as that takes no more memory than this; then CPUs share lanes. */
const MAX_STATS_BYTES = 8 << 20
const MIN_FILTER_BITS = 1 << 16
const MAX_ENTRIES = 1 << 28

/** Entries of each map, and the constants that depend on them. */
export interface Geometry {
  readonly entries: Readonly<Partial<Record<MapName, number>>>
  readonly constants: {
    readonly serviceLineMask: number
    readonly filterMask: number
    readonly connLineMask: number
    readonly connMax: number
    readonly serverMax: number
    readonly laneMask: number
    readonly lanesShared: number
  }
  /** Memory of all these maps. */
  readonly bytes: number
}

function powerOfTwo(value: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1, value)))
}

function checkedSize(name: keyof TableSizes, sizes: TableSizes): number {
  const value = sizes[name]
  if (!Number.isInteger(value) || value < 2 || value > MAX_ENTRIES) {
    throw new LbError('CONFIG', `size of ${name}: ${value} is not a number from 2 to ${MAX_ENTRIES}`, { name, value })
  }
  return powerOfTwo(value)
}

/** `cpus`: possible CPUs. CONFIG if a size makes no sense. */
export function planGeometry(sizes: TableSizes, cpus: number): Geometry {
  const services = checkedSize('services', sizes)
  const servers = checkedSize('servers', sizes)
  const cells = checkedSize('cells', sizes)
  const connections = checkedSize('connections', sizes)
  /* Two connections a line on average: one in a thousand lines gets more than the seven that it holds, and spills. */
  const connLines = connections / 2
  const serviceLines = powerOfTwo(services / 4)
  const filterBits = Math.max(MIN_FILTER_BITS, 16 * Math.max(services, servers))
  const affordable = Math.floor(MAX_STATS_BYTES / (servers * maps.lb_stats.valueSize))
  const lanes = Math.min(powerOfTwo(cpus), Math.max(1, 2 ** Math.floor(Math.log2(Math.max(1, affordable)))))
  const memos = Math.max(1, servers / LbLimit.MEMO_SHARE)
  const entries: Partial<Record<MapName, number>> = {
    lb_service_index: serviceLines,
    lb_services: services,
    lb_service_states: services,
    lb_cells: cells,
    lb_servers: servers,
    lb_server_states: servers,
    lb_stats: lanes * servers,
    lb_stats_base: servers + services,
    lb_memos: memos,
    lb_memo_lines: memos,
    lb_rates: servers + services,
    lb_filter: (2 * filterBits) / 64,
    lb_conns: connections,
    lb_conn_index: connLines,
    lb_conn_pools: lanes,
    lb_verdicts: lanes * LbLimit.VERDICTS,
  }
  const bytes = Object.entries(entries).reduce((sum, [name, n]) => sum + n * maps[name as MapName].valueSize, 0)
  return {
    entries,
    constants: {
      serviceLineMask: serviceLines - 1,
      filterMask: filterBits - 1,
      connLineMask: connLines - 1,
      connMax: connections,
      serverMax: servers,
      laneMask: lanes - 1,
      lanesShared: lanes < cpus ? 1 : 0,
    },
    bytes,
  }
}
