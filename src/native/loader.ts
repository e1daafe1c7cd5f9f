/**
 * Tables as a whole: made, adopted, given new programs, unloaded. One table per network namespace, pinned under
 * <bpffs>/bpvs/<cookie of the namespace>/; the calling thread's namespace is meant everywhere. Making and removing
 * happen under a lock on <bpffs>/bpvs, edits under one on the table's directory.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { LbConfigArray, LbState, maps, opaqueMaps } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import { largestGap, usualNodePorts } from '../model/masquerade-ports.ts'
import { type AttachPolicy, Attachments, defaultPolicy, type SyncResult } from './attachments.ts'
import { barePath, renewBarePrograms } from './bare-programs.ts'
import { ensureTablesDir, findTablesDir, tableName } from './bpffs.ts'
import type { TableHandles } from './handles.ts'
import { buildPath, errno } from './library.ts'
import { kernelPorts } from './local-ports.ts'
import { PinnedTable } from './pinned-table.ts'
import {
  inspect,
  listDirectory,
  makeDirectory,
  mapPin,
  markBuild,
  markReady,
  removeIfEmpty,
  removePins,
  withDirectoryLock,
} from './pins.ts'
import { type LoadedObject, loadNew, loadOnto } from './programs.ts'
import { runProgram } from './run.ts'
import { closeFd, type Fd, openPin, pin } from './shim.ts'
import { defaultSizes, type TableSizes } from './sizes.ts'
import { type SocketHook, SocketHooks, type SocketPolicy } from './socket-hooks.ts'
import { removeStaleTables } from './stale.ts'
import { unsteer } from './steering.ts'

export interface LoadOptions {
  /** Sizes of a table that has to be made; one that exists keeps its own. */
  readonly sizes?: Partial<TableSizes>
  readonly policy?: AttachPolicy
}

/** Seconds, as IPVS starts with (ip_vs_proto_tcp.c, ip_vs_proto_udp.c, ip_vs_proto_sctp.c). */
const DEFAULT_TIMEOUTS: readonly (readonly [state: number, seconds: number])[] = [
  [LbState.TCP_NONE, 2],
  [LbState.TCP_ESTABLISHED, 900],
  [LbState.TCP_SYN_SENT, 120],
  [LbState.TCP_SYN_RECV, 60],
  [LbState.TCP_FIN_WAIT, 120],
  [LbState.TCP_TIME_WAIT, 120],
  [LbState.TCP_CLOSE, 10],
  [LbState.TCP_CLOSE_WAIT, 60],
  [LbState.TCP_LAST_ACK, 30],
  [LbState.TCP_LISTEN, 120],
  [LbState.TCP_SYNACK, 120],
  [LbState.UDP_NORMAL, 300],
  [LbState.SCTP_NONE, 2],
  [LbState.SCTP_INIT1, 4],
  [LbState.SCTP_INIT, 61],
  [LbState.SCTP_COOKIE_SENT, 61],
  [LbState.SCTP_COOKIE_REPLIED, 61],
  [LbState.SCTP_COOKIE_WAIT, 61],
  [LbState.SCTP_COOKIE, 61],
  [LbState.SCTP_COOKIE_ECHOED, 61],
  [LbState.SCTP_ESTABLISHED, 900],
  [LbState.SCTP_SHUTDOWN_SENT, 61],
  [LbState.SCTP_SHUTDOWN_RECEIVED, 61],
  [LbState.SCTP_SHUTDOWN_ACK_SENT, 61],
  [LbState.SCTP_REJECTED, 4],
  [LbState.SCTP_CLOSED, 61],
]

function objectPath(): string {
  return buildPath('bpf/lb.bpf.o')
}

/** Identifies the object files of programs for packets. */
function buildOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).update(readFileSync(barePath())).digest('hex').slice(0, 16)
}

/** Opens this namespace's table if there is one. LAYOUT, PERMISSION. */
function adopt(tablesDir: string | undefined): TableHandles | undefined {
  if (tablesDir === undefined) return undefined
  const dir = join(tablesDir, tableName())
  if (inspect(dir).kind === 'absent') return undefined
  try {
    return new PinnedTable(dir)
  } catch (error) {
    if (error instanceof LbError && error.detail.errno === errno.ENOENT) return undefined /* unloaded meanwhile */
    throw error
  }
}

