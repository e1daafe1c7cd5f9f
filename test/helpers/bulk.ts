/** Big transfers between hosts of a topology, compared by hash. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { type BulkCall, type BulkReply, patternHash } from './bulk-worker.ts'
import type { Topology } from '../../src/lab/topology.ts'

export const bulkPort = 9000

type Request = BulkCall extends infer C ? (C extends { id: number } ? Omit<C, 'id'> : never) : never
type Hashes = { readonly up: string; readonly down: string }

/** One host's thread for transfers. */
class BulkHost {
  readonly #worker: Worker
  readonly #pending = new Map<
    number,
    { resolve: (value: Hashes | undefined) => void; reject: (error: Error) => void }
  >()
  #last = 0

  constructor(path: string) {
    this.#worker = new Worker(new URL('./bulk-worker.ts', import.meta.url), { workerData: { path } })
    this.#worker.on('message', (reply: BulkReply) => {
      const pending = this.#pending.get(reply.id)
      this.#pending.delete(reply.id)
      if ('error' in reply) pending?.reject(new Error(reply.error))
      else pending?.resolve(reply.value)
    })
    this.#worker.on('error', (error) => {
      for (const { reject } of this.#pending.values()) reject(error as Error)
    })
  }

  async ready(): Promise<void> {
    await once(this.#worker, 'online')
  }

  call(request: Request): Promise<Hashes | undefined> {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      this.#worker.postMessage({ id, ...request })
    })
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }
}

/** As much of a tap test as is needed. */
interface Teardown {
  teardown(handler: () => Promise<void>): void
}

/** As much of a network as is needed: hosts, whose names are their namespaces'. */
interface BulkNet {
  readonly topology: Topology
  readonly clients: readonly { readonly name: string }[]
  readonly servers: readonly { readonly name: string }[]
}

export class Bulk {
  readonly #client: BulkHost

  private constructor(client: BulkHost) {
    this.#client = client
  }

  /** Serves on all servers of the network, and sends from its first client. */
  static async start(t: Teardown, net: BulkNet): Promise<Bulk> {
    const hosts = [net.clients[0], ...net.servers].map((host) => new BulkHost(net.topology.pathOf(host?.name ?? '')))
    t.teardown(async () => {
      await Promise.all(hosts.map((host) => host.close()))
    })
    await Promise.all(hosts.map((host) => host.ready()))
    const [client, ...servers] = hosts
    if (client === undefined) throw new Error('a bulk transfer needs a client')
    await Promise.all(servers.map((server) => server.call({ serve: { port: bulkPort } })))
    return new Bulk(client)
  }

  /** Sends so many bytes there and has as many sent back. "ok", or what went wrong. */
  async transfer(address: string, port: number, bytes: number, timeoutMs = 60_000): Promise<string> {
    try {
      const hashes = await this.#client.call({ transfer: { address, port, bytes, timeoutMs } })
      const right = patternHash(bytes)
      if (hashes?.up !== right) return 'what the server got is not what the client sent'
      return hashes.down === right ? 'ok' : 'what the client got is not what the server sent'
    } catch (error) {
      return (error as Error).message
    }
  }
}
