/**
 * A table in plain memory: the same arrays as the kernel's, a hash of our own, a clock that only moves when told. Grace
 * periods take no time; what was retired stays readable until one, as in the kernel.
 */
import { LbLimit, maps } from '../../src/abi/generated.ts'
import type { MapName } from '../../src/abi/generated.ts'
import { ENDPOINT_SIZE } from '../../src/native/endpoints.ts'
import { formatAddress } from '../../src/model/address.ts'
import type { RouteType } from '../../src/model/server-address.ts'
import type { TableConstants, TableHandles } from '../../src/native/handles.ts'
import type { PeerRecord } from '../../src/native/peer-map.ts'
import type { TunnelEnd } from '../../src/native/sources.ts'
import type { Mark } from '../../src/native/steering.ts'

/** How much the table holds. Powers of two where the kernel's are. */
export interface MemorySizes {
  readonly services: number
  readonly servers: number
  readonly cells: number
  readonly lines: number
  readonly filterBits: number
  readonly connections: number
  readonly lanes: number
}

const defaults: MemorySizes = {
  services: 256,
  servers: 1024,
  cells: 4096,
  lines: 128,
  filterBits: 65536,
  connections: 64,
  lanes: 2,
}

export class MemoryHandles implements TableHandles {
  readonly dir = 'memory'
  readonly rodata: TableConstants
  readonly #buffers = new Map<MapName, ArrayBuffer>()
  /** Monotonic seconds. */
  nowS = 1000
  jiffies = 5_000_000_000n
  graces = 0
  /** Called in every grace period. */
  onGrace: (() => void) | undefined
  /** Marks whose packets come to the programs. */
  steered: readonly Mark[] = []
  readonly localAddresses = new Set<string>()
  /** Interfaces that pods are behind. */
  podLinks: readonly number[] = []
  peers: readonly PeerRecord[] = []
  /** Servers in tunnels that the programs were told of. */
  readonly tunnelEnds = new Set<string>()

  constructor(sizes: Partial<MemorySizes> = {}) {
    const all = { ...defaults, ...sizes }
    this.rodata = {
      hashKey: new BigUint64Array(12),
      serviceLineMask: all.lines - 1,
      filterMask: all.filterBits - 1,
      connLineMask: 0,
      connMax: all.connections,
      serverMax: all.servers,
      laneMask: all.lanes - 1,
      lanesShared: 0,
      tickShift: 4,
      hz: 250,
    }
    const entries: Partial<Record<MapName, number>> = {
      lb_service_index: all.lines,
      lb_services: all.services,
      lb_service_states: all.services,
      lb_cells: all.cells,
      lb_servers: all.servers,
      lb_server_states: all.servers,
      lb_stats: all.lanes * all.servers,
      lb_stats_base: all.servers + all.services,
      lb_rates: all.servers + all.services,
      lb_memos: all.servers / 4,
      lb_memo_lines: all.servers / 4,
      lb_filter: (2 * all.filterBits) / 64,
      lb_conns: all.connections,
      lb_conn_pools: all.lanes,
      lb_verdicts: all.lanes * 64,
      lb_mark_rules: 2 * LbLimit.MAX_MARK_RULES,
      lb_service_ranges: LbLimit.MAX_SERVICE_RANGES,
    }
    for (const name of Object.keys(maps) as MapName[]) {
      this.#buffers.set(name, new ArrayBuffer((entries[name] ?? 1) * maps[name].valueSize))
    }
  }

  buffer(map: MapName): ArrayBuffer {
    const buffer = this.#buffers.get(map)
    if (buffer === undefined) throw new Error(`no map ${map}`)
    return buffer
  }

  withLock<T>(fn: () => T): T {
    return fn()
  }

  clock(): { readonly jiffies: bigint; readonly ktimeNs: bigint; readonly conntrackReadable: boolean } {
    return { jiffies: this.jiffies, ktimeNs: BigInt(this.nowS) * 1_000_000_000n, conntrackReadable: false }
  }

  monotonicNs(): bigint {
    return this.clock().ktimeNs
  }

  readonly wantsSources = true

  /** Nothing expires by itself. */
  sweep(): void {}

  /** There is no program. */
  enterSynced(): void {}

  nameSockets(): boolean {
    return false
  }

  endConnection(): never {
    throw new Error('there is no program')
  }

  hashService(): never {
    throw new Error('the batch form is enough')
  }

  hashServer(): never {
    throw new Error('the batch form is enough')
  }

  hashServices(endpoints: Uint8Array): Uint32Array {
    const { serviceLineMask, filterMask } = this.rodata
    return this.#hash(endpoints, 4, (h, g, out) => {
      out[0] = h & serviceLineMask
      out[1] = (h + ((g >>> 8) | 1)) & serviceLineMask
      out[2] = g | 1
      out[3] = (h ^ g) & filterMask
    })
  }

  hashServers(endpoints: Uint8Array): Uint32Array {
    const { filterMask } = this.rodata
    return this.#hash(endpoints, 1, (h, g, out) => {
      out[0] = ((h + g) & filterMask) + filterMask + 1
    })
  }

  gracePeriod(): void {
    this.graces++
    this.onGrace?.()
  }

  routeType(family: 4 | 6, address: Uint8Array): RouteType {
    return this.localAddresses.has(formatAddress(address, 0, family)) ? 'local' : 'unicast'
  }

  tellSources(ends: readonly TunnelEnd[], only: boolean): void {
    if (only) this.tunnelEnds.clear()
    for (const { family, address } of ends) this.tunnelEnds.add(formatAddress(address, 0, family))
  }

  steer(marks: readonly Mark[]): void {
    this.steered = marks
  }

  setPodLinks(links: readonly number[]): boolean {
    const before = this.podLinks
    this.podLinks = links
    return before.join() !== links.join()
  }

  setPeers(records: readonly PeerRecord[]): boolean {
    const before = this.peers
    this.peers = records
    return JSON.stringify(before) !== JSON.stringify(records)
  }

  close(): void {
    this.#buffers.clear()
  }

  /** Two 32-bit FNV-like hashes of each endpoint. */
  #hash(endpoints: Uint8Array, words: number, put: (h: number, g: number, out: Uint32Array) => void): Uint32Array {
    const count = endpoints.length / ENDPOINT_SIZE
    const out = new Uint32Array(count * words)
    for (let i = 0; i < count; i++) {
      let h = 0x811c9dc5
      let g = 0x01000193
      for (let b = i * ENDPOINT_SIZE; b < (i + 1) * ENDPOINT_SIZE; b++) {
        h = Math.imul(h ^ (endpoints[b] ?? 0), 0x01000193)
        g = Math.imul(g + (endpoints[b] ?? 0), 0x9e3779b1) ^ (g >>> 15)
      }
      put((h ^ (h >>> 16)) >>> 0, g >>> 0, out.subarray(i * words, (i + 1) * words))
    }
    return out
  }
}
