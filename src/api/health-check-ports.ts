/**
 * A port for each Service that sends load balancers to nodes with endpoints only: it tells whether this node has some.
 * Servers of their own and not fastify's, as there may be hundreds.
 */
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { Log } from '../observe/log.ts'

/** What a Service's port tells. */
export interface HealthCheckPort {
  readonly namespace: string
  readonly name: string
  readonly port: number
  readonly family: 4 | 6
  /** Ready endpoints on this node. */
  readonly localEndpoints: number
  /** Of the Service. */
  readonly uid?: string
}

export interface HealthCheckPortsOptions {
  readonly log: Log
  readonly healthy: () => boolean
  readonly after: (ms: number, run: () => void) => { cancel(): void }
  /** A port cannot be had; called at each attempt. */
  readonly onTrouble: (check: HealthCheckPort, error: Error) => unknown
}

interface Listener {
  check: HealthCheckPort
  readonly servers: Server[]
  readonly retries: { cancel(): void }[]
}

const retryMs = 5_000

export class HealthCheckPorts {
  readonly #options: HealthCheckPortsOptions
  /** By family, port and address. */
  readonly #listeners = new Map<string, Listener>()

  constructor(options: HealthCheckPortsOptions) {
    this.#options = options
  }

  /** These are all the checks; `addresses` of each family where they are served, empty: on all. */
  sync(checks: readonly HealthCheckPort[], addresses: Readonly<Record<4 | 6, readonly string[]>>): void {
    const wanted = new Map<string, { readonly check: HealthCheckPort; readonly host: string }>()
    for (const check of checks) {
      const any = check.family === 4 ? '0.0.0.0' : '::'
      const hosts = addresses[check.family].length === 0 ? [any] : addresses[check.family]
      for (const host of hosts) wanted.set(`${check.port} ${host}`, { check, host })
    }
    for (const [key, listener] of this.#listeners) {
      if (!wanted.has(key)) this.#end(key, listener)
    }
    for (const [key, { check, host }] of wanted) {
      const listener = this.#listeners.get(key)
      if (listener !== undefined) listener.check = check
      else this.#begin(key, check, host)
    }
  }

  close(): void {
    for (const [key, listener] of this.#listeners) this.#end(key, listener)
  }

  #begin(key: string, check: HealthCheckPort, host: string): void {
    const listener: Listener = { check, servers: [], retries: [] }
    this.#listeners.set(key, listener)
    this.#listen(key, listener, host)
  }

  #listen(key: string, listener: Listener, host: string): void {
    const { log, after, onTrouble } = this.#options
    const server = createServer((request, response) => {
      request.resume()
      this.#answer(listener.check, response)
    })
    const { namespace, name, port } = listener.check
    server.on('error', (err) => {
      log.error({ service: `${namespace}/${name}`, host, port, err }, 'health checks of a service cannot be served')
      onTrouble(listener.check, err)
      const again = (): void => {
        if (this.#listeners.get(key) === listener) this.#listen(key, listener, host)
      }
      listener.retries.push(after(retryMs, again))
    })
    server.listen({ host, port, ipv6Only: listener.check.family === 6 })
    server.unref()
    listener.servers.push(server)
  }

  #answer({ namespace, name, localEndpoints }: HealthCheckPort, response: ServerResponse): void {
    const healthy = this.#options.healthy()
    const body = { service: { namespace, name }, localEndpoints, serviceProxyHealthy: healthy }
    response.writeHead(healthy && localEndpoints > 0 ? 200 : 503, {
      'content-type': 'application/json',
      'x-content-type-options': 'nosniff',
      'x-load-balancing-endpoint-weight': String(localEndpoints),
    })
    response.end(JSON.stringify(body, undefined, '\t'))
  }

  #end(key: string, listener: Listener): void {
    this.#listeners.delete(key)
    for (const retry of listener.retries) retry.cancel()
    for (const server of listener.servers) {
      server.close()
      server.closeAllConnections()
    }
  }
}
