/**
 * Network namespaces of threads. setns(2) moves only the calling thread, so a worker thread of Node can live in a
 * namespace of its own: its sockets are made by its own event loop. Threads of libuv's pool (dns.lookup of a name,
 * asynchronous fs) stay behind, therefore code in a worker uses numeric addresses and synchronous file access.
 */
import { closeSync, openSync } from 'node:fs'
import { LbError } from '../model/errors.ts'
import { ffi } from './library.ts'

const CLONE_NEWNET = 0x40000000

type Setns = (fd: number, type: number) => number
let setns: Setns | undefined

function enter(fd: number, path: string): void {
  setns ??= ffi().load(null).func('int setns(int fd, int type)') as Setns
  if (setns(fd, CLONE_NEWNET) === 0) return
  const errno = ffi().errno()
  throw new LbError('NATIVE', `setns: cannot enter the network namespace ${path} (errno ${errno})`, {
    call: 'setns',
    errno,
    path,
  })
}

/** Moves the calling thread into the network namespace at `path` (/run/netns/NAME, /proc/PID/ns/net), for good. */
export function enterNamespace(path: string): void {
  const fd = openSync(path, 'r')
  try {
    enter(fd, path)
  } finally {
    closeSync(fd)
  }
}

/** Runs `work`, which must be synchronous, in the namespace at `path` and returns to the thread's own. */
export function withNamespace<T>(path: string, work: () => T): T {
  const own = '/proc/thread-self/ns/net'
  const home = openSync(own, 'r')
  try {
    enterNamespace(path)
    try {
      return work()
    } finally {
      enter(home, own)
    }
  } finally {
    closeSync(home)
  }
}
