/** A host of a topology, seen from the main thread: a worker thread that lives in the host's namespace. */
import { Worker } from 'node:worker_threads'
import { LbError } from '../model/errors.ts'
import type { HostArguments, HostCall, HostMethod, HostReply, HostResult } from './host-api.ts'
import { projectFile, siblingModule } from './project.ts'

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

export class Host {
  readonly name: string
  readonly #worker: Worker
  readonly #pending = new Map<number, Pending>()
  /** Why the thread ended, once it has. */
  #ended: LbError | undefined
  #lastId = 0

  private constructor(name: string, path: string) {
    this.name = name
    this.#worker = new Worker(siblingModule('worker', import.meta.url), {
      workerData: { path },
      name: `host ${name}`,
      resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 8 } /* a dozen of them run at once */,
      env: { ...process.env, NODE_COMPILE_CACHE: projectFile('build/cache') },
    })
    this.#worker.on('message', (reply: HostReply) => this.#settle(reply))
    this.#worker.on('error', (cause) => this.#end(`host ${name}: ${cause.message}`, cause))
    this.#worker.on('exit', (status) => this.#end(`host ${name}: its thread ended with status ${status}`))
  }

  /** Starts the thread of a host in the namespace at `path`. NATIVE when it cannot enter it. */
  static async start(name: string, path: string): Promise<Host> {
    const host = new Host(name, path)
    await new Promise<unknown>((resolve, reject) => host.#pending.set(0, { resolve, reject }))
    return host
  }

  /** Asks the host for something. NATIVE when it cannot, or when its thread has ended. */
  call<M extends HostMethod>(method: M, ...args: HostArguments<M>): Promise<HostResult<M>> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended)
      this.#lastId += 1
      this.#pending.set(this.#lastId, { resolve, reject })
      this.#worker.postMessage({ id: this.#lastId, method, args } satisfies HostCall)
    }) as Promise<HostResult<M>>
  }

  /** Ends the thread with all its servers, clients and connections. */
  async close(): Promise<void> {
    await this.#worker.terminate()
  }

  #settle(reply: HostReply): void {
    const pending = this.#pending.get(reply.id)
    this.#pending.delete(reply.id)
    if ('error' in reply)
      pending?.reject(new LbError('NATIVE', `host ${this.name}: ${reply.error}`, { host: this.name }))
    else pending?.resolve(reply.value)
  }

  #end(message: string, cause?: unknown): void {
    this.#ended ??= new LbError('NATIVE', message, { host: this.name }, cause)
    for (const { reject } of this.#pending.values()) reject(this.#ended)
    this.#pending.clear()
  }
}
