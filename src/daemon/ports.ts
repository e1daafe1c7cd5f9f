/** What the daemon needs of the world. The kernel's side is in kernel-host.ts; tests bring their own. */
import type { ReconcilingTable } from '../engine/table.ts'
import type { IpAddress } from '../kube/address.ts'
import type { HostInterface } from '../kube/local-detection.ts'
import type { PortRange, TakenPorts } from '../model/masquerade-ports.ts'
import type { ServerView, ServiceKey } from '../model/types.ts'

/** Which interfaces get the programs: names, with * for any characters; exclusion wins. */
export interface AttachPolicy {
  readonly include: readonly string[]
  readonly exclude: readonly string[]
  readonly xdp: 'auto' | 'native' | 'generic' | 'off'
}

/** Whose sockets are balanced. Control groups are named as in /proc/PID/cgroup. */
export interface SocketPolicy {
  readonly scope: 'off' | 'host' | 'all'
  readonly protocols: 'all' | 'tcp'
  /** Left out: the root of all groups. */
  readonly group?: string
  readonly leave: readonly string[]
}

/** What a pass over the interfaces did. */
export interface AttachChanges {
  readonly attached: readonly { readonly interface: string; readonly hook: string; readonly kind: string }[]
  /** ifindexes of interfaces that are gone or no longer wanted. */
  readonly detached: readonly number[]
  readonly failed: readonly { readonly interface: string; readonly error: unknown }[]
}

export interface TableRoom {
  readonly services: number
  readonly servers: number
  readonly connections: number
}

/** What the daemon asks of a table. */
export type ManagedTable = Pick<
  ReconcilingTable,
  | 'generation'
  | 'apply'
  | 'hasDrained'
  | 'service'
  | 'services'
  | 'settings'
  | 'knowsOthers'
  | 'changeSettings'
  | 'setTimeouts'
  | 'setNodePortAddresses'
  | 'setPods'
  | 'setServiceRanges'
  | 'setPeers'
  | 'refreshSources'
  | 'close'
>

/** The network namespace that the daemon runs in. Calls throw LbError. */
export interface Host {
  /** The namespace's table: the one that is there, with its programs brought up to this build, or a new one. */
  openTable(room: TableRoom, policy: AttachPolicy): ManagedTable
  /** Whether the table opened last is still the namespace's; false once somebody unloaded it. */
  tableIsCurrent(): boolean
  /** Makes the attachments what the policy wants; idempotent. One bad interface does not stop the rest. */
  attachInterfaces(policy: AttachPolicy): AttachChanges
  /** Makes the programs for sockets what the policy wants; idempotent. Returns whether anything changed. */
  balanceSockets(policy: SocketPolicy): boolean
  /** Ends sockets that are connected to a server that was removed; returns how many. Before Linux 6.5 none is. */
  endStuckSockets(policy: SocketPolicy): number
  /** Addresses of the interfaces that are up, bpvs's own left out. */
  localAddresses(): readonly IpAddress[]
  /** The interfaces, bpvs's own left out. */
  listInterfaces(): readonly HostInterface[]
  /** Ports that the kernel gives out by itself, or keeps. */
  kernelPorts(): readonly TakenPorts[]
  /** Has the kernel give out these ports to nobody. NATIVE. */
  reservePorts(range: PortRange): void
  /** What there is of another proxy that takes connections. NATIVE, PERMISSION. */
  findProxy(): readonly string[]
  /**
   * Connections that connection tracking translates and that were sent to a service of ours; `serversOf`: its servers, undefined: it is
   * none. Flows of datagrams to what is no server any more are forgotten. NATIVE, PERMISSION.
   */
  settleTranslated(serversOf: (key: ServiceKey) => readonly Pick<ServerView, 'address' | 'port'>[] | undefined): number
  /** Lets the kernel translate no more for our sake. NATIVE, PERMISSION. */
  forgetTranslated(): void
  /** Calls back soon after interfaces came, went or changed; many changes may make one call. */
  onLinkChange(onChange: () => void, onError: (error: Error) => void): { close(): void }
  /** Removes programs, table and pins of this namespace; false if there was nothing. */
  unload(): boolean
}

/** Time. Timers that were cancelled don't fire. */
export interface Timers {
  /** Milliseconds, monotonic. */
  now(): number
  after(ms: number, run: () => void): { cancel(): void }
  every(ms: number, run: () => void): { cancel(): void }
}

export const realTimers: Timers = {
  now: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    return { cancel: () => clearTimeout(timer) }
  },
  every: (ms, run) => {
    const timer = setInterval(run, ms)
    return { cancel: () => clearInterval(timer) }
  },
}
