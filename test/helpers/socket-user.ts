/** A process with sockets, in a namespace of a topology and a control group of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isAlive } from '../../src/lab/namespaces.ts'
import type { Topology } from '../../src/lab/topology.ts'
import { groupRoot } from '../../src/native/cgroup.ts'
import { waitFor } from './wait-for.ts'

export interface SocketView {
  readonly id: number
  readonly error: string | undefined
  /** getpeername() and getsockname(); '' while it is not connected. */
  readonly remote: string
  readonly local: string
  /** A stream: all that came. Datagrams: each, with who sent it (recvmsg()). */
  readonly received: readonly { readonly text: string; readonly from: string }[]
}

export interface SocketCall {
  readonly call: number
  readonly what: 'stream' | 'datagrams' | 'connect' | 'send' | 'look' | 'close' | 'storm' | 'bind'
  readonly id?: number
  readonly family?: 4 | 6
  readonly protocol?: 'tcp' | 'udp'
  readonly address?: string
  readonly localAddress?: string
  readonly port?: number
  readonly text?: string
  readonly count?: number
}

export type SocketReply =
  | { readonly call: number; readonly value: SocketView | undefined }
  | { readonly call: number; readonly error: string }

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

let groups = 0

/** Removes groups that runs left which were killed. */
function sweepGroups(): void {
  for (const name of readdirSync(groupRoot())) {
    const pid = /^bpvs-test-(\d+)-\d+$/.exec(name)?.[1]
    if (pid !== undefined && !isAlive(Number(pid))) removed(join(groupRoot(), name))
  }
}

/** Makes a control group, in the root of all or in another, and removes it with the test. Named as in /proc/PID/cgroup. */
export function makeGroup(t: Teardown, parent = '/'): string {
  if (groups === 0) sweepGroups()
  groups += 1
  const group = join(parent, `bpvs-test-${process.pid}-${groups}`)
  const dir = join(groupRoot(), group)
  mkdirSync(dir)
  // A group is busy until the last of its processes was reaped.
  t.teardown(() => waitFor(`${dir} to be removed`, () => removed(dir)).then(() => {}))
  return group
}

function removed(dir: string): boolean {
  try {
    rmdirSync(dir)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EBUSY') return false
    if (code === 'ENOENT') return true // another run swept it
    throw error
  }
}

export class SocketUser {
  readonly #child: ChildProcess
  readonly #pending = new Map<number, (reply: SocketReply) => void>()
  #lastCall = 0

  private constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (reply: SocketReply) => {
      this.#pending.get(reply.call)?.(reply)
      this.#pending.delete(reply.call)
    })
  }

  /** Starts the process, and moves it into the group before it has a socket. */
  static async start(t: Teardown, topology: Topology, role: string, group: string): Promise<SocketUser> {
    const script = fileURLToPath(new URL('socket-process.ts', import.meta.url))
    const args = ['netns', 'exec', topology.nameOf(role), process.execPath, script]
    const child = spawn('ip', args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const user = new SocketUser(child)
    t.teardown(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      await user.kill()
    })
    await once(child, 'spawn')
    writeFileSync(join(groupRoot(), group, 'cgroup.procs'), String(child.pid))
    return user
  }

  /** Ends the process, whatever sockets it has. */
  async kill(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }

  /** A TCP connection: established, or failed. */
  async stream(address: string, port: number, localAddress?: string): Promise<SocketView> {
    const { id } = await this.#one({ what: 'stream', address, port, ...(localAddress && { localAddress }) })
    return waitFor(`a connection to ${address} port ${port}`, async () => {
      const socket = await this.look(id)
      return (socket.remote !== '' || socket.error !== undefined) && socket
    })
  }

  /** A UDP socket. */
  datagrams(family: 4 | 6): Promise<SocketView> {
    return this.#one({ what: 'datagrams', family })
  }

  /** Connects a UDP socket, which may be connected already. */
  connect(id: number, address: string, port: number): Promise<SocketView> {
    return this.#one({ what: 'connect', id, address, port })
  }

  /** Sends a datagram; without an address to where the socket is connected. */
  send(id: number, text: string, address?: string, port?: number): Promise<SocketView> {
    return this.#one({ what: 'send', id, text, ...(address !== undefined && { address, port }) } as SocketCall)
  }

  look(id: number): Promise<SocketView> {
    return this.#one({ what: 'look', id })
  }

  /** Waits until a socket got so many datagrams, or a stream anything. */
  received(id: number, count = 1): Promise<SocketView> {
    return waitFor(`socket ${id} to receive`, async () => {
      const socket = await this.look(id)
      return socket.received.length >= count && socket
    })
  }

  /** Opens so many TCP connections, some at a time, and closes each once its server said a word. How many were answered. */
  async storm(address: string, port: number, count: number): Promise<number> {
    return (await this.#one({ what: 'storm', address, port, count })).id
  }

  /** Binds a socket to an address and port, a stream also listens; then closes it. The error, if it could not. */
  async bind(protocol: 'tcp' | 'udp', address: string, port: number): Promise<string | undefined> {
    const { error } = await this.#ask({ what: 'bind', protocol, address, port }).then(
      () => ({ error: undefined }),
      (error: Error) => ({ error: error.message }),
    )
    return error
  }

  async close(id: number): Promise<void> {
    await this.#ask({ what: 'close', id })
  }

  async #one(call: Omit<SocketCall, 'call'>): Promise<SocketView> {
    const view = await this.#ask(call)
    if (view === undefined) throw new Error(`${call.what}: no socket`)
    return view
  }

  #ask(call: Omit<SocketCall, 'call'>): Promise<SocketView | undefined> {
    this.#lastCall += 1
    const number = this.#lastCall
    return new Promise((resolve, reject) => {
      this.#pending.set(number, (reply) => {
        if ('error' in reply) reject(new Error(reply.error))
        else resolve(reply.value)
      })
      this.#child.send({ ...call, call: number } satisfies SocketCall)
    })
  }
}
