/** From what a source owns in the table and what it wants there: the operations that make them equal. Pure. */
import type { ServerName, ServiceName } from '../maps/names.ts'
import { sameServerConfig, sameServiceConfig } from '../maps/records.ts'
import type { ServerWant, ServiceConfig, ServiceWant } from '../maps/records.ts'

/** A server in the table. */
export interface ActualServer extends ServerWant {
  readonly id: number
}

/** A service in the table, with its servers in list order (the newest first). */
export interface ActualService {
  readonly id: number
  readonly name: ServiceName
  readonly config: ServiceConfig
  readonly servers: readonly ActualServer[]
  /** Those for insiders, where they have other ones. */
  readonly insiders?: readonly ActualServer[]
}

/** A service as a source wants it, with its servers in the order of adding. */
export interface DesiredRecord extends ServiceWant {
  readonly servers: readonly ServerWant[]
  readonly insiders?: readonly ServerWant[]
}

/** How the servers of a service change. */
export interface ServerChanges {
  /** Ids. */
  readonly removed: ReadonlySet<number>
  /** By id. */
  readonly edited: ReadonlyMap<number, ServerWant>
  /** In the order of adding: the last becomes the head. */
  readonly added: readonly ServerWant[]
}

/** How a service changes. */
export interface ServiceChanges extends ServerChanges {
  /** Absent: scheduler, flags and persistence stay. */
  readonly config?: ServiceConfig
  /** Of the servers for insiders, who may have had none of their own; `none`: they get those of all. Absent: as before. */
  readonly insiders?: ServerChanges | 'none'
}

export type Operation =
  | { readonly kind: 'remove'; readonly id: number; readonly name: ServiceName }
  | { readonly kind: 'change'; readonly id: number; readonly name: ServiceName; readonly changes: ServiceChanges }
  | { readonly kind: 'add'; readonly name: ServiceName; readonly want: DesiredRecord }

/** Whether a server that is no longer wanted stays in its service with weight 0. */
export type Drains = (service: ActualService, server: ActualServer) => boolean

const neverDrains: Drains = () => false

/**
 * Removals first, so that what they free can be used; then changes, then additions. Names in `desired` are unique.
 * Servers that stay keep their place; new ones come in the order of adding.
 */
export function plan(
  actual: readonly ActualService[],
  desired: readonly DesiredRecord[],
  drains: Drains = neverDrains,
): Operation[] {
  const wanted = new Map(desired.map((want) => [want.name, want]))
  const removals: Operation[] = []
  const changes: Operation[] = []
  for (const service of actual) {
    const want = wanted.get(service.name)
    if (want === undefined) {
      removals.push({ kind: 'remove', id: service.id, name: service.name })
      continue
    }
    wanted.delete(service.name)
    const change = planChange(service, want, drains)
    if (change !== undefined) changes.push(change)
  }
  const additions: Operation[] = Array.from(wanted.values(), (want) => ({ kind: 'add', name: want.name, want }))
  return [...removals, ...changes, ...additions]
}

function planChange(service: ActualService, want: DesiredRecord, drains: Drains): Operation | undefined {
  const { id, name } = service
  const drainsHere = (server: ActualServer): boolean => drains(service, server)
  const servers = planServers(service.servers, want.servers, drainsHere)
  const same = sameServiceConfig(service.config, want.config)
  const insiders = planInsiders(service.insiders, want.insiders, drainsHere)
  if (same && isNothing(servers) && insiders === undefined) return undefined
  const config = same ? {} : { config: want.config }
  return {
    kind: 'change',
    id,
    name,
    changes: { ...servers, ...config, ...(insiders === undefined ? {} : { insiders }) },
  }
}

function planInsiders(
  actual: readonly ActualServer[] | undefined,
  desired: readonly ServerWant[] | undefined,
  drains: (server: ActualServer) => boolean,
): ServiceChanges['insiders'] {
  if (desired === undefined) return actual === undefined ? undefined : 'none'
  const changes = planServers(actual ?? [], desired, drains)
  return actual !== undefined && isNothing(changes) ? undefined : changes
}

function isNothing({ removed, edited, added }: ServerChanges): boolean {
  return removed.size === 0 && edited.size === 0 && added.length === 0
}

/** `actual` in list order, `desired` in the order of adding; names in each are unique. */
export function planServers(
  actual: readonly ActualServer[],
  desired: readonly ServerWant[],
  drains: (server: ActualServer) => boolean = () => false,
): ServerChanges {
  const removed = new Set<number>()
  const edited = new Map<number, ServerWant>()
  if (sameOrder(actual, desired)) {
    for (const [i, want] of desired.entries()) noteEdit(edited, actual[actual.length - 1 - i], want)
    return { removed, edited, added: [] }
  }
  const present = new Map<ServerName, ActualServer>(actual.map((server) => [server.name, server]))
  const added: ServerWant[] = []
  for (const want of desired) {
    const server = present.get(want.name)
    if (server === undefined) added.push(want)
    else noteEdit(edited, server, want)
    present.delete(want.name)
  }
  for (const server of present.values()) {
    const { id, name, config } = server
    if (drains(server)) noteEdit(edited, server, { name, config: { ...config, weight: 0 } })
    else removed.add(id)
  }
  return { removed, edited, added }
}

function sameOrder(actual: readonly ActualServer[], desired: readonly ServerWant[]): boolean {
  return (
    actual.length === desired.length && desired.every((want, i) => actual[actual.length - 1 - i]?.name === want.name)
  )
}

function noteEdit(edited: Map<number, ServerWant>, server: ActualServer | undefined, want: ServerWant): void {
  if (server !== undefined && !sameServerConfig(server.config, want.config)) edited.set(server.id, want)
}
