/** Where tables are pinned, and which one is this namespace's. */
import { readFileSync, readlinkSync, statSync } from 'node:fs'
import { LbError } from '../model/errors.ts'
import { isBpffs, mountBpffs, netnsCookie } from './shim.ts'

const MOUNT_POINT = '/sys/fs/bpf'
const KERNEL_THREADS = 2

/** Name and parent of a process; undefined if it has ended. */
function processOf(pid: number): { readonly name: string; readonly parent: number } | undefined {
  try {
    const [, name = '', parent = ''] = /^\d+ \((.*)\) \S (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8')) ?? []
    return { name, parent: Number(parent) }
  } catch {
    return undefined
  }
}

function ancestors(): number[] {
  const pids: number[] = []
  for (let pid = process.ppid; pid > 1; pid = processOf(pid)?.parent ?? 0) pids.unshift(pid)
  return pids
}

function mountNamespace(pid: number | 'self'): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`)
  } catch {
    return undefined /* not ours to look at */
  }
}

/**
 * /proc/<pid> of a process that sees the host's mounts: pid 1, or, where that is out of reach (a hardened init), the
 * kernel's threads, or the oldest ancestor. Undefined if this process sees them itself, or can't look anywhere.
 */
export function hostProcess(): string | undefined {
  const kernel = processOf(KERNEL_THREADS)
  const kernelThreads = kernel?.name === 'kthreadd' && kernel.parent === 0 ? [KERNEL_THREADS] : []
  for (const pid of [1, ...kernelThreads, ...ancestors()]) {
    const namespace = mountNamespace(pid)
    if (namespace !== undefined) return namespace === mountNamespace('self') ? undefined : `/proc/${pid}`
  }
  return undefined
}

/** The host's bpf file system as a path that this process can use, whether or not one is mounted. Under
 * `ip netns exec`, /sys is another mount, and what is mounted below it vanishes with the command. */
function hostPath(): string {
  const host = hostProcess()
  return host === undefined ? MOUNT_POINT : `${host}/root${MOUNT_POINT}`
}

/** Refuses to trust what another user may have made: many systems let everybody write to the bpf file system. */
function requireOwn(dir: string): void {
  const owner = statSync(dir, { throwIfNoEntry: false })?.uid
  if (owner !== undefined && owner !== 0) {
    throw new LbError('PERMISSION', `${dir} belongs to user ${owner}, not to root: remove it`, { dir, owner })
  }
}

/**
 * Directory of all tables, <bpffs>/bpvs, whether or not it exists; undefined where no bpf file system is mounted.
 * PERMISSION for anybody but root: others could neither see nor make a table, so "none" would be no answer.
 */
export function findTablesDir(): string | undefined {
  if (process.geteuid?.() !== 0) throw new LbError('PERMISSION')
  const path = hostPath()
  if (!isBpffs(path)) return undefined
  requireOwn(`${path}/bpvs`)
  return `${path}/bpvs`
}

/** The same; mounts a bpf file system if there is none. PERMISSION, or UNSUPPORTED where that is impossible. */
export function ensureTablesDir(): string {
  const found = findTablesDir()
  if (found !== undefined) return found
  try {
    mountBpffs(`${hostProcess() ?? '/proc/self'}/ns/mnt`, MOUNT_POINT)
  } catch (error) {
    if (error instanceof LbError && error.code === 'PERMISSION') throw error
    throw new LbError('UNSUPPORTED', `no bpf file system at ${MOUNT_POINT}, and it can't be mounted`, {}, error)
  }
  return `${hostPath()}/bpvs`
}

/** Name of this thread's network namespace among the tables. */
export function tableName(): string {
  return netnsCookie().toString()
}
