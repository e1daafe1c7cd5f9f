/** Many clients with many short HTTP requests, and an account of every one of them. */
import { Worker } from 'node:worker_threads'
import type { TestNet } from './topology.ts'

export interface SwarmTarget {
  readonly address: string
  readonly port: number
}

/** What one client does. */
export interface SwarmJob {
  readonly client: string
  readonly targets: readonly SwarmTarget[]
  readonly requests: number
  /** Connections at a time. */
  readonly concurrency: number
  /** Requests on every fifth connection; the others have one. */
  readonly keptRequests: number
  /** A connection that is silent for so long has failed. */
  readonly timeoutMs: number
  /** Local ports count up from here. */
  readonly firstPort: number
}

export interface SwarmResult {
  /** Connections opened, those that failed too. */
  readonly connections: number
  readonly answered: number
  /** Answers by the server's name. */
  readonly servers: Record<string, number>
  /** Requests without an answer, with the client's name and the port that tell the connection. */
  readonly failures: { readonly client: string; readonly port: number; readonly kind: string }[]
}

export type SwarmMessage = { readonly answered: number } | { readonly result: SwarmResult }

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

/** Adds up what several clients report. */
export function mergeResults(results: readonly SwarmResult[]): SwarmResult {
  const servers: Record<string, number> = {}
  for (const result of results) {
    for (const [name, count] of Object.entries(result.servers)) servers[name] = (servers[name] ?? 0) + count
  }
  return {
    connections: results.reduce((sum, { connections }) => sum + connections, 0),
    answered: results.reduce((sum, { answered }) => sum + answered, 0),
    servers,
    failures: results.flatMap(({ failures }) => failures),
  }
}

/** All clients of a network at work. */
export class Swarm {
  /** Resolves when every client is done. */
  readonly done: Promise<SwarmResult>
  readonly #answered = new Map<string, number>()
  #running = true

  constructor(t: Teardown, net: TestNet, job: Omit<SwarmJob, 'client'>) {
    const workers = net.clients.map(({ name }) => this.#start(net.topology.pathOf(name), { ...job, client: name }))
    t.teardown(async () => {
      await Promise.all(workers.map(({ worker }) => worker.terminate()))
    })
    this.done = Promise.all(workers.map(({ result }) => result)).then(mergeResults)
    const end = (): void => {
      this.#running = false
    }
    this.done.then(end, end)
  }

  /** Whether some client is still at work. */
  get running(): boolean {
    return this.#running
  }

  /** Answers so far, to within a few hundred. */
  get answered(): number {
    return [...this.#answered.values()].reduce((sum, count) => sum + count, 0)
  }

  #start(path: string, job: SwarmJob): { worker: Worker; result: Promise<SwarmResult> } {
    const worker = new Worker(new URL('swarm-worker.ts', import.meta.url), { workerData: { path, job } })
    const result = new Promise<SwarmResult>((resolve, reject) => {
      worker.on('error', reject)
      worker.on('exit', (status) => reject(new Error(`swarm of ${job.client}: its thread ended with ${status}`)))
      worker.on('message', (message: SwarmMessage) => {
        if ('result' in message) resolve(message.result)
        else this.#answered.set(job.client, message.answered)
      })
    })
    return { worker, result }
  }
}
