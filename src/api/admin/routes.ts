/** The resources of the admin API, one record each: fastify's routes and the OpenAPI document are both made of these. */
import type { Table } from '../../engine/table.ts'
import { LbError } from '../../model/errors.ts'
import type { ServerSpec, ServiceKey } from '../../model/types.ts'
import { connectionRoutes } from './connection-routes.ts'
import {
  changedServer,
  changedService,
  findServer,
  findService,
  type NewServer,
  newServerSpec,
  type NewService,
  newServiceSpec,
  type ServerChange,
  type ServiceChange,
} from './editor.ts'
import { formatServerName, formatServiceName, parseServerName, parseServiceName } from './names.ts'
import { type AdminAnswer, type AdminRequest, type AdminTarget, type Route, tableOf } from './route.ts'
import { components, pageQuery } from './schemas.ts'
import { stateRoutes } from './state-routes.ts'
import { checkTag, entityTag, type ShownServer, type ShownService, showServer, showService } from './views.ts'

const services = '/v1/services'
const service = `${services}/:service`
const servers = `${service}/servers`
const server = `${servers}/:server`

const tableRoutes: readonly Route[] = [
  {
    method: 'GET',
    url: services,
    id: 'listServices',
    summary: 'Virtual services with their servers, in pages',
    query: pageQuery,
    status: 200,
    answer: components.ServiceList,
    problems: [],
    run: listServices,
  },
  {
    method: 'POST',
    url: services,
    id: 'createService',
    summary: 'Adds a virtual service',
    body: components.NewService,
    status: 201,
    answer: components.Service,
    problems: [409, 507],
    run: createService,
  },
  {
    method: 'GET',
    url: service,
    id: 'getService',
    summary: 'One virtual service with its servers',
    status: 200,
    answer: components.Service,
    problems: [404],
    run: (target, { params }) => tagged(shownService(target, tableOf(target), parseServiceName(params.service))),
  },
  {
    method: 'PATCH',
    url: service,
    id: 'changeService',
    summary: 'Changes a virtual service; what is left out stays, and persistence null ends persistence',
    body: components.ServiceChange,
    status: 200,
    answer: components.Service,
    problems: [404, 412],
    run: changeService,
  },
  {
    method: 'DELETE',
    url: service,
    id: 'deleteService',
    summary: 'Removes a virtual service and its servers',
    status: 204,
    problems: [404, 412],
    run: deleteService,
  },
  {
    method: 'GET',
    url: servers,
    id: 'listServers',
    summary: 'Servers of a virtual service',
    status: 200,
    answer: components.ServerList,
    problems: [404],
    run: (target, { params }) => {
      const { servers } = shownService(target, tableOf(target), parseServiceName(params.service))
      return { body: { servers } }
    },
  },
  {
    method: 'POST',
    url: servers,
    id: 'createServer',
    summary: 'Adds a server to a virtual service',
    body: components.NewServer,
    status: 201,
    answer: components.Server,
    problems: [404, 409, 507],
    run: createServer,
  },
  {
    method: 'GET',
    url: server,
    id: 'getServer',
    summary: 'One server',
    status: 200,
    answer: components.Server,
    problems: [404],
    run: (target, { params }) => tagged(shownServer(tableOf(target), params)),
  },
  {
    method: 'PATCH',
    url: server,
    id: 'changeServer',
    summary: 'Changes a server; what is left out stays',
    body: components.ServerChange,
    status: 200,
    answer: components.Server,
    problems: [404, 412],
    run: changeServer,
  },
  {
    method: 'DELETE',
    url: server,
    id: 'deleteServer',
    summary: 'Removes a server; its connections end as with bpvsadm -d',
    status: 204,
    problems: [404, 412],
    run: deleteServer,
  },
]

export const routes: readonly Route[] = [...tableRoutes, ...connectionRoutes, ...stateRoutes]

function shownService({ ownerOf }: AdminTarget, table: Table, key: ServiceKey): ShownService {
  return showService(findService(table, key), ownerOf)
}

function shownServer(table: Table, params: AdminRequest['params']): ShownServer {
  const owner = findService(table, parseServiceName(params.service))
  return showServer(findServer(owner, parseServerName(params.server)))
}

function tagged(body: ShownService | ShownServer): AdminAnswer {
  return { body, tag: entityTag(body) }
}

function listServices(target: AdminTarget, { query }: AdminRequest): AdminAnswer {
  const { limit = 1000, after = 0 } = query as Readonly<Record<string, number>>
  const page: ShownService[] = []
  let last = after
  let more = false
  tableOf(target).eachService((view) => {
    more = page.length === limit
    if (more) return false
    page.push(showService(view, target.ownerOf))
    last = view.id
    return true
  }, after)
  return { body: { services: page, ...(more ? { next: last } : {}) } }
}

function createService(target: AdminTarget, { body }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const spec = newServiceSpec(body as NewService)
  return table.exclusively(() => {
    table.addService(spec, 'command')
    const location = `${services}/${formatServiceName(spec.key)}`
    return { ...tagged(shownService(target, table, spec.key)), location }
  })
}

function changeService(target: AdminTarget, { params, body, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const key = parseServiceName(params.service)
  return table.exclusively(() => {
    const view = findService(table, key)
    checkTag(ifMatch, entityTag(showService(view, target.ownerOf)))
    table.editService(changedService(view, body as ServiceChange))
    return tagged(shownService(target, table, key))
  })
}

function deleteService(target: AdminTarget, { params, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const key = parseServiceName(params.service)
  return table.exclusively(() => {
    checkTag(ifMatch, entityTag(shownService(target, table, key)))
    table.deleteService(key)
    return {}
  })
}

function createServer(target: AdminTarget, { params, body }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const key = parseServiceName(params.service)
  const spec = newServerSpec(key, body as NewServer)
  const name = formatServerName(spec)
  findService(table, key)
  checkFamilies(target, key, spec)
  return table.exclusively(() => {
    table.addServer(key, spec)
    const location = `${services}/${formatServiceName(key)}/servers/${name}`
    return { ...tagged(shownServer(table, { ...params, server: name })), location }
  })
}

function changeServer(target: AdminTarget, { params, body, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const key = parseServiceName(params.service)
  return table.exclusively(() => {
    const view = findServer(findService(table, key), parseServerName(params.server))
    checkTag(ifMatch, entityTag(showServer(view)))
    table.editServer(key, changedServer(view, body as ServerChange))
    return tagged(shownServer(table, params))
  })
}

function deleteServer(target: AdminTarget, { params, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  const key = parseServiceName(params.service)
  return table.exclusively(() => {
    const view = findServer(findService(table, key), parseServerName(params.server))
    checkTag(ifMatch, entityTag(showServer(view)))
    table.deleteServer(key, view)
    return {}
  })
}

/** INVALID: records of a sync daemon have one family for both ends. */
function checkFamilies({ syncs }: AdminTarget, { family }: ServiceKey, server: ServerSpec): void {
  if (server.family === family || !syncs()) return
  throw new LbError('INVALID', "With a sync daemon a server is of its service's family", { address: server.address })
}
