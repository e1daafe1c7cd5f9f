/** What a sync daemon is started with, and how that passes from bpvsadm to the daemon's process. Pure. */
import type { Family } from '../model/types.ts'

export type SyncRole = 'master' | 'backup'

/** A sync daemon that runs. Lengths in bytes, ports in host order; the group is canonical text. */
export interface SyncDaemon {
  readonly role: SyncRole
  readonly syncId: number
  readonly interface: string
  readonly maxLength: number
  readonly group: string
  readonly port: number
  readonly ttl: number
}

/** What a daemon counted since it was started. */
export interface SyncCounters {
  /** Sent, or received. */
  readonly messages: bigint
  readonly connections: bigint
  /** Received, but malformed (messages) or of no use here (connections). */
  readonly refused: bigint
  /** Messages that could not be sent; connections for which the table had no room. */
  readonly failed: bigint
  /** Connections whose server is not in the table, now. */
  readonly waiting: bigint
}

export interface RunningSyncDaemon extends SyncDaemon {
  readonly counters: SyncCounters
}

/** A sync daemon as it was asked for; what is absent is chosen as start_sync_thread() does. */
export type SyncDaemonRequest = Pick<SyncDaemon, 'role' | 'syncId' | 'interface'> & Partial<SyncDaemon>

export const syncRoles: readonly SyncRole[] = ['master', 'backup']

const DEFAULT_GROUP = '224.0.0.81'
const DEFAULT_PORT = 8848
const DEFAULT_TTL = 1
const LARGEST_DATAGRAM = 65535
/** A master's messages fit an Ethernet frame, whatever its interface takes. */
const ETHERNET_MTU = 1500
/** A backup has room for a peer's messages of at least this size. */
const LEAST_BACKUP = 1024
const HEADERS = { 4: 28, 6: 48 } as const

export function groupFamily(group: string): Family {
  return group.includes(':') ? 6 : 4
}

/** The request with everything that was left open; `mtu` is the interface's. As start_sync_thread(). */
export function completeRequest(request: SyncDaemonRequest, mtu: number): SyncDaemon {
  const { role, syncId, interface: name, group = DEFAULT_GROUP, port = DEFAULT_PORT, ttl = DEFAULT_TTL } = request
  const headers = HEADERS[groupFamily(group)]
  const room = role === 'backup' ? Math.min(Math.max(mtu, ETHERNET_MTU), LARGEST_DATAGRAM) : ETHERNET_MTU
  const least = role === 'backup' ? LEAST_BACKUP : 1
  const maxLength =
    request.maxLength === undefined
      ? room - headers
      : Math.min(Math.max(request.maxLength, least), LARGEST_DATAGRAM - headers)
  return { role, syncId, interface: name, maxLength, group, port, ttl }
}
