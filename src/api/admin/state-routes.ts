/** Resources that say how things are: counters, connections, settings, hooks, verdicts, health, configuration, version. */
import { LbError } from '../../model/errors.ts'
import type { SettingsChange } from '../../model/settings.ts'
import type { ConnectionView, Counters, Rates, Timeouts, ServerView } from '../../model/types.ts'
import { findService } from './editor.ts'
import { formatServerName, formatServiceName, parseServiceName, readAddress } from './names.ts'
import { type AdminAnswer, type AdminRequest, type AdminTarget, type Route, tableOf } from './route.ts'
import { components, connectionQuery, type Schema } from './schemas.ts'

function reading(
  url: string,
  id: string,
  summary: string,
  answer: Schema,
  run: Route['run'],
  more: Partial<Route> = {},
): Route {
  return { method: 'GET', url, id, summary, status: 200, answer, problems: [], run, ...more }
}

/** A change of a resource that one reads at the same URL. What is left out stays. */
function changing(
  url: string,
  id: string,
  summary: string,
  [body, answer]: readonly [Schema, Schema],
  run: Route['run'],
): Route {
  return { method: 'PATCH', url, id, summary, body, status: 200, answer, problems: [], run }
}

export const stateRoutes: readonly Route[] = [
  reading('/v1/stats', 'getStats', 'What everything together counted', components.Stats, (target) => {
    return { body: texts(tableOf(target).totals()) }
  }),
  reading(
    '/v1/services/:service/stats',
    'getServiceStats',
    'What a virtual service and its servers counted',
    components.ServiceStats,
    serviceStats,
    { problems: [404] },
  ),
  reading(
    '/v1/connections',
    'listConnections',
    'Connections and templates, in table order, in pages; those that come or go between two pages may be missed or come twice',
    components.ConnectionList,
    listConnections,
    { query: connectionQuery },
  ),
  reading('/v1/timeouts', 'getTimeouts', 'The timeouts of --set', components.Timeouts, (target) => {
    return { body: tableOf(target).timeouts() }
  }),
  changing(
    '/v1/timeouts',
    'changeTimeouts',
    'Changes timeouts; what is left out stays',
    [components.TimeoutsChange, components.Timeouts],
    changeTimeouts,
  ),
  reading('/v1/settings', 'getSettings', 'Bypass, handover and tunables', components.Settings, (target) => {
    return { body: tableOf(target).settings() }
  }),
  changing(
    '/v1/settings',
    'changeSettings',
    'Changes bypass, handover and tunables, all at once; what is left out stays',
    [components.SettingsChange, components.Settings],
    changeSettings,
  ),
  reading('/v1/hooks', 'listHooks', 'Programs and where they are attached', components.HookList, ({ hooks }) => {
    return { body: { hooks: hooks() } }
  }),
  reading('/v1/verdicts', 'getVerdicts', 'What became of packets', components.VerdictList, ({ verdicts }) => {
    return { body: { verdicts: Object.fromEntries(verdicts().map(({ name, count }) => [name, String(count)])) } }
  }),
  reading('/v1/health', 'getHealth', 'How bpvsd is', components.Health, ({ healthy, table }) => {
    return { body: { healthy: healthy(), table: table() !== undefined } }
  }),
  reading('/v1/configuration', 'getConfiguration', 'The configuration', components.Configuration, (target) => {
    return { body: target.configuration }
  }),
  reading('/v1/version', 'getVersion', 'Which bpvs this is', components.Version, ({ version }) => {
    return { body: { version } }
  }),
]

function serviceStats(target: AdminTarget, { params }: AdminRequest): AdminAnswer {
  const view = findService(tableOf(target), parseServiceName(params.service))
  const { key, servers, insiders } = view
  const others = insiders === undefined ? {} : { insiders: insiders.map(serverStats) }
  return { body: { name: formatServiceName(key), ...texts(view), servers: servers.map(serverStats), ...others } }
}

function serverStats(server: ServerView): object {
  const { active, inactive, persistent } = server
  return { name: formatServerName(server), active, inactive, persistent, ...texts(server) }
}

function texts({ counters, rates }: { readonly counters: Counters; readonly rates: Rates }): object {
  const text = (of: Counters): object => Object.fromEntries(Object.entries(of).map(([name, n]) => [name, String(n)]))
  return { counters: text(counters), rates: text(rates) }
}

function listConnections(target: AdminTarget, { query }: AdminRequest): AdminAnswer {
  const { limit, after } = query as { readonly limit: number; readonly after: number }
  const matches = filterOf(query)
  const page: ConnectionView[] = []
  let seen = 0
  for (const connection of tableOf(target).connections()) {
    seen++
    if (seen <= after || !matches(connection)) continue
    if (page.length === limit) return { body: { connections: page, next: seen - 1 } }
    page.push(connection)
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
  return (connection) =>
    (protocol === undefined || connection.protocol === protocol) &&
    (state === undefined || connection.state === state) &&
    (port === undefined || connection.virtual.port === port) &&
    ends.every(([end, address]) => connection[end].address === address)
}

function canonical(text: string): string {
  const read = readAddress(text)
  if (read === undefined) throw new LbError('INVALID', 'Not an IP address', { address: text })
  return read.address
}

function changeTimeouts(target: AdminTarget, { body }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  table.setTimeouts({ tcpS: 0, tcpFinS: 0, udpS: 0, ...(body as Partial<Timeouts>) })
  return { body: table.timeouts() }
}

function changeSettings(target: AdminTarget, { body }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  table.changeSettings(body as SettingsChange)
  return { body: table.settings() }
}
