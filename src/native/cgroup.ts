/** Control groups (cgroup v2), as directories of the host. */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { LbError } from '../model/errors.ts'
import { hostProcess } from './bpffs.ts'

/** The mount point of cgroup v2 in a table of mounts (/proc/mounts): it need not be /sys/fs/cgroup. Pure. */
export function groupMount(mounts: string): string | undefined {
  for (const line of mounts.split('\n')) {
    const [, target = '', type] = line.split(' ')
    if (type === 'cgroup2') return target.replace(/\\([0-7]{3})/g, (_, code) => String.fromCharCode(parseInt(code, 8)))
  }
  return undefined
}

/** Directory of the root of all groups, as this process can open it. UNSUPPORTED where cgroup v2 is not mounted. */
export function groupRoot(): string {
  const host = hostProcess()
  const mount = groupMount(readFileSync(`${host ?? '/proc/self'}/mounts`, 'utf8'))
  if (mount === undefined) throw new LbError('UNSUPPORTED', 'cgroup v2 is not mounted: sockets cannot be balanced')
  return host === undefined ? mount : join(host, 'root', mount)
}

/** A group's id for the kernel: the inode of its directory. Undefined: there is no such group. */
export function groupId(dir: string): bigint | undefined {
  return statSync(dir, { bigint: true, throwIfNoEntry: false })?.ino
}
