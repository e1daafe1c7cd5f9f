/** The admin API's server: routes with their schemas, problems, entity tags. Where it listens is another's affair. */
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { Log } from '../../observe/log.ts'
import type { Access } from './access.ts'
import { ChangeFeed, type FeedOptions, streamEvents } from './events.ts'
import { openApiDocument } from './openapi.ts'
import { problemOf, RequestError } from './problem.ts'
import { RateLimit } from './rate-limit.ts'
import type { AdminRequest, AdminTarget, Route } from './route.ts'
import { routes } from './routes.ts'
import { components, type Schema } from './schemas.ts'
import { namesTag } from './views.ts'

export interface AdminOptions {
  readonly target: AdminTarget
  readonly log: Log
  /** Milliseconds, monotonic. */
  readonly now: () => number
  readonly every: FeedOptions['every']
  /** Absent: whoever can connect may do everything. */
  readonly access?: Access
}

/** Longest body of a request, in bytes. */
const bodyLimit = 65_536
/** Characters of a name in a URL: two addresses of IPv6, with ports. */
const longestName = 128
/** Of all clients together: bpvsd has other things to do. */
const limit = { perSecond: 500, burst: 1000 }
const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

/** The server, not listening yet. Every change is logged with what came of it. */
export function adminServer({ target, log, now, every, access }: AdminOptions): FastifyInstance {
  const app = fastify({
    ...(access === undefined ? {} : { https: access.tls }),
    bodyLimit,
    routerOptions: { maxParamLength: longestName },
    requestTimeout: 10_000,
    forceCloseConnections: true,
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allErrors: false } },
    schemaErrorFormatter: ([first], where) => new Error(`${where}${first?.instancePath ?? ''} ${first?.message ?? ''}`),
  })
  app.removeContentTypeParser('text/plain')
  app.addContentTypeParser(
    'application/merge-patch+json',
    { parseAs: 'string' },
    app.getDefaultJsonParser('error', 'error'),
  )
  app.setErrorHandler((error, _request, reply) => sendProblem(reply, error, log))
  app.setNotFoundHandler((request, reply) => sendProblem(reply, new RequestError(404, request.url), log))
  const rate = new RateLimit(limit)
  app.addHook('onRequest', async ({ raw }, reply) => {
    if (access?.allows(raw) === false) {
      reply.header('www-authenticate', 'Bearer')
      throw new RequestError(401, 'a bearer token, or a certificate, is needed')
    }
    const waitMs = rate.take(now())
    if (waitMs === 0) return
    reply.header('retry-after', String(Math.ceil(waitMs / 1000)))
    throw new RequestError(429, `at most ${limit.perSecond} a second`)
  })
  app.addHook('onResponse', async ({ method, url }, { statusCode: status }) => {
    if (method !== 'GET' && method !== 'HEAD') log.info({ method, url, status }, 'admin')
  })
  const document = openApiDocument(routes, target.version)
  app.get('/openapi.json', async () => document)
  const feed = new ChangeFeed({ generation: () => target.table()?.generation(), every })
  app.get('/v1/events', { exposeHeadRoute: false }, async (_request, reply) => streamEvents(feed, reply))
  for (const route of routes) addRoute(app, route, target)
  for (const url of new Set(['/openapi.json', '/v1/events', ...routes.map((route) => route.url)]))
    refuseOthers(app, url)
  return app
}

function addRoute(app: FastifyInstance, route: Route, target: AdminTarget): void {
  const { method, url, query, body, status, answer } = route
  const schema = {
    ...(query === undefined ? {} : { querystring: query }),
    ...(body === undefined ? {} : { body }),
    response: { ...(answer === undefined ? {} : { [status]: answer }), '4xx': components.Problem },
  }
  app.route({
    method,
    url,
    schema,
    preValidation: async (request) => {
      if (query !== undefined) request.query = readNumbers(query, request.query as Record<string, unknown>)
    },
    handler: async (request, reply) => send(route, target, request, reply),
  })
}

function send(route: Route, target: AdminTarget, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { body, tag, location } = route.run(target, {
    params: request.params as AdminRequest['params'],
    query: request.query as AdminRequest['query'],
    body: request.body,
    ifMatch: request.headers['if-match'],
  })
  if (tag !== undefined) reply.header('etag', tag)
  if (location !== undefined) reply.header('location', location)
  const known = request.headers['if-none-match']
  const unchanged = route.method === 'GET' && tag !== undefined && known !== undefined && namesTag(known, tag, true)
  return unchanged ? reply.code(304).send() : reply.code(route.status).send(body)
}

/** A resource answers 405 to methods that it does not have, and says which it has. */
function refuseOthers(app: FastifyInstance, url: string): void {
  const has = methods.filter((method) => app.hasRoute({ method, url }))
  const others = methods.filter((method) => !has.includes(method))
  app.route({
    method: others,
    url,
    onRequest: async ({ method }, reply) => {
      reply.header('allow', app.hasRoute({ method: 'HEAD', url }) ? [...has, 'HEAD'].join(', ') : has.join(', '))
      throw new RequestError(405, method)
    },
    handler: async () => undefined,
  })
}

/** Integers of a query, which come as texts. What is no number stays, for the schema to refuse. */
function readNumbers(schema: Schema, query: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const properties = schema.properties as Readonly<Record<string, Schema>>
  const entries = Object.entries(query).map(([name, value]) => {
    const numeric = properties[name]?.type === 'integer' && typeof value === 'string' && /^\d{1,15}$/.test(value)
    return [name, numeric ? Number(value) : value]
  })
  return Object.fromEntries(entries)
}

function sendProblem(reply: FastifyReply, error: unknown, log: Log): FastifyReply {
  const problem = problemOf(error)
  if (problem.status >= 500) log.error({ err: error, code: problem.code }, 'admin request failed')
  return reply.code(problem.status).serializer(JSON.stringify).type('application/problem+json').send(problem)
}
