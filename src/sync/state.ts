/** The sync daemons of a table: how each was started and what it did, and the lock that tells whether it lives. */
import { closeSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { LbSyncDaemonArray, LbSyncRole } from '../abi/generated.ts'
import { formatAddress, writeAddress } from '../model/address.ts'
import type { TableHandles } from '../native/handles.ts'
import { makeDirectory, SYNC_MARK } from '../native/pins.ts'
import { type Fd, openDirectory, unlock } from '../native/shim.ts'
import { tryLock } from '../native/sync.ts'
import { groupFamily, type SyncCounters, type SyncDaemon, type SyncRole } from './options.ts'

const records = { master: LbSyncRole.SYNC_MASTER, backup: LbSyncRole.SYNC_BACKUP } as const
const INTERFACE_BYTES = 16

/** The record of one role in lb_sync_daemons. */
export class SyncState {
  readonly #daemons: LbSyncDaemonArray
  readonly #role: SyncRole
  readonly #record: number

  constructor(handles: TableHandles, role: SyncRole) {
    this.#daemons = new LbSyncDaemonArray(handles.buffer('lb_sync_daemons'))
    this.#role = role
    this.#record = records[role]
  }

  /** How the daemon was started that lives, or lived last. */
  read(): SyncDaemon {
    const at = this.#record
    const name = Buffer.from(this.#daemons.interface(at))
    return {
      role: this.#role,
      syncId: this.#daemons.syncId(at),
      interface: name.toString('utf8', 0, name.indexOf(0)),
      maxLength: this.#daemons.maxLength(at),
      group: formatAddress(this.#daemons.group(at), 0, this.#daemons.af(at) === 6 ? 6 : 4),
      port: this.#daemons.port(at),
      ttl: this.#daemons.ttl(at),
    }
  }

  /** Notes a daemon that begins: nothing is counted yet, and nobody wants it to end. */
  write(daemon: SyncDaemon): void {
    const at = this.#record
    const family = groupFamily(daemon.group)
    const group = new Uint8Array(16)
    writeAddress(group, 0, daemon.group, family)
    this.#daemons.clear(at)
    this.#daemons.setGroup(at, group)
    this.#daemons.setAf(at, family)
    this.#daemons.setPort(at, daemon.port)
    this.#daemons.setTtl(at, daemon.ttl)
    this.#daemons.setMaxLength(at, daemon.maxLength)
    this.#daemons.setSyncId(at, daemon.syncId)
    const name = new Uint8Array(INTERFACE_BYTES)
    name.set(Buffer.from(daemon.interface))
    this.#daemons.setInterface(at, name)
  }

  counters(): SyncCounters {
    const at = this.#record
    return {
      messages: this.#daemons.messages(at),
      connections: this.#daemons.connections(at),
      refused: this.#daemons.refused(at),
      failed: this.#daemons.failed(at),
      waiting: this.#daemons.waiting(at),
    }
  }

  /** Adds to counters; `waiting` is what it is now. */
  count(more: Partial<Record<keyof SyncCounters, number>>): void {
    const at = this.#record
    const { messages = 0, connections = 0, refused = 0, failed = 0, waiting } = more
    this.#daemons.setMessages(at, this.#daemons.messages(at) + BigInt(messages))
    this.#daemons.setConnections(at, this.#daemons.connections(at) + BigInt(connections))
    this.#daemons.setRefused(at, this.#daemons.refused(at) + BigInt(refused))
    this.#daemons.setFailed(at, this.#daemons.failed(at) + BigInt(failed))
    if (waiting !== undefined) this.#daemons.setWaiting(at, BigInt(waiting))
  }

  /** Asks the daemon to end. */
  requestStop(): void {
    this.#daemons.setStop(this.#record, 1)
  }

  stopRequested(): boolean {
    return this.#daemons.stop(this.#record) !== 0
  }
}

/** The directory whose lock a daemon holds as long as it lives; the kernel releases it however the process ends. */
function lockDirectory(handles: TableHandles, role: SyncRole): string {
  return join(handles.dir, `${SYNC_MARK}${role}`)
}

/** Takes the lock of a role, for life; undefined: another daemon has it. NATIVE, PERMISSION. */
export function acquireRole(handles: TableHandles, role: SyncRole): Fd | undefined {
  const dir = lockDirectory(handles, role)
  return handles.withLock(() => {
    makeDirectory(dir)
    const fd = openDirectory(dir)
    if (tryLock(fd)) return fd
    closeSync(fd)
    return undefined
  })
}

/** Whether a daemon of this role lives. NATIVE, PERMISSION. */
export function isRunning(handles: TableHandles, role: SyncRole): boolean {
  const dir = lockDirectory(handles, role)
  return handles.withLock(() => {
    if (!existsSync(dir)) return false
    const fd = openDirectory(dir)
    try {
      const free = tryLock(fd)
      if (free) unlock(fd)
      return !free
    } finally {
      closeSync(fd)
    }
  })
}
