/** Resources that say how things are: counters, settings, hooks, verdicts, health, configuration, version. */
import type { SettingsChange } from '../../model/settings.ts'
import type { Counters, Rates, Timeouts, ServerView } from '../../model/types.ts'
import { findService } from './editor.ts'
import { formatServerName, formatServiceName, parseServiceName } from './names.ts'
import { type AdminAnswer, type AdminRequest, type AdminTarget, type Route, tableOf } from './route.ts'
import { components, type Schema } from './schemas.ts'
import { checkTag, entityTag } from './views.ts'

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
  return { method: 'PATCH', url, id, summary, body, status: 200, answer, problems: [412], run }
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
  reading('/v1/timeouts', 'getTimeouts', 'The timeouts of --set', components.Timeouts, (target) => {
    return tagged(tableOf(target).timeouts())
  }),
  changing(
    '/v1/timeouts',
    'changeTimeouts',
    'Changes timeouts; what is left out stays',
    [components.TimeoutsChange, components.Timeouts],
    changeTimeouts,
  ),
  reading('/v1/settings', 'getSettings', 'Bypass, handover and tunables', components.Settings, (target) => {
    return tagged(tableOf(target).settings())
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

function tagged(body: object): AdminAnswer {
  return { body, tag: entityTag(body) }
}

function changeTimeouts(target: AdminTarget, { body, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  return table.exclusively(() => {
    checkTag(ifMatch, entityTag(table.timeouts()))
    table.setTimeouts({ tcpS: 0, tcpFinS: 0, udpS: 0, ...(body as Partial<Timeouts>) })
    return tagged(table.timeouts())
  })
}

function changeSettings(target: AdminTarget, { body, ifMatch }: AdminRequest): AdminAnswer {
  const table = tableOf(target)
  return table.exclusively(() => {
    checkTag(ifMatch, entityTag(table.settings()))
    table.changeSettings(body as SettingsChange)
    return tagged(table.settings())
  })
}
