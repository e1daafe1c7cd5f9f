/** Tables of network namespaces that are gone. */
import { withNamespace } from './setns.ts'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Attachments } from './attachments.ts'
import { hostProcess } from './bpffs.ts'
import { removePins, tableNames } from './pins.ts'
import { netnsCookie, netnsCookies } from './shim.ts'

/** The pid namespace that the kernel began with (PROC_PID_INIT_INO). */
const INITIAL_PIDS = 'pid:[4026531836]'

/** Names of the processes of sync daemons begin so; they serve a namespace, but don't keep it for anybody. */
export const SYNC_PROCESS = 'bpvs-sync-'

/**
 * Whether every process of this machine is in our /proc. Within a container's own pid namespace it is not, and what nobody
 * there holds may well be somebody's.
 */
function seesEverybody(): boolean {
  return readlinkSync('/proc/self/ns/pid') === INITIAL_PIDS
}

/** Paths of namespaces that threads are in, one path each; of processes whose names `counts` accepts. */
function namespacesOfThreads(counts: (name: string) => boolean = () => true): Map<string, string> {
  const found = new Map<string, string>()
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (!counts(readFileSync(`/proc/${pid}/comm`, 'utf8'))) continue
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        const path = `/proc/${pid}/task/${thread}/ns/net`
        found.set(readlinkSync(path), path)
      }
    } catch {
      /* it has ended meanwhile */
    }
  }
  return found
}

/** Paths of namespaces that the host's mounts keep (/run/netns/...), as this process can open them. */
function mountedNamespaces(): string[] {
  const host = hostProcess() ?? '/proc/self'
  return readFileSync(`${host}/mountinfo`, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, , , root = '', target = ''] = line.split(' ')
      if (!root.startsWith('net:[')) return []
      const path = target.replace(/\\([0-7]{3})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 8)))
      return [`${host}/root${path}`]
    })
}

/** Paths of all namespaces that somebody holds and we can see; of one there may be several. */
export function namespacePaths(): string[] {
  return [...namespacesOfThreads().values(), ...mountedNamespaces()]
}

/** Does `work`, which must be synchronous, in every namespace that somebody is in or that is mounted. NATIVE, and what `work` throws. */
export function inAllNamespaces(work: () => void): void {
  for (const path of namespacePaths()) {
    try {
      withNamespace(path, work)
    } catch (error) {
      if (!isGone(error)) throw error
    }
  }
}

/** The namespace's last process has ended meanwhile. */
function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH')
}

/** Cookies of all namespaces that somebody holds and we can see. */
function liveCookies(): Set<string> {
  return new Set(netnsCookies(namespacePaths()).map(String))
}

/**
 * Whether only sync daemons are left in the calling thread's network namespace, and no mount keeps it. Who does not see all
 * processes ends with the container.
 */
export function isNamespaceAbandoned(): boolean {
  if (!seesEverybody()) return false
  const own = readlinkSync('/proc/self/ns/net')
  const users = namespacesOfThreads((name) => !name.startsWith(SYNC_PROCESS))
  if (users.has(own)) return false
  return !netnsCookies(mountedNamespaces()).includes(netnsCookie())
}

/**
 * Removes tables whose namespace is gone; `own` stays. A table with a link on an interface is alive for certain; only
 * if some have none (an interface may be gone while its namespace lives) are all namespaces looked through; who does not
 * see them all removes nothing. Returns the names of those removed. The caller holds the lock on `tablesDir`.
 */
export function removeStaleTables(tablesDir: string, own: string): string[] {
  const idle = tableNames(tablesDir).filter(
    (name) => name !== own && !new Attachments(join(tablesDir, name)).anyAlive(),
  )
  if (idle.length === 0 || !seesEverybody()) return []
  const live = liveCookies()
  const gone = idle.filter((name) => !live.has(name))
  for (const name of gone) removePins(join(tablesDir, name))
  return gone
}
