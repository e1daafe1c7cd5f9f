/** Connections and persistence templates: filtered and in pages, one by its name, and ending one. */
import { LbError } from '../../model/errors.ts'
import type { ConnectionView } from '../../model/types.ts'
import { formatConnectionName, parseConnectionName, readAddress } from './names.ts'
import { type AdminAnswer, type AdminRequest, type AdminTarget, type Route, tableOf } from './route.ts'
import { connectionQuery } from './connection-schema.ts'
import { components } from './schemas.ts'
import { checkTag, entityTag } from './views.ts'

const connections = '/v1/connections'
const connection = `${connections}/:connection`

export const connectionRoutes: readonly Route[] = [
  {
    method: 'GET',
    url: connections,
    id: 'listConnections',
    summary:
      'Connections and templates, in table order, in pages; those that come or go between two pages may be missed or come twice',
    query: connectionQuery,
    status: 200,
    answer: components.ConnectionList,
    problems: [],
    run: listConnections,
  },
  {
    method: 'GET',
    url: connection,
    id: 'getConnection',
    summary: 'One connection or template',
    status: 200,
    answer: components.Connection,
    problems: [404],
    run: getConnection,
  },
  {
    method: 'DELETE',
    url: connection,
    id: 'endConnection',
    summary:
      'Ends a connection: whichever end says something next is told so. A template leads its client nowhere any more',
    status: 204,
    problems: [404, 412, 501],
    run: endConnection,
  },
]

function showConnection(view: ConnectionView): object {
  return { name: formatConnectionName(view), ...view }
}

/** Names what stays as long as the connection lives; another one of the same ends has another server, or the same tag. */
function tagOf(view: ConnectionView): string {
  return entityTag({ name: formatConnectionName(view), server: view.server })
}

function getConnection(target: AdminTarget, { params }: AdminRequest): AdminAnswer {
  const view = tableOf(target).connection(parseConnectionName(params.connection))
  if (view === undefined) throw new LbError('NO_CONNECTION')
  return { body: showConnection(view), tag: tagOf(view) }
}

function endConnection(target: AdminTarget, { params, ifMatch }: AdminRequest): AdminAnswer {
  const { endSockets } = target
  const check = (view: ConnectionView): void => checkTag(ifMatch, tagOf(view))
  tableOf(target).endConnection(parseConnectionName(params.connection), { check, endSockets })
  return {}
}

function listConnections(target: AdminTarget, { query }: AdminRequest): AdminAnswer {
  const { limit, after } = query as { readonly limit: number; readonly after: number }
  const matches = filterOf(query)
  const page: object[] = []
  let seen = 0
  for (const view of tableOf(target).connections()) {
    seen++
    if (seen <= after || !matches(view)) continue
    if (page.length === limit) return { body: { connections: page, next: seen - 1 } }
    page.push(showConnection(view))
  }
  return { body: { connections: page } }
}

/** INVALID: an address. */
function filterOf(query: AdminRequest['query']): (connection: ConnectionView) => boolean {
  const { protocol, state, port } = query
  const ends = (['client', 'virtual', 'server'] as const).flatMap((end) => {
    const text = query[end]
    return text === undefined ? [] : [[end, canonical(String(text))] as const]
  })
  return (view) =>
    (protocol === undefined || view.protocol === protocol) &&
    (state === undefined || view.state === state) &&
    (port === undefined || view.virtual.port === port) &&
    ends.every(([end, address]) => view[end].address === address)
}

function canonical(text: string): string {
  const read = readAddress(text)
  if (read === undefined) throw new LbError('INVALID', 'Not an IP address', { address: text })
  return read.address
}
