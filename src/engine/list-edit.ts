/**
 * Changes of lists of servers: what a new list is made of, and the order of writes in which a packet sees the old one or the
 * new one. Several lists can be changed as one: everything that can fail (ids, cells) is done for all of them before
 * anything that a packet can see. All functions are called with the table's lock held.
 */
import { LbFwd, LbLimit, LbSched } from '../abi/generated.ts'
import { writeAllowed } from '../maps/audience.ts'
import { allocateLists, type ListRoom } from '../maps/cells.ts'
import { retireCells, useCells } from '../maps/free-cells.ts'
import { writeTable } from '../maps/hash-tables.ts'
import { freeServerId } from '../maps/ids.ts'
import { intervalCount } from '../maps/intervals.ts'
import { readList, summarizeWeights, writeList } from '../maps/lists.ts'
import type { ServerList } from '../maps/lists.ts'
import type { ServiceName } from '../maps/names.ts'
import { sameServiceConfig, writeServerConfig, writeServiceConfig } from '../maps/records.ts'
import type { ServerWant, ServiceConfig } from '../maps/records.ts'
import { ServerBits, type ServerEndpoint } from '../maps/filter.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'
import type { Edit } from './edit.ts'
import type { ServerChanges } from './plan.ts'
import { leaveServer, resetCursor, serversChanged } from './cursor.ts'
import { tellSources } from './sources.ts'
import { putInTrash, sweepService, takeFromTrash, takeServer, trashedByName } from './trash.ts'

/** How the list of one service changes. */
export interface ListChange {
  /** Of the service; its record has its name. */
  readonly id: number
  /** As it shall be. */
  readonly config: ServiceConfig
  /** As it is; undefined: the service has no list yet. */
  readonly before: ServiceConfig | undefined
  readonly servers: ServerChanges
  /** Id of the service that the list leads insiders to; 0: none. */
  readonly insiders: number
}

/** A change of which nothing can fail any more. */
interface Ready extends ListChange {
  readonly old: ServerList
  readonly newcomers: readonly Newcomer[]
  readonly list: ServerList
}

/** What the filter is to know of a server. */
export function endpointOf(service: ServiceName, { name, config }: ServerWant): ServerEndpoint {
  return { name, service, oneWay: config.method !== LbFwd.FWD_MASQ }
}

/** Sets the filter's bits for servers that are about to be added, or to get another method. */
export function announceServers(maps: TableMaps, service: ServiceName, servers: readonly ServerWant[]): void {
  const bits = new ServerBits(maps)
  for (const server of servers) bits.add(endpointOf(service, server))
  bits.flush()
}

export function touchesServers(changes: ServerChanges): boolean {
  return changes.removed.size > 0 || changes.edited.size > 0 || changes.added.length > 0
}

/**
 * Changes lists, in their order, each by one switch. TABLE_FULL; INVALID: see checkCount(). Then nothing has changed.
 */
export function changeLists(edit: Edit, changes: readonly ListChange[]): void {
  const { maps } = edit
  for (const { id } of changes) sweepService(maps, id, edit.nowS)
  for (const { servers } of changes) tellSources(maps, [...servers.added, ...servers.edited.values()])
  const admitted = admit(edit, changes)
  const ready = changes.map((change, i) => makeReady(maps, change, admitted[i] ?? []))
  const rooms = orUndo(maps, admitted.flat(), () => {
    for (const { list, config, before } of ready) checkCount(list.ids.length, config.scheduler, before?.scheduler ?? 0)
    return allocateLists(maps, ready.map(needsOf))
  })
  for (const [i, change] of ready.entries()) {
    const room = rooms[i]
    if (room !== undefined) perform(edit, change, room)
  }
}

function makeReady(maps: TableMaps, change: ListChange, newcomers: readonly Newcomer[]): Ready {
  const cell = maps.services.list(change.id)
  const old = cell === 0 ? { ids: [], weights: [] } : readList(maps.cells, cell)
  return { ...change, old, newcomers, list: nextList(old, change.servers, newcomers) }
}

