/**
 * The process of a sync daemon. It is given how to run as one word of JSON, says by descriptor 3 that it works or why it can't,
 * and ends when it is asked to, with its table, or when nobody else uses its network namespace any more: then the table goes too.
 */
import { createSocket } from 'node:dgram'
import { closeSync, fstatSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { TableMaps } from '../maps/table-maps.ts'
import { writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import { openExistingTable, unloadTable } from '../native/loader.ts'
import { isNamespaceAbandoned, SYNC_PROCESS } from '../native/stale.ts'
import { type MulticastGroup, openGroupReceiver, openGroupSender, sendDatagram } from '../native/sync.ts'
import { Backup } from './backup.ts'
import { Master, STEP_MS } from './master.ts'
import { groupFamily, type SyncDaemon } from './options.ts'
import { acquireRole, SyncState } from './state.ts'

const REPORT_FD = 3
/** Of what was opened here; what was inherited has it not. */
const O_CLOEXEC = 0o2000000
/** How often it looks whether somebody else uses the namespace. */
const ABANDONED_MS = 10_000

interface Assignment {
  readonly daemon: SyncDaemon
  readonly ifindex: number
}

/** Tells who started this process how that went, and goes on without them. */
function report(answer: { readonly code?: string; readonly message?: string }): void {
  writeSync(REPORT_FD, JSON.stringify(answer))
  closeSync(REPORT_FD)
}

/** Errors that end the daemon go where those of IPVS's go: to the kernel's log. */
function logError(error: unknown): void {
  try {
    writeFileSync('/dev/kmsg', `<3>${process.title}: ${error instanceof Error ? error.message : String(error)}\n`)
  } catch {
    /* a container may have no way to it */
  }
}

/** What whoever called bpvsadm had open (a lock, a pipe) must not stay open for as long as the daemon lives. */
function closeInherited(): void {
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    try {
      const [, flags = '0'] = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
      if (fd > REPORT_FD && (Number.parseInt(flags, 8) & O_CLOEXEC) === 0) closeSync(fd)
    } catch {
      /* the one that the directory was read with is closed already */
    }
  }
}

function groupOf({ daemon, ifindex }: Assignment): MulticastGroup {
  const family = groupFamily(daemon.group)
  const address = new Uint8Array(16)
  writeAddress(address, 0, daemon.group, family)
  return { family, address, port: daemon.port, ifindex, ttl: daemon.ttl }
}

/** What the daemon does at each step. */
function startMaster(assignment: Assignment, maps: TableMaps, state: SyncState): () => void {
  const socket = openGroupSender(groupOf(assignment))
  const master = new Master(maps, assignment.daemon, state, (message) => sendDatagram(socket, message))
  return () => master.step()
}

function startBackup(assignment: Assignment, maps: TableMaps, state: SyncState): () => void {
  const fd = openGroupReceiver(groupOf(assignment))
  const backup = new Backup(maps, assignment.daemon, state, () => performance.now())
  const socket = createSocket(groupFamily(assignment.daemon.group) === 6 ? 'udp6' : 'udp4')
  socket.on('message', (message) => backup.receive(message))
  socket.on('error', () => state.count({ failed: 1 }))
  socket.bind({ fd })
  return () => backup.step()
}

/** Runs until it is asked to end, or has nothing to run for. */
function run(lock: number, state: SyncState, step: () => void): void {
  let looked = performance.now()
  setInterval(() => {
    if (state.stopRequested() || fstatSync(lock).nlink === 0) process.exit(0)
    step()
    if (performance.now() - looked < ABANDONED_MS) return
    looked = performance.now()
    if (!isNamespaceAbandoned()) return
    unloadTable()
    process.exit(0)
  }, STEP_MS)
}

function start(assignment: Assignment): void {
  const { daemon } = assignment
  process.title = `${SYNC_PROCESS}${daemon.role} ${daemon.interface} syncid=${daemon.syncId}`
  const handles = openExistingTable()
  if (handles === undefined) throw new LbError('NATIVE', 'the table was unloaded while the daemon was started')
  const lock = acquireRole(handles, daemon.role)
  if (lock === undefined) throw new LbError('INVALID', 'Daemon has already run')
  const state = new SyncState(handles, daemon.role)
  state.write(daemon)
  const begin = daemon.role === 'master' ? startMaster : startBackup
  run(lock, state, begin(assignment, new TableMaps(handles), state))
}

process.on('uncaughtException', (error) => {
  logError(error)
  process.exit(1)
})
try {
  closeInherited()
  start(JSON.parse(process.argv[2] ?? '') as Assignment)
  report({})
} catch (error) {
  report(
    error instanceof LbError
      ? { code: error.code, message: error.message }
      : { code: 'NATIVE', message: String(error) },
  )
  process.exit(1)
}
