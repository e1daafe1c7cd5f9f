/** What bpvsd's HTTP servers have in common: answers in kube-proxy's form, and a port that is tried until it is free. */
import { fastify, type FastifyInstance, type FastifyReply } from 'fastify'
import type { Log } from '../observe/log.ts'

const plain = 'text/plain; charset=utf-8'

/** Where a server listens. */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

export function sendText(reply: FastifyReply, text: string): FastifyReply {
  return reply.type(plain).send(text)
}

/** As it is; fastify would say the character set. */
export function sendJson(reply: FastifyReply, status: number, body: object): FastifyReply {
  return reply.code(status).serializer(String).header('content-type', 'application/json').send(JSON.stringify(body))
}

/** A server that takes any method and any body, and answers what it does not have as Go's does. */
export function makeServer(): FastifyInstance {
  const app = fastify({ bodyLimit: 65_536, requestTimeout: 10_000, forceCloseConnections: true })
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', (_request, payload, done) => {
    payload.resume()
    done(null)
  })
  app.addHook('onSend', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff')
  })
  app.setNotFoundHandler((_request, reply) => sendText(reply.code(404), '404 page not found\n'))
  return app
}

export interface ServeOptions {
  readonly name: string
  readonly log: Log
  readonly after: (ms: number, run: () => void) => { cancel(): void }
  /** Called when the port cannot be had; undefined: it is tried again. */
  readonly onRefused?: (error: unknown) => void
  /** Called when the port cannot be had for a reason that is new. */
  readonly onTrouble?: (error: unknown) => void
}

const retryMs = 5_000

/** Listens, again and again until it can. Returns what ends it. */
export function serve(
  make: () => FastifyInstance,
  { host, port }: Endpoint,
  { name, log, after, onRefused, onTrouble }: ServeOptions,
): { close(): Promise<void> } {
  let app: FastifyInstance | undefined
  let retry: { cancel(): void } | undefined
  let closed = false
  let said = ''
  const listen = async (): Promise<void> => {
    app = make()
    try {
      await app.listen({ host, port })
      log.info({ server: name, host, port }, 'listening')
    } catch (err) {
      await app.close()
      if (onRefused !== undefined) onRefused(err)
      const text = err instanceof Error ? err.message : String(err)
      if (text !== said) {
        log.error({ server: name, host, port, err }, 'cannot listen')
        onTrouble?.(err)
      }
      said = text
      if (!closed) retry = after(retryMs, () => void listen())
    }
  }
  const started = listen()
  return {
    close: async () => {
      closed = true
      retry?.cancel()
      await started
      await app?.close()
    },
  }
}