function needsOf({ list, config, insiders }: Ready): Parameters<typeof allocateLists>[1][number] {
  const intervals = intervalCount(config.allowed)
  const audience = insiders !== 0 || intervals > 0
  return { servers: list.ids.length, scheduler: config.scheduler, audience, intervals }
}

function perform(edit: Edit, change: Ready, room: ListRoom): void {
  const { maps, nowS } = edit
  const { id, config, before, servers, newcomers, list, old } = change
  for (const newcomer of newcomers) writeNewcomer(maps, id, newcomer)
  const revived = newcomers.filter((newcomer) => newcomer.revived)
  if (revived.length > 0) takeFromTrash(maps, id, new Set(revived.map((newcomer) => newcomer.id)))
  if (servers.edited.size > 0) announceServers(maps, maps.serviceName(id), [...servers.edited.values()])
  for (const [server, want] of servers.edited) writeEdited(maps, server, want)
  if (before === undefined || !sameServiceConfig(before, config)) writeServiceConfig(maps, id, config)
  maps.services.setEdited(id, nowS)
  writeRanks(maps, list.ids)
  putInForce(maps, room, change)
  const scheduler = before?.scheduler ?? 0
  dismiss(edit, id, scheduler, old.ids, servers.removed)
  const weights = summarizeWeights(list.weights)
  if (before === undefined || config.scheduler !== scheduler) resetCursor(maps, id, config.scheduler, weights)
  else if (touchesServers(servers)) serversChanged(maps, id, scheduler, weights)
}

/** A server that is about to be added: a new id, or one that comes back. */
interface Newcomer {
  readonly id: number
  readonly want: ServerWant
  readonly revived: boolean
}

/** Finds ids for all; nothing is written to those that come back. */
function admit(edit: Edit, changes: readonly ListChange[]): Newcomer[][] {
  const { maps } = edit
  const kept = changes.map(({ id }) => trashedByName(maps, id))
  const keep = new Set<number>()
  for (const [i, { servers }] of changes.entries()) {
    if (kept[i]?.size === 0) continue
    for (const { name } of servers.added) {
      const id = kept[i]?.get(name)
      if (id !== undefined) keep.add(id)
    }
  }
  const editing = new Set(changes.flatMap(({ id }) => [id, maps.services.pair(id)]))
  const admitted: Newcomer[][] = changes.map(() => [])
  try {
    for (const [i, { servers }] of changes.entries()) {
      for (const want of servers.added) {
        const known = kept[i]?.get(want.name)
        admitted[i]?.push({ id: known ?? takeServer(edit, keep, editing), want, revived: known !== undefined })
      }
    }
  } catch (error) {
    release(maps, admitted.flat())
    throw error
  }
  return admitted
}

function release(maps: TableMaps, newcomers: readonly Newcomer[]): void {
  for (const { id, revived } of newcomers) if (!revived) freeServerId(maps, id)
}

function orUndo(maps: TableMaps, newcomers: readonly Newcomer[], allocate: () => ListRoom[]): ListRoom[] {
  try {
    return allocate()
  } catch (error) {
    release(maps, newcomers)
    throw error
  }
}

/**
 * TABLE_FULL; INVALID: mh is wanted in place of another scheduler for more servers than it has buckets, as
 * ip_vs_mh_init_svc(). A server more to a service of mh is no error there either.
 */
function checkCount(servers: number, scheduler: number, before: number): void {
  if (servers > LbLimit.MAX_SERVERS_PER_SERVICE) {
    throw new LbError('TABLE_FULL', undefined, { what: 'servers of one service', count: servers })
  }
  if (scheduler === LbSched.SCHED_MH && before !== scheduler && before !== 0 && servers > LbLimit.MH_BUCKETS) {
    throw new LbError('INVALID', undefined, { what: 'servers for mh', value: servers, most: LbLimit.MH_BUCKETS })
  }
}

