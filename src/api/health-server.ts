/** kube-proxy's :10256: whether this node's proxy works, for load balancers and probes. */
import type { FastifyInstance } from 'fastify'
import { makeServer, sendJson } from './http.ts'

export interface HealthSource {
  readonly answer: (what: 'healthz' | 'livez') => { readonly status: number; readonly body: object }
  /** Counts the answers. */
  readonly asked: (what: 'healthz' | 'livez', status: number) => void
}

export function healthServer({ answer, asked }: HealthSource): FastifyInstance {
  const app = makeServer()
  for (const what of ['healthz', 'livez'] as const) {
    app.all(`/${what}`, (_request, reply) => {
      const { status, body } = answer(what)
      asked(what, status)
      return sendJson(reply, status, body)
    })
  }
  return app
}
