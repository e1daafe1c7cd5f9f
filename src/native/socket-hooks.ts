/**
 * Where a table's programs for sockets are attached: to a control group, whose processes' sockets they balance. Pinned beside the
 * table's: sock-link-<hook>, sock-iter-<protocol>, sock-map-<name>, sock-prog-<name>; the mark sock-on-<what> says which build it is, and how it was set.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { LbError } from '../model/errors.ts'
import { groupId, groupRoot } from './cgroup.ts'
import { replaceGroups } from './group-set.ts'
import { buildPath } from './library.ts'
import type { LoadedObject } from './programs.ts'
import { runProgram } from './run.ts'
import {
  createLinkOn,
  type Fd,
  linkInfo,
  netnsCookie,
  openDirectory,
  openPin,
  pin,
  updateLink,
  usingFd,
} from './shim.ts'
import { loadShare } from './table-share.ts'

/** Whose sockets are balanced. */
export interface SocketPolicy {
  /** `host`: those of the table's network namespace. `all`: those of pods too. */
  readonly scope: 'off' | 'host' | 'all'
  readonly protocols: 'all' | 'tcp'
  /** The control group, named as in /proc/PID/cgroup. Left out: the root of all groups. */
  readonly group?: string
  /** Groups whose sockets, and those of groups in them, are left alone; those that are missing don't matter. */
  readonly leave?: readonly string[]
}

export const defaultSocketPolicy: SocketPolicy = { scope: 'off', protocols: 'all' }

/** Hooks, the program of each, and enum bpf_attach_type. */
const HOOKS = {
  connect4: ['lb_sock_connect4', 10],
  connect6: ['lb_sock_connect6', 11],
  sendmsg4: ['lb_sock_sendmsg4', 14],
  sendmsg6: ['lb_sock_sendmsg6', 15],
  recvmsg4: ['lb_sock_recvmsg4', 19],
  recvmsg6: ['lb_sock_recvmsg6', 20],
  getpeername4: ['lb_sock_getpeername4', 29],
  getpeername6: ['lb_sock_getpeername6', 30],
  post_bind4: ['lb_sock_bound4', 12],
  post_bind6: ['lb_sock_bound6', 13],
  sock_release: ['lb_sock_release', 34],
} as const
export type SocketHook = keyof typeof HOOKS
const hookNames = Object.keys(HOOKS) as SocketHook[]

/** Maps that sockets live by: a new build of the programs goes on with them. */
const LEFT = 'lb_sock_left'
const KEPT_MAPS = ['lb_sock_connected', 'lb_sock_sent', LEFT] as const
const MARK = 'sock-on-'
const ABANDON = 'lb_sock_abandon'
const COUNT_STUCK = 'lb_sock_count_stuck'
/** Iterators over the sockets of the namespace of whoever reads them, which end those that are stuck: program by pin. */
const ENDING = { 'sock-iter-tcp': 'lb_sock_end_tcp', 'sock-iter-udp': 'lb_sock_end_udp' } as const
/** One that notes in connections of TCP what their sockets are bound to. */
const NAMES = 'sock-iter-names'
const NAMING = { [NAMES]: 'lb_sock_name_tcp' } as const
const BPF_TRACE_ITER = 28

/** The programs for sockets of one table, from whichever process; all state is in the pins. The caller holds a lock. */
export class SocketHooks {
  readonly #dir: string

  constructor(dir: string) {
    this.#dir = dir
  }

