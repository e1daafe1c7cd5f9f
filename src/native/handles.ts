/** What a table's users hold: the pinned maps of one network namespace, mapped, and the calls that go with them. */
import type { MapName } from '../abi/generated.ts'
import type { RouteType } from '../model/server-address.ts'
import type { PeerRecord } from './peer-map.ts'
import type { TunnelEnd } from './sources.ts'
import type { Mark } from './steering.ts'

/** Load-time constants of the programs in force. Masks are counts - 1. */
export interface TableConstants {
  readonly hashKey: BigUint64Array
  readonly serviceLineMask: number
  readonly filterMask: number
  readonly connLineMask: number
  readonly connMax: number
  readonly serverMax: number
  readonly laneMask: number
  readonly lanesShared: number
  readonly tickShift: number
  readonly hz: number
}

/** Where a service's hash leads: two lines of lb_service_index, the tag to look for, a bit of lb_filter. */
export interface ServiceSpot {
  readonly first: number
  readonly second: number
  readonly tag: number
  readonly filterBit: number
}

/** The pinned table of a namespace, mapped. Addresses are 16 bytes in network order (an IPv4 address in the first
 * four), ports in host order, families 4 and 6. After close() every buffer has length 0. */
export interface TableHandles {
  /** Pin directory. */
  readonly dir: string
  readonly rodata: TableConstants
  /** The value area of a map, shared with the kernel; the same buffer every time. */
  buffer(map: MapName): ArrayBuffer
  /** Runs `fn` with the namespace's lock held (flock), waiting for it. Re-entrant in one process. */
  withLock<T>(fn: () => T): T
  /** The kernel's coarse clock and CLOCK_MONOTONIC, now. */
  clock(): { readonly jiffies: bigint; readonly ktimeNs: bigint; readonly conntrackReadable: boolean }
  /** CLOCK_MONOTONIC of the kernel, nanoseconds, without asking it each time. */
  monotonicNs(): bigint
  /** Ends every connection that has expired by now, so that the counts of servers are exact. */
  sweep(): void
  /**
   * Notes in connections of sockets what these are bound to; `elsewhere`: those of all other namespaces that can be entered, else of
   * the table's. False: no sockets are balanced.
   */
  nameSockets(elsewhere: boolean): boolean
  /** Enters the connections of lb_sync_conns, which says of each what became of it. */
  enterSynced(): void
  /** Runs lb_end on a wish: index of an entry, what to do (enum lb_end_how), the entry as it was read. enum lb_ended. NATIVE. */
  endConnection(wish: Uint8Array): number
  /** A firewall mark hashes as protocol 0, port 0 and an address whose first word in memory is the mark. */
  hashService(family: 4 | 6, protocol: number, address: Uint8Array, port: number): ServiceSpot
  /** The bit is in the second half of lb_filter already. */
  hashServer(family: 4 | 6, protocol: number, address: Uint8Array, port: number): { readonly filterBit: number }
  /** Many at once: packed endpoints (see endpoints.ts), four words each: first, second, tag, filter bit. */
  hashServices(endpoints: Uint8Array): Uint32Array
  /** Many at once: packed endpoints, one filter bit each. */
  hashServers(endpoints: Uint8Array): Uint32Array
  /** When it returns, every program that ran when it was called has ended. */
  gracePeriod(): void
  /** Whether the programs have to be told what this namespace sends from to servers in tunnels. */
  readonly wantsSources: boolean
  /** How a packet to an address (4 or 16 bytes, by family) would be routed now. NATIVE. */
  routeType(family: 4 | 6, address: Uint8Array): RouteType
  /** Has exactly the packets that netfilter gives these marks come to the programs. NATIVE, PERMISSION. */
  steer(marks: readonly Mark[]): void
  /**
   * Tells the programs what this namespace sends from to servers in tunnels, as its routes are now, if they want to be told;
   * `only`: and of no others. NATIVE.
   */
  tellSources(ends: readonly TunnelEnd[], only: boolean): void
  /** Makes these the interfaces that pods are behind (ifindexes); true if others were before. NATIVE. */
  setPodLinks(links: readonly number[]): boolean
  /** Makes these the nodes that tunnels come from, and this one; true if others were before. NATIVE. */
  setPeers(records: readonly PeerRecord[]): boolean
  close(): void
}
