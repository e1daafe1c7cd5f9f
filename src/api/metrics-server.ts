/** kube-proxy's :10249: metrics, and the configuration that is in force. */
import type { FastifyInstance } from 'fastify'
import { makeServer, sendJson, sendText } from './http.ts'

export interface MetricsSource {
  /** In Prometheus' text format. */
  readonly metrics: () => string
  readonly proxyMode: string
  /** The object of /configz. */
  readonly configz: object
}

export function metricsServer({ metrics, proxyMode, configz }: MetricsSource): FastifyInstance {
  const app = makeServer()
  app.all('/metrics', (_request, reply) => reply.type('text/plain; version=0.0.4; charset=utf-8').send(metrics()))
  app.all('/healthz', (_request, reply) => sendText(reply, 'ok'))
  app.all('/proxyMode', (_request, reply) => sendText(reply, proxyMode))
  app.all('/configz', (_request, reply) => sendJson(reply, 200, configz))
  return app
}