/** This namespace's table if it exists. Opens no object and takes no lock. LAYOUT, PERMISSION, NATIVE. */
export function openExistingTable(): TableHandles | undefined {
  return adopt(findTablesDir())
}

/**
 * This namespace's table; made, and attached to the interfaces, if it does not exist. Of several processes that make
 * it at once one does and the others adopt. LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
 */
export function openTable(options: LoadOptions = {}): TableHandles {
  const existing = adopt(findTablesDir())
  if (existing !== undefined) return existing
  const tablesDir = ensureTablesDir()
  return withDirectoryLock(tablesDir, () => {
    const made = adopt(tablesDir) /* by another process while we waited */
    if (made !== undefined) return made
    const name = tableName()
    removeStaleTables(tablesDir, name)
    return make(join(tablesDir, name), options)
  })
}

/** Makes the table; a half-made one goes first. The mark that it is complete comes last. */
function make(dir: string, { sizes, policy = defaultPolicy }: LoadOptions): TableHandles {
  discard(dir)
  const path = objectPath()
  const object = loadNew(path, { ...defaultSizes, ...sizes })
  try {
    makeDirectory(dir)
    for (const name of keptMaps) pin(mapOf(object, name), join(dir, mapPin(name)))
    pinPrograms(object, dir)
    const table = new PinnedTable(dir)
    try {
      writeDefaults(new LbConfigArray(table.buffer('lb_config')))
      startSweeper(object)
      requireAttached(new Attachments(dir).sync(policy))
      markBuild(dir, buildOf(path))
      markReady(dir)
      return table
    } catch (error) {
      table.close()
      throw error
    }
  } catch (error) {
    discard(dir)
    throw error
  } finally {
    object.close()
  }
}

/** A table that could be attached nowhere, though there was where, is no use. */
function requireAttached({ attached, failed }: SyncResult): void {
  const [first] = failed
  if (first !== undefined && attached.length === 0) throw first.error
}

/** lblc_expiration, lblcr_expiration: 24 hours. */
const DEFAULT_MEMO_S = 24 * 60 * 60

function writeDefaults(config: LbConfigArray): void {
  for (const [state, seconds] of DEFAULT_TIMEOUTS) config.setTimeout(0, state, seconds)
  config.setConnReuseMode(0, 1)
  config.setLblcExpiration(0, DEFAULT_MEMO_S)
  config.setLblcrExpiration(0, DEFAULT_MEMO_S)
  config.setAmDroprate(0, 10)
  config.setAmemthresh(0, 1024)
  config.setRunEstimation(0, 1)
  const ports = largestGap([...kernelPorts(), usualNodePorts])
  if (ports === undefined) return
  config.setMasqueradeFirst(0, ports.first)
  config.setMasqueradeCount(0, ports.last - ports.first + 1)
}

/** New pins take the names of old ones atomically; programs that the object no longer has are unpinned. */
function pinPrograms(object: LoadedObject, dir: string): void {
  const gone = (listDirectory(dir) ?? []).filter((name) => {
    const program = /^prog-(\w+)$/.exec(name)?.[1]
    return program !== undefined && !object.programs.has(program)
  })
  for (const name of gone) rmSync(join(dir, name), { force: true })
  for (const [name, fd] of object.programs) {
    pin(fd, join(dir, `new-${name}`))
    renameSync(join(dir, `new-${name}`), join(dir, `prog-${name}`))
  }
}

/** Arms the timer that expires connections, or hands it to the programs just loaded. */
function startSweeper(object: LoadedObject): void {
  const program = object.programs.get('lb_start_sweeper')
  if (program === undefined) throw new LbError('LAYOUT', 'no program lb_start_sweeper')
  const { result } = runProgram(program, { packet: new Uint8Array(64) })
  if (result !== 0) throw new LbError('NATIVE', `lb_start_sweeper: the timer can't be started (${result | 0})`)
}

/** Takes down whatever is in a pin directory. */
function discard(dir: string): void {
  if (!existsSync(dir)) return
  unsteer(dir)
  new Attachments(dir).removeAll()
  removePins(dir)
}

