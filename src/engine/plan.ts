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
}

/** A service as a source wants it, with its servers in the order of adding. */
export interface DesiredRecord extends ServiceWant {
  readonly servers: readonly ServerWant[]
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
  const servers = planServers(service.servers, want.servers, (server) => drains(service, server))
  const same = sameServiceConfig(service.config, want.config)
  if (same && servers.removed.size === 0 && servers.edited.size === 0 && servers.added.length === 0) return undefined
  return { kind: 'change', id, name, changes: same ? servers : { ...servers, config: want.config } }
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
