/**
 * The table of one network namespace as its clients (bpvsadm, bpvsd's sources, the admin API) see it.
 *
 * Every method that writes takes the namespace's lock (flock), reads what other processes did meanwhile, writes in
 * an order in which a packet sees the old list or the new one, and raises the generation number. Errors are LbError
 * with the codes named at each method; the table is unchanged when a method throws.
 */
import type { Peers } from '../maps/peers.ts'
import type { NodePortAddresses } from '../maps/node-ports.ts'
import type { PodsKnown } from '../maps/pods.ts'
import type { Settings, SettingsChange } from '../model/settings.ts'
import type { EndOptions } from './end-connection.ts'
import type {
  ConnectionKey,
  ConnectionView,
  Counters,
  Prefix,
  Rates,
  ServerKey,
  ServerSpec,
  ServiceKey,
  ServiceSpec,
  ServiceView,
  Source,
  Timeouts,
} from '../model/types.ts'

/** Of the whole table. */
export interface Totals {
  readonly counters: Counters
  readonly rates: Rates
}

export interface Table {
  /** Size of the connection table, as the listing's first line shows it. */
  readonly connectionSlots: number
  /** Jiffies in a second of the kernel. */
  readonly hz: number
  /** Count of edits by anybody. */
  generation(): bigint
  /** All services, in the order of their ids. */
  services(): ServiceView[]
  /**
   * Passes each of them on, one after the other, for tables so large that all at once are too many, until `visit` answers
   * false. `after`: those of greater ids. `visit` must not call the table.
   */
  eachService(visit: (service: ServiceView) => unknown, after?: number): void
  /** One service, or undefined. */
  service(key: ServiceKey): ServiceView | undefined
  /** What everything together counted, services that are gone included. */
  totals(): Totals
  /** What each CPU counted of the servers that there are, -Z notwithstanding; CPUs share a place in a large table. */
  cpuCounters(): Counters[]
  /** Connections that have not expired, in table order. */
  connections(): Iterable<ConnectionView>
  /** One connection, or persistence template, that has not expired. */
  connection(key: ConnectionKey): ConnectionView | undefined
  /**
   * Ends a connection: whoever says something next is told so, as of any connection that is not there. A template leads
   * nobody to its server any more; connections that it made go on. Of a connection of a socket the socket ends.
   * NO_CONNECTION, UNSUPPORTED (a socket that cannot be ended), NATIVE, and what `options.check` throws.
   */
  endConnection(key: ConnectionKey, options?: EndOptions): void
  timeouts(): Timeouts
  settings(): Settings
  /** Does several things as one: nobody else edits in between. NATIVE. */
  exclusively<T>(work: () => T): T

  /** SERVICE_EXISTS, NO_SCHEDULER, INVALID, TABLE_FULL. */
  addService(spec: ServiceSpec, source?: Source): void
  /** NO_SERVICE, NO_SCHEDULER, INVALID. Servers, counters, with the same scheduler its state, and a policy not named stay. */
  editService(spec: ServiceSpec): void
  /** NO_SERVICE. */
  deleteService(key: ServiceKey): void
  /** Removes every service. */
  clear(): void
  /** SERVICE_NOT_DEFINED, SERVER_EXISTS, RANGE (thresholds, weight), TABLE_FULL. */
  addServer(service: ServiceKey, spec: ServerSpec): void
  /** SERVICE_NOT_DEFINED, NO_SERVER, RANGE. */
  editServer(service: ServiceKey, spec: ServerSpec): void
  /** SERVICE_NOT_DEFINED, NO_SERVER. */
  deleteServer(service: ServiceKey, server: ServerKey): void
  /** Zeroes the counters of one service (NO_SERVICE) or of all, and their servers'. */
  zero(key?: ServiceKey): void
  /** 0 leaves a timeout as it is. */
  setTimeouts(timeouts: Timeouts): void
  /** What is in force when this returns. */
  changeSettings(change: SettingsChange): void
  /** Unmaps and closes; the table itself stays. */
  close(): void
}

/** A service with its servers, as a source wants it. */
export interface DesiredService {
  readonly service: ServiceSpec
  readonly servers: readonly ServerSpec[]
  /** Servers for clients in pods and on the host itself; absent: they get those that all others get. */
  readonly insiders?: readonly ServerSpec[]
}

/** How a desired state differs from the one that the same source gave before. */
export interface DesiredChanges {
  readonly added: readonly DesiredService[]
  readonly dropped: readonly DesiredService[]
}

/** What a source's state became: what could be programmed, and what could not and why. */
export interface ApplyResult {
  readonly added: number
  readonly changed: number
  readonly removed: number
  readonly failed: readonly { readonly key: ServiceKey; readonly error: unknown }[]
}

/** A table that takes a whole desired state of a source. */
export interface ReconcilingTable extends Table {
  /** Whether connection tracking can be asked whose a packet is, while another balancer's connections are left alone. */
  knowsOthers(): boolean
  /** Sees to it that tunnels begin at the addresses that the host has now, where the kernel leaves that to user space. NATIVE. */
  refreshSources(): void
  /** At which addresses node ports are served, of each family one: sockets of the host mind them. INVALID. */
  setNodePortAddresses(addresses: NodePortAddresses): void
  /** How packets of the cluster's pods are known from now on. INVALID, NATIVE. */
  setPods(pods: PodsKnown): void
  /**
   * Addresses of which all that no service takes is refused (with `known` also what is for no service's address: dropped).
   * TABLE_FULL: more than 32; INVALID.
   */
  setServiceRanges(prefixes: readonly Prefix[], known: boolean): void
  /** Nodes that send packets on to each other in tunnels (ServicePolicy.tunnelled). INVALID, NATIVE. */
  setPeers(peers: Peers): void
  /**
   * Makes what `source` owns be exactly `desired`, in one locked edit, touching only what differs. A service that
   * another source owns is reported in `failed` and left alone. With `changes` since the last call of the same source only
   * these are looked at, if nobody else edited. A server that is no longer wanted while its service is, and that has TCP
   * connections, stays with weight 0 until these have ended, `drainLimitS` seconds at most (0, the default: it goes at once).
   */
  apply(source: Source, desired: readonly DesiredService[], changes?: DesiredChanges, drainLimitS?: number): ApplyResult
  /**
   * Whether a server that `source` has draining is to go: its connections have ended, or its time is up. Then the next
   * `apply`, also without changes, takes it away. Costs what drains.
   */
  hasDrained(source: Source, drainLimitS: number): boolean
}
