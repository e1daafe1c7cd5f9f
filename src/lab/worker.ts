/** Entry point of a host's worker thread: enters the host's namespace, then does what the main thread asks for. */
import { parentPort, workerData } from 'node:worker_threads'
import { enterNamespace } from '../native/setns.ts'
import { askMirrors, datagramEcho, dnsQuery, httpGet } from './clients.ts'
import type { HostApi, HostCall, HostReply, ServerInfo } from './host-api.ts'
import { KeptConnection } from './kept.ts'
import { dnsLoad, httpLoad, type Load } from './load.ts'
import { type LabServer, serveDns, serveEcho, serveHttp, serveMirror } from './servers.ts'

/** Objects of a kind by number. */
class Registry<T> {
  readonly #what: string
  readonly #items = new Map<number, T>()
  #last = 0

  constructor(what: string) {
    this.#what = what
  }

  add(item: T): number {
    this.#last += 1
    this.#items.set(this.#last, item)
    return this.#last
  }

  get(id: number): T {
    const item = this.#items.get(id)
    if (item === undefined) throw new RangeError(`no ${this.#what} ${id}`)
    return item
  }

  take(id: number): T {
    const item = this.get(id)
    this.#items.delete(id)
    return item
  }
}

const servers = new Registry<LabServer>('server')
const loads = new Registry<Load>('stream of requests')
const kept = new Registry<KeptConnection>('connection')

function started(server: LabServer): ServerInfo {
  return { id: servers.add(server), port: server.port }
}

const api: HostApi = {
  serveHttp: async (options) => started(await serveHttp(options)),
  serveDns: async (options) => started(await serveDns(options)),
  serveEcho: async (options) => started(await serveEcho(options)),
  serveMirror: async (options) => started(await serveMirror(options)),
  serverCounts: (id) => servers.get(id).counts(),
  stopServer: async (id, reset = false) => servers.take(id).stop(reset),

  startHttp: (options) => loads.add(httpLoad(options)),
  startDns: (options) => loads.add(dnsLoad(options)),
  loadReport: (id, reset = false) => loads.get(id).report(reset),
  stopLoad: async (id) => {
    loads.get(id).stop()
    return api.loadDone(id)
  },
  loadDone: async (id) => {
    const load = loads.get(id)
    await load.done
    loads.take(id)
    return load.report(false)
  },

  http: (target) => httpGet(target),
  dns: (query) => dnsQuery(query),
  datagram: (target) => datagramEcho(target),
  probe: (probes, parallel) => askMirrors(probes, parallel),
  connect: async (target) => {
    const connection = new KeptConnection(target)
    const outcome = await connection.open(target.timeoutMs)
    if ('value' in outcome) return { value: { id: kept.add(connection), server: outcome.value } }
    await connection.close(true)
    return outcome
  },
  ping: (id, text, timeoutMs) => kept.get(id).ping(text, timeoutMs),
  disconnect: (id, reset = false) => kept.take(id).close(reset),
}

function post(reply: HostReply): void {
  parentPort?.postMessage(reply)
}

async function answer({ id, method, args }: HostCall): Promise<void> {
  try {
    // The main thread's call() is typed by HostApi; here the pair of name and arguments is taken as it came.
    const call = api[method] as (...values: readonly unknown[]) => unknown
    post({ id, value: await call(...args) })
  } catch (error) {
    post({ id, error: (error as Error).message })
  }
}

enterNamespace((workerData as { path: string }).path)
parentPort?.on('message', (call: HostCall) => {
  void answer(call)
})
post({ id: 0, value: undefined })
