/** kube-proxy's :10249: metrics, the configuration that is in force, and what is running. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import { Counter, Gauge, Registry } from '../observe/metrics.ts'
import { makeServer, sendJson, sendText } from './http.ts'
import { addZPages, type ZPagesSource } from './zpages.ts'

export interface MetricsSource {
  /** In Prometheus' text format. */
  readonly metrics: () => string
  readonly proxyMode: string
  /** The object of /configz. */
  readonly configz: object
  readonly zpages: ZPagesSource
}

export function metricsServer({ metrics, proxyMode, configz, zpages }: MetricsSource): FastifyInstance {
  const app = makeServer()
  const slis = new HealthSlis()
  app.all('/metrics', (_request, reply) => sendMetrics(reply, metrics()))
  app.all('/metrics/slis', ({ method }, reply) => {
    if (method !== 'DELETE') return sendMetrics(reply, slis.text())
    slis.reset()
    return sendText(reply, 'metrics reset\n')
  })
  app.all('/healthz', ({ query }, reply) => {
    slis.checked()
    const verbose = Object.hasOwn(query as object, 'verbose')
    return sendText(reply, verbose ? '[+]ping ok\nhealthz check passed\n' : 'ok')
  })
  app.all('/healthz/ping', (_request, reply) => sendText(reply, 'ok'))
  app.all('/proxyMode', (_request, reply) => sendText(reply, proxyMode))
  app.all('/configz', (_request, reply) => sendJson(reply, 200, configz))
  addZPages(app, zpages)
  return app
}

function sendMetrics(reply: FastifyReply, text: string): FastifyReply {
  return reply.type('text/plain; version=0.0.4; charset=utf-8').send(text)
}

/** What the health checks of this port came to, as every component of Kubernetes counts them: its only check never fails. */
class HealthSlis {
  #registry = new Registry()
  #last = gauge(this.#registry)
  #all = counter(this.#registry)

  checked(): void {
    const labels = { name: 'ping', type: 'healthz' }
    this.#last.set(1, labels)
    this.#all.add(1, { ...labels, status: 'success' })
  }

  text(): string {
    return this.#registry.text()
  }

  reset(): void {
    this.#registry = new Registry()
    this.#last = gauge(this.#registry)
    this.#all = counter(this.#registry)
  }
}

function gauge(registry: Registry): Gauge {
  return registry.register(
    new Gauge('kubernetes_healthcheck', '[STABLE] This metric records the result of a single healthcheck.'),
  )
}

function counter(registry: Registry): Counter {
  return registry.register(
    new Counter('kubernetes_healthchecks_total', '[STABLE] This metric records the results of all healthcheck.'),
  )
}