/**
 * Puts the programs of the present build in the place of those that run, if they differ: on the same maps, so that
 * nothing is lost, link by link, each atomically. Returns whether anything was replaced; false if there is no table.
 */
export function upgradePrograms(): boolean {
  const tablesDir = findTablesDir()
  if (tablesDir === undefined) return false
  const dir = join(tablesDir, tableName())
  const path = objectPath()
  const build = buildOf(path)
  const isDue = (): boolean => {
    const state = inspect(dir)
    return state.kind === 'ready' && state.build !== build
  }
  // Whoever loads programs, for whichever namespace, holds the lock for seconds: it is not waited for in vain.
  if (!isDue()) return false
  return withDirectoryLock(tablesDir, () => {
    if (!isDue()) return false /* by another process while we waited */
    const pinned = openMapPins(dir)
    try {
      const object = loadOnto(path, pinned)
      try {
        for (const name of keptMaps) if (!pinned.has(name)) pin(mapOf(object, name), join(dir, mapPin(name)))
        pinPrograms(object, dir)
        startSweeper(object)
        renewBarePrograms(dir)
        new Attachments(dir).replacePrograms()
        markBuild(dir, build)
      } finally {
        object.close()
      }
    } finally {
      for (const fd of pinned.values()) closeFd(fd)
    }
    return true
  })
}

/** What outlives the programs: the table, and the constants that it was made with. All else is of one run, or found anew. */
const keptMaps: readonly string[] = [...Object.keys(maps), ...opaqueMaps, '.rodata']

function mapOf(object: LoadedObject, name: string): Fd {
  const fd = object.maps.get(name)
  if (fd === undefined) throw new LbError('LAYOUT', `no map ${name}`)
  return fd
}

/** Descriptors of the pinned maps, by their names in the object. */
function openMapPins(dir: string): Map<string, Fd> {
  const pinned = new Map<string, Fd>()
  for (const name of keptMaps) {
    try {
      pinned.set(name, openPin(join(dir, mapPin(name))))
    } catch (error) {
      for (const fd of pinned.values()) closeFd(fd)
      throw error
    }
  }
  return pinned
}

/**
 * Detaches and removes this namespace's table, whole or half-made or of another layout; waits for an edit that is
 * under way. Returns false if there was none. PERMISSION, NATIVE.
 */
export function unloadTable(): boolean {
  const tablesDir = findTablesDir()
  if (tablesDir === undefined) return false
  const dir = join(tablesDir, tableName())
  if (!existsSync(dir)) return false
  const found = withDirectoryLock(tablesDir, () => {
    if (!existsSync(dir)) return false /* by another process while we waited */
    withDirectoryLock(dir, () => {
      discard(dir)
    })
    return true
  })
  withDirectoryLock(tablesDir, () => {
    removeIfEmpty(tablesDir)
  })
  return found
}

/** The attachments of this namespace's table: attach, detach, list. Undefined if there is no table. */
export function tableAttachments(): Attachments | undefined {
  const tablesDir = findTablesDir()
  if (tablesDir === undefined) return undefined
  const dir = join(tablesDir, tableName())
  return inspect(dir).kind === 'absent' ? undefined : new Attachments(dir)
}

/**
 * Makes the programs for sockets of this namespace's table what the policy wants, of the present build. Returns whether anything
 * changed; false if there is no table. LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
 */
export function syncSockets(policy: SocketPolicy): boolean {
  const tablesDir = findTablesDir()
  if (tablesDir === undefined) return false
  const dir = join(tablesDir, tableName())
  if (inspect(dir).kind === 'absent') return false
  const hooks = new SocketHooks(dir)
  if (policy.scope === 'off' && !hooks.exist()) return false /* nobody else's lock is waited for */
  return withDirectoryLock(tablesDir, () => inspect(dir).kind === 'ready' && hooks.sync(policy))
}

/** The hooks of control groups that the programs for sockets are attached to; empty without a table. */
export function socketHooks(): SocketHook[] {
  const tablesDir = findTablesDir()
  if (tablesDir === undefined) return []
  const dir = join(tablesDir, tableName())
  return inspect(dir).kind === 'absent' ? [] : new SocketHooks(dir).list()
}