  /**
   * Makes it what the policy wants, of the present build; returns whether anything changed. Sockets that are connected stay so.
   * LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
   */
  sync(policy: SocketPolicy): boolean {
    if (policy.scope === 'off') return this.remove()
    const root = groupRoot()
    const loaded = this.#load(policy, join(root, policy.group ?? ''))
    const left = (policy.leave ?? []).flatMap((group) => groupId(join(root, group)) ?? [])
    return replaceGroups(join(this.#dir, `sock-map-${LEFT}`), new Set(left)) || loaded
  }

  /** True: it was not what the policy wants. */
  #load(policy: SocketPolicy, group: string): boolean {
    const path = buildPath('bpf/sock.bpf.o')
    const mark = this.#markOf(path, policy, group)
    if (this.#names(MARK).includes(mark) && this.list().length === hookNames.length) return false
    const object = loadShare(path, this.#dir, constantsOf(policy), this.#keptMaps())
    try {
      for (const name of this.#names(MARK)) rmdirSync(join(this.#dir, name))
      for (const name of this.#strays()) rmSync(join(this.#dir, name), { force: true })
      this.#pinMaps(object)
      for (const name of [ABANDON, COUNT_STUCK]) this.#pinAs(`sock-prog-${name}`, programOf(object, name))
      for (const [name, program] of Object.entries({ ...ENDING, ...NAMING })) {
        usingFd(createLinkOn(programOf(object, program), 0 as Fd, BPF_TRACE_ITER), (link) => this.#pinAs(name, link))
      }
      usingFd(openDirectory(group), (fd) => {
        for (const hook of hookNames) this.#attach(hook, object, fd, groupId(group) ?? 0n)
      })
      mkdirSync(join(this.#dir, mark), { mode: 0o700 })
    } finally {
      object.close()
    }
    return true
  }

  /** Whether there is anything of sockets in the table. */
  exist(): boolean {
    return this.#names('sock-').length > 0
  }

  /** The hooks in force. */
  list(): SocketHook[] {
    const links = this.#names('sock-link-')
    return hookNames.filter((hook) => links.includes(linkPin(hook)) && this.#groupOf(hook) !== 0)
  }

  /** Takes the programs away and ends the connections of all sockets, which themselves go on. False: there was nothing. */
  remove(): boolean {
    const names = this.#names('sock-')
    if (names.length === 0) return false
    for (const name of this.#names(MARK)) rmdirSync(join(this.#dir, name))
    for (const name of this.#names('sock-link-')) rmSync(join(this.#dir, name), { force: true })
    if (names.includes(`sock-prog-${ABANDON}`)) this.#run(ABANDON)
    for (const name of this.#names('sock-')) rmSync(join(this.#dir, name), { force: true })
    return true
  }

  /** How many connections of sockets have a server that was removed; 0 where no sockets are balanced. */
  stuck(): number {
    return this.#names(MARK).length === 0 ? 0 : this.#run(COUNT_STUCK)
  }

  /**
   * Ends the sockets of this thread's namespace that are connected to a server that was removed, and has those that are not connected
   * forget such a server; returns how many were ended. Before Linux 6.5 none is.
   */
  endStuck(): number {
    const files = Object.keys(ENDING).map((name) => readFileSync(join(this.#dir, name)))
    return files.reduce((sum, { length }) => sum + length, 0)
  }

  /** Notes in the connections of this thread's namespace's sockets what these are bound to; false: no sockets are balanced. */
  name(): boolean {
    if (!existsSync(join(this.#dir, NAMES))) return false
    readFileSync(join(this.#dir, NAMES))
    return true
  }

  /** Runs a pinned program that needs no packet. */
  #run(name: string): number {
    const program = openPin(join(this.#dir, `sock-prog-${name}`))
    return usingFd(program, () => runProgram(program, { packet: new Uint8Array(64) }).result)
  }

  #names(prefix: string): string[] {
    return readdirSync(this.#dir).filter((name) => name.startsWith(prefix))
  }

  #markOf(path: string, { scope, protocols }: SocketPolicy, group: string): string {
    const id = groupId(group)
    if (id === undefined) throw new LbError('NATIVE', `${group}: no such control group`, { group })
    const text = [buildOf(path), scope, protocols, id].join(' ')
    return `${MARK}${createHash('sha256').update(text).digest('hex').slice(0, 16)}`
  }

  /** Links at hooks that another build has, and this one has not. */
  #strays(): string[] {
    const ours = new Set(hookNames.map(linkPin))
    return this.#names('sock-link-').filter((name) => !ours.has(name))
  }

  /** Of a group that is gone, or another one: 0 or another number. */
  #groupOf(hook: SocketHook): number {
    return usingFd(openPin(join(this.#dir, linkPin(hook))), linkInfo).ifindex
  }

  /** Puts the program in the place of what is attached to the group, atomically, or attaches it there. */
  #attach(hook: SocketHook, object: LoadedObject, group: Fd, id: bigint): void {
    const [name, type] = HOOKS[hook]
    const program = programOf(object, name)
    const path = join(this.#dir, linkPin(hook))
    if (this.#names(linkPin(hook)).includes(linkPin(hook))) {
      if (this.#groupOf(hook) === Number(BigInt.asUintN(32, id))) {
        usingFd(openPin(path), (link) => updateLink(link, program))
        return
      }
      rmSync(path, { force: true })
    }
    usingFd(createLinkOn(program, group, type), (link) => pin(link, path))
  }

  #keptMaps(): Map<string, string> {
    const names = this.#names('sock-map-')
    return new Map(
      KEPT_MAPS.filter((map) => names.includes(`sock-map-${map}`)).map((map) => [
        map,
        join(this.#dir, `sock-map-${map}`),
      ]),
    )
  }

  #pinMaps(object: LoadedObject): void {
    const names = this.#names('sock-map-')
    for (const map of KEPT_MAPS) {
      const fd = object.maps.get(map)
      if (fd !== undefined && !names.includes(`sock-map-${map}`)) pin(fd, join(this.#dir, `sock-map-${map}`))
    }
  }

  #pinAs(name: string, fd: Fd): void {
    pin(fd, join(this.#dir, `sock-new-${name}`))
    renameSync(join(this.#dir, `sock-new-${name}`), join(this.#dir, name))
  }
}

let build: string | undefined

/** Identifies the object file, which is looked at once. */
function buildOf(path: string): string {
  build ??= createHash('sha256').update(readFileSync(path)).digest('hex')
  return build
}

function linkPin(hook: SocketHook): string {
  return `sock-link-${hook}`
}

function programOf(object: LoadedObject, name: string): Fd {
  const program = object.programs.get(name)
  if (program === undefined) throw new LbError('LAYOUT', `no program ${name} for sockets`)
  return program
}

function constantsOf({ scope, protocols }: SocketPolicy) {
  return {
    lb_sock_home: netnsCookie(),
    lb_sock_everywhere: scope === 'all' ? 1n : 0n,
    lb_sock_tcp_only: protocols === 'tcp' ? 1n : 0n,
  }
}
