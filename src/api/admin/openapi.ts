/** The OpenAPI document of the admin API, from its routes and their schemas. Pure. */
import { eventsOperation } from './events.ts'
import { reasonOf } from './problem.ts'
import type { Route } from './route.ts'
import { components, type Schema } from './schemas.ts'

/** What any request may be answered. */
const everywhere = [400, 401, 403, 413, 415, 429, 500, 503]
const pathTexts: Readonly<Record<string, string>> = {
  service: 'Name of a virtual service: tcp-10.0.0.1-80, udp-fd00::1-53, fwmark4-7.',
  server: 'Name of a server: 10.0.0.2-8080.',
  connection:
    'Name of a connection: tcp-10.1.0.1-1000-10.0.0.1-80; of a template: template-tcp-10.1.0.1-0-10.0.0.1-80.',
}

/** What comes with an entity tag. */
const withTag: readonly Schema[] = [
  components.Service,
  components.Server,
  components.Connection,
  components.Timeouts,
  components.Settings,
]

/** `version`: of bpvs. */
export function openApiDocument(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {}
  for (const route of routes) {
    const path = route.url.replaceAll(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) }
  }
  paths['/v1/events'] = { get: eventsOperation }
  const named = Object.entries(components).map(([name, schema]) => [name, refer(schema, name)])
  return {
    openapi: '3.1.0',
    info: { title: 'bpvs admin API', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    paths,
    components: { schemas: Object.fromEntries(named) },
  }
}

function operation(route: Route): object {
  const statuses = [...new Set([...everywhere, ...route.problems])].sort((a, b) => a - b)
  const problems = statuses.map((status) => [status, content(status, components.Problem, 'application/problem+json')])
  return {
    operationId: route.id,
    summary: route.summary,
    parameters: [...pathParameters(route), ...queryParameters(route), ...headerParameters(route)],
    ...(route.body === undefined ? {} : { requestBody: { required: true, ...jsonContent(route.body) } }),
    responses: { [route.status]: success(route), ...Object.fromEntries(problems) },
  }
}

function success({ status, answer, method }: Route): object {
  if (answer === undefined) return { description: reasonOf(status) }
  const tagged = withTag.some((schema) => schema === answer)
  const tag = { ETag: { description: 'Names this state.', schema: { type: 'string' } } }
  const location = { Location: { schema: { type: 'string' } } }
  const headers = { ...(tagged ? tag : {}), ...(method === 'POST' ? location : {}) }
  return { ...content(status, answer, 'application/json'), ...(Object.keys(headers).length > 0 ? { headers } : {}) }
}

function pathParameters({ url }: Route): object[] {
  return Array.from(url.matchAll(/:(\w+)/g), ([, name = '']) => {
    return { name, in: 'path', required: true, description: pathTexts[name], schema: { type: 'string' } }
  })
}

function queryParameters({ query }: Route): object[] {
  const properties = (query?.properties ?? {}) as Readonly<Record<string, Schema>>
  return Object.entries(properties).map(([name, { description, ...schema }]) => {
    return { name, in: 'query', required: false, description, schema }
  })
}

function headerParameters({ method, problems }: Route): object[] {
  if (!problems.includes(412) || method === 'GET') return []
  const description = 'An ETag: the change is made only if it names the state at present.'
  return [{ name: 'If-Match', in: 'header', required: false, description, schema: { type: 'string' } }]
}

function content(status: number, schema: Schema, type: string): object {
  return { description: reasonOf(status), content: { [type]: { schema: refer(schema) } } }
}

function jsonContent(schema: Schema): object {
  return { content: { 'application/json': { schema: refer(schema) } } }
}

/** The schema with those that have a name referred to; `self`: the name of the one that is written out. */
function refer(value: unknown, self?: string): unknown {
  const name = Object.entries(components).find(([, schema]) => schema === value)?.[0]
  if (name !== undefined && name !== self) return { $ref: `#/components/schemas/${name}` }
  if (Array.isArray(value)) return value.map((each) => refer(each))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, refer(each)]))
}
