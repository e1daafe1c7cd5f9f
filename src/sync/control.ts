/** What bpvsadm does with sync daemons: each is a process of its own in this network namespace, which bpvsadm only starts. */
import { spawn, type ChildProcess } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type ErrorCode, errorCodes, LbError } from '../model/errors.ts'
import type { TableHandles } from '../native/handles.ts'
import { listInterfaces } from '../native/interfaces.ts'
import { openExistingTable, openTable } from '../native/loader.ts'
import {
  completeRequest,
  type RunningSyncDaemon,
  type SyncDaemon,
  type SyncDaemonRequest,
  type SyncRole,
  syncRoles,
} from './options.ts'
import { isRunning, SyncState } from './state.ts'

const program = fileURLToPath(new URL('../../dist/bundle/bpvs-sync.js', import.meta.url))
const STOP_MS = 5_000
const POLL_MS = 5
/** Where the new process says that it works, or why it does not. */
const REPORT_FD = 3

/** Uses the namespace's table, if it has one. */
function withTable<T>(use: (handles: TableHandles) => T, otherwise: T): T {
  const handles = openExistingTable()
  if (handles === undefined) return otherwise
  try {
    return use(handles)
  } finally {
    handles.close()
  }
}

/** What a process writes to its report descriptor until it closes it. */
async function reportOf(child: ChildProcess): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of child.stdio[REPORT_FD] as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString()
}

/** Starts the process of a daemon and waits until it works; LbError as it says. */
async function launch(daemon: SyncDaemon, ifindex: number): Promise<void> {
  const child = spawn(process.execPath, [program, JSON.stringify({ daemon, ifindex })], {
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  })
  const failed = new Promise<never>((_, reject) => {
    child.on('error', (error) => reject(new LbError('NATIVE', error.message)))
  })
  const report = JSON.parse((await Promise.race([reportOf(child), failed])) || '{"code":"NATIVE"}') as {
    code?: string
    message?: string
  }
  child.unref()
  if (report.code === undefined) return
  const code = report.code in errorCodes ? (report.code as ErrorCode) : 'NATIVE'
  throw new LbError(code, report.message ?? 'the sync daemon could not be started')
}

/** Starts a daemon; the table is made if there is none. INVALID in ipvsadm's words, and what openTable() throws. */
async function start(request: SyncDaemonRequest): Promise<void> {
  const link = listInterfaces().find(({ name }) => name === request.interface)
  if (link === undefined) throw new LbError('INVALID', 'No such device')
  openTable().close()
  await launch(completeRequest(request, link.mtu), link.ifindex)
}

/** Ends a daemon and waits for it. */
async function stop(role: SyncRole): Promise<boolean> {
  const asked = withTable((handles) => {
    if (!isRunning(handles, role)) return false
    new SyncState(handles, role).requestStop()
    return true
  }, false)
  if (!asked) return false
  const deadline = performance.now() + STOP_MS
  while (withTable((handles) => isRunning(handles, role), false)) {
    if (performance.now() > deadline) throw new LbError('NATIVE', `the ${role} sync daemon does not end`)
    await delay(POLL_MS)
  }
  return true
}

/** Daemons of this namespace that live, with what they counted. */
export function runningDaemons(): RunningSyncDaemon[] {
  return withTable((handles) => {
    return syncRoles
      .filter((role) => isRunning(handles, role))
      .map((role) => {
        const state = new SyncState(handles, role)
        return { ...state.read(), counters: state.counters() }
      })
  }, [])
}

/** The sync daemons of this network namespace. */
export const syncDaemons = { start, stop, list: runningDaemons } as const