/** Writes a list and its other parts, and lets packets see them in place of the old ones. */
function putInForce(maps: TableMaps, room: ListRoom, { id, config, insiders, list }: Ready): void {
  const { scheduler, flags, policy } = config
  const before = maps.services.list(id)
  const allowedCount = intervalCount(config.allowed)
  if (allowedCount > 0) writeAllowed(maps.cells, room.allowed, config.allowed)
  const audience = insiders === 0 && allowedCount === 0 ? undefined : { insiders, allowed: room.allowed, allowedCount }
  writeList(maps.cells, room.cell, { service: id, scheduler, flags, policy, table: room.table, audience }, list)
  writeTable(maps, room.cell)
  useCells(maps, room.cell)
  maps.switchList(id, room.cell)
  if (before !== 0) retireCells(maps, before)
}

/** The list as it shall be: newcomers at the head, the last of them first. */
function nextList(old: ServerList, changes: ServerChanges, newcomers: readonly Newcomer[]): ServerList {
  const ids: number[] = []
  const weights: number[] = []
  for (let i = newcomers.length - 1; i >= 0; i--) {
    const newcomer = newcomers[i]
    if (newcomer === undefined) continue
    ids.push(newcomer.id)
    weights.push(newcomer.want.config.weight)
  }
  for (const [i, id] of old.ids.entries()) {
    if (changes.removed.has(id)) continue
    ids.push(id)
    weights.push(changes.edited.get(id)?.config.weight ?? old.weights[i] ?? 0)
  }
  return { ids, weights }
}

function writeNewcomer(maps: TableMaps, service: number, { id, want, revived }: Newcomer): void {
  const { servers, book } = maps
  if (revived) {
    weighLoad(maps, id, want)
  } else {
    maps.setServerName(id, want.name)
    servers.setService(id, service)
    book.setServers(0, book.servers(0) + 1)
  }
  writeServerConfig(maps, id, want.config)
  servers.setLastWeight(id, want.config.weight)
  maps.setAvailable(id, true)
}

function writeEdited(maps: TableMaps, id: number, want: ServerWant): void {
  weighLoad(maps, id, want)
  writeServerConfig(maps, id, want.config)
  if (want.config.weight !== 0) maps.servers.setLastWeight(id, want.config.weight)
}

/**
 * Every edit of a server compares its connections with the thresholds that it is given, as Linux 6.1.192 does (6.1.174
 * only ended an overload, when the upper one was raised or lifted); between the thresholds an overload stays as it is.
 */
function weighLoad(maps: TableMaps, id: number, { config: { upper, lower } }: ServerWant): void {
  const { serverStates } = maps
  const total = (): number => serverStates.active(id) + serverStates.inactive(id)
  /* Of connections that are over, some may still be counted. */
  if (upper !== 0 && total() >= upper) maps.handles.sweep()
  const now = total()
  if (upper !== 0 && now >= upper) maps.setOverloaded(id, true)
  else if (lower !== 0 ? now < lower : now * 4 < upper * 3 || upper === 0) maps.setOverloaded(id, false)
}

function writeRanks(maps: TableMaps, ids: readonly number[]): void {
  for (const [i, id] of ids.entries()) maps.servers.setRank(id, ids.length - 1 - i)
}

/** Moves removed servers to the trash; a cursor on one goes to the nearest before it that stays. */
function dismiss(
  edit: Edit,
  service: number,
  scheduler: number,
  order: readonly number[],
  removed: ReadonlySet<number>,
): void {
  if (removed.size === 0) return
  let before = 0
  for (const id of order) {
    if (removed.has(id)) {
      putInTrash(edit, id, before)
      leaveServer(edit.maps, service, scheduler, id, before)
    } else {
      before = id
    }
  }
}
