/**
 * Ends of TCP connections that do nothing by themselves: no end is closed because the other one was. With them a
 * connection can be held in every state.
 */
import { Worker } from 'node:worker_threads'
import type { Topology } from '../../src/lab/topology.ts'
import { waitFor } from './wait-for.ts'

export interface PeerSocket {
  readonly id: number
  /** Its local port. */
  readonly port: number
  /** Its local address; '' before there is a connection. */
  readonly address: string
  readonly connected: boolean
  readonly received: string
  /** The other side has ended. */
  readonly ended: boolean
  readonly error: string | undefined
}

export interface PeerCall {
  readonly call: number
  readonly what: 'listen' | 'accept' | 'connect' | 'look' | 'write' | 'end' | 'reset'
  readonly id?: number
  readonly port?: number
  readonly localPort?: number
  readonly address?: string
  readonly text?: string
}

export type PeerReply =
  | { readonly call: number; readonly value: PeerSocket | undefined }
  | { readonly call: number; readonly error: string }

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

/** A thread in a namespace of a topology. */
export class Peer {
  readonly #worker: Worker
  readonly #pending = new Map<number, (reply: PeerReply) => void>()
  #lastCall = 0
  #nextPort = 20_000

  constructor(t: Teardown, topology: Topology, role: string) {
    const workerData = { path: topology.pathOf(role) }
    this.#worker = new Worker(new URL('peer-worker.ts', import.meta.url), { workerData })
    this.#worker.on('message', (reply: PeerReply) => this.#pending.get(reply.call)?.(reply))
    t.teardown(async () => {
      await this.#worker.terminate()
    })
  }

  async listen(port: number): Promise<void> {
    await this.#ask({ what: 'listen', port })
  }

  /** The next connection that came in. */
  accept(): Promise<PeerSocket> {
    return waitFor('a connection to come in', () => this.#ask({ what: 'accept' }))
  }

  /** Begins a connection; it may not have come about yet. */
  begin(address: string, port: number): Promise<PeerSocket> {
    return this.#one({ what: 'connect', address, port, localPort: this.#nextPort++ })
  }

  /** A connection that has come about. */
  async connect(address: string, port: number): Promise<PeerSocket> {
    const { id } = await this.begin(address, port)
    return waitFor(`a connection to ${address} port ${port}`, async () => {
      const socket = await this.look(id)
      if (socket.error !== undefined) throw new Error(`connect to ${address} port ${port}: ${socket.error}`)
      return socket.connected && socket
    })
  }

  look(id: number): Promise<PeerSocket> {
    return this.#one({ what: 'look', id })
  }

  async write(id: number, text: string): Promise<void> {
    await this.#one({ what: 'write', id, text })
  }

  /** Waits until so many characters have come. */
  received(id: number, length: number): Promise<PeerSocket> {
    return waitFor(`${length} characters to come in`, async () => {
      const socket = await this.look(id)
      return socket.received.length >= length && socket
    })
  }

  /** Ends this direction (FIN). */
  async end(id: number): Promise<void> {
    await this.#one({ what: 'end', id })
  }

  /** Ends the connection by RST. */
  async reset(id: number): Promise<void> {
    await this.#ask({ what: 'reset', id })
  }

  async #one(call: Omit<PeerCall, 'call'>): Promise<PeerSocket> {
    const socket = await this.#ask(call)
    if (socket === undefined) throw new Error(`${call.what}: no socket`)
    return socket
  }

  #ask(call: Omit<PeerCall, 'call'>): Promise<PeerSocket | undefined> {
    this.#lastCall += 1
    const number = this.#lastCall
    return new Promise((resolve, reject) => {
      this.#pending.set(number, (reply) => {
        this.#pending.delete(number)
        if ('error' in reply) reject(new Error(reply.error))
        else resolve(reply.value)
      })
      this.#worker.postMessage({ ...call, call: number } satisfies PeerCall)
    })
  }
}
