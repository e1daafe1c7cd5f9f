/**
 * Changes of one service: what the order of writes is, so that a packet sees the old list or the new one.
 *
 * Everything that can fail (ids, cells, slots) is done before anything that a packet can see. All functions are called
 * with the table's lock held.
 */
import { LbFwd, LbLimit, LbSched } from '../abi/generated.ts'
import { allocateList, type ListRoom } from '../maps/cells.ts'
import { updateFeatures } from '../maps/features.ts'
import { retireCells, useCells } from '../maps/free-cells.ts'
import { writeTable } from '../maps/hash-tables.ts'
import { freeServerId, freeServiceId, takeServiceId } from '../maps/ids.ts'
import { readList, summarizeWeights, writeList } from '../maps/lists.ts'
import type { ListHead, ServerList } from '../maps/lists.ts'
import { namedMark, namedPort, servesFtp } from '../maps/names.ts'
import type { ServiceName } from '../maps/names.ts'
import { writeServerConfig, writeServiceConfig } from '../maps/records.ts'
import type { ServerWant, ServiceWant } from '../maps/records.ts'
import { type ServerEndpoint, setServerBits, setServiceBits } from '../maps/filter.ts'
import { findService, freeSlot, hideService, publishService } from '../maps/service-index.ts'
import { zeroServiceBase } from '../maps/stats.ts'
import { claimVip, lowerVip, raiseVip, releaseVip } from '../maps/vips.ts'
import type { VipClaim } from '../maps/vips.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'
import type { ServiceSpot } from '../native/handles.ts'
import type { Edit } from './edit.ts'
import { steerAlso } from './marks.ts'
import { tellSources } from './sources.ts'
import type { ServiceChanges } from './plan.ts'
import { forgetAddresses, leaveServer, resetCursor, serversChanged } from './cursor.ts'
import {
  freeService,
  putInTrash,
  sweepService,
  takeFromTrash,
  takeServer,
  trashedByName,
  zeroTrashed,
} from './trash.ts'

const NOTHING_REMOVED: ReadonlySet<number> = new Set()
const NOTHING_EDITED: ReadonlyMap<number, ServerWant> = new Map()

/** Only these servers are added. */
export function additions(added: readonly ServerWant[]): ServiceChanges {
  return { removed: NOTHING_REMOVED, edited: NOTHING_EDITED, added }
}

/** What the filter is to know of a server. */
export function endpointOf(service: ServiceName, { name, config }: ServerWant): ServerEndpoint {
  return { name, service, oneWay: config.method !== LbFwd.FWD_MASQ }
}

/** Sets the filter's bits for servers that are about to be added, or to get another method. */
export function announceServers(maps: TableMaps, service: ServiceName, servers: readonly ServerWant[]): void {
  setServerBits(
    maps,
    servers.map((server) => endpointOf(service, server)),
  )
}

/**
 * Makes a service with servers (announced before); packets find it when all is done. A deleted one of that name whose
 * servers are still kept comes back with them; its counters begin at 0, as the kernel's. SERVICE_EXISTS, TABLE_FULL.
 */
export function createService(
  edit: Edit,
  want: ServiceWant,
  spot: ServiceSpot,
  source: number,
  servers: readonly ServerWant[],
): void {
  const { maps } = edit
  const entry = findService(maps, want.name, spot)
  if (entry?.live) throw new LbError('SERVICE_EXISTS')
  const slot = entry?.slot ?? freeSlot(maps, spot)
  if (slot < 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_service_index' })
  const id = entry?.id ?? takeServiceId(maps)
  let vip: VipClaim | undefined
  try {
    vip = claimVip(maps, want.name, slot)
    fillService(edit, id, want, servers)
  } catch (error) {
    releaseVip(maps, vip)
    if (entry === undefined) freeServiceId(maps, id)
    throw error
  }
  if (namedMark(want.name) !== 0) steerAlso(maps, want.name)
  raiseVip(maps, vip)
  maps.services.setSource(id, source)
  maps.book.setServices(0, maps.book.services(0) + 1)
  countFeatures(maps, want.name, 1)
  setServiceBits(maps, want.name, spot)
  publishService(maps, slot, spot, id)
}

/** Makes all of a service but what lets packets find it. TABLE_FULL. */
function fillService(edit: Edit, id: number, want: ServiceWant, servers: readonly ServerWant[]): void {
  const { maps } = edit
  maps.setServiceName(id, want.name)
  zeroServiceBase(maps, id)
  zeroTrashed(maps, id)
  changeService(edit, id, { ...additions(servers), config: want.config })
}

/** Packets no longer find the service; its servers are kept as removed ones, for their connections. */
export function deleteService(edit: Edit, id: number, slot: number, spot: ServiceSpot): void {
  const { maps } = edit
  const { services, cells, book } = maps
  hideService(maps, slot, spot, id)
  const cell = services.list(id)
  const { ids } = readList(cells, cell)
  for (const [i, server] of ids.entries()) putInTrash(edit, server, ids[i - 1] ?? 0)
  maps.switchList(id, 0)
  retireCells(maps, cell)
  forgetAddresses(maps, id)
  book.setServices(0, book.services(0) - 1)
  const name = maps.serviceName(id)
  countFeatures(maps, name, -1)
  if (namedMark(name) !== 0) edit.unsteered = true
  lowerVip(maps, name)
  if (services.next(id) === 0) freeService(maps, id)
}

/** Changes a service's configuration and servers in one switch of its list. TABLE_FULL; INVALID: see checkCount(). */
export function changeService(edit: Edit, id: number, changes: ServiceChanges): void {
  const { maps, nowS } = edit
  const { services, cells } = maps
  sweepService(maps, id, nowS)
  const old = currentList(maps, id)
  const scheduler = old.cell === 0 ? 0 : cells.listSched(old.cell)
  const config = changes.config ?? { scheduler, flags: services.flags(id) }
  tellSources(maps, [...changes.added, ...changes.edited.values()])
  const newcomers = admit(edit, id, changes.added)
  const list = nextList(old.list, changes, newcomers)
  const room = orUndo(maps, newcomers, () => {
    checkCount(list.ids.length, config.scheduler, scheduler)
    return allocateList(maps, list.ids.length, config.scheduler)
  })
  for (const newcomer of newcomers) writeNewcomer(maps, id, newcomer)
  takeFromTrash(maps, id, new Set(newcomers.filter(({ revived }) => revived).map((newcomer) => newcomer.id)))
  announceServers(maps, maps.serviceName(id), [...changes.edited.values()])
  for (const [server, want] of changes.edited) writeEdited(maps, server, want)
  if (changes.config !== undefined) writeServiceConfig(maps, id, changes.config)
  services.setEdited(id, nowS)
  writeRanks(maps, list.ids)
  putInForce(maps, room, { service: id, scheduler: config.scheduler, flags: config.flags }, list)
  dismiss(edit, id, scheduler, old.list.ids, changes.removed)
  const weights = summarizeWeights(list.weights)
  if (config.scheduler !== scheduler || old.cell === 0) resetCursor(maps, id, config.scheduler, weights)
  else if (touchesServers(changes)) serversChanged(maps, id, scheduler, weights)
}

/** A server that is about to be added: a new id, or one that comes back. */
interface Newcomer {
  readonly id: number
  readonly want: ServerWant
  readonly revived: boolean
}

function currentList(maps: TableMaps, id: number): { readonly cell: number; readonly list: ServerList } {
  const cell = maps.services.list(id)
  return { cell, list: cell === 0 ? { ids: [], weights: [] } : readList(maps.cells, cell) }
}

/** Finds an id for each; nothing is written to those that come back. */
function admit(edit: Edit, service: number, added: readonly ServerWant[]): Newcomer[] {
  const { maps } = edit
  const kept = trashedByName(maps, service)
  const keep = new Set(added.flatMap(({ name }) => kept.get(name) ?? []))
  const newcomers: Newcomer[] = []
  try {
    for (const want of added) {
      const known = kept.get(want.name)
      newcomers.push({ id: known ?? takeServer(edit, keep, service), want, revived: known !== undefined })
    }
  } catch (error) {
    release(maps, newcomers)
    throw error
  }
  return newcomers
}

function release(maps: TableMaps, newcomers: readonly Newcomer[]): void {
  for (const { id, revived } of newcomers) if (!revived) freeServerId(maps, id)
}

function orUndo(maps: TableMaps, newcomers: readonly Newcomer[], allocate: () => ListRoom): ListRoom {
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

/** Writes a list and its table, and lets packets see them in place of the old ones. */
function putInForce(maps: TableMaps, room: ListRoom, head: Omit<ListHead, 'table'>, list: ServerList): void {
  const before = maps.services.list(head.service)
  writeList(maps.cells, room.cell, { ...head, table: room.table }, list)
  writeTable(maps, room.cell)
  useCells(maps, room.cell)
  maps.switchList(head.service, room.cell)
  if (before !== 0) retireCells(maps, before)
}

/** The list as it shall be: newcomers at the head, the last of them first. */
function nextList(old: ServerList, changes: ServiceChanges, newcomers: readonly Newcomer[]): ServerList {
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

function touchesServers(changes: ServiceChanges): boolean {
  return changes.removed.size > 0 || changes.edited.size > 0 || changes.added.length > 0
}

/** Keeps lb_config.features true. */
function countFeatures(maps: TableMaps, name: ServiceName, by: 1 | -1): void {
  const { book } = maps
  if (namedMark(name) !== 0) book.setFwmarkServices(0, book.fwmarkServices(0) + by)
  else if (namedPort(name) === 0) book.setPort0Services(0, book.port0Services(0) + by)
  else if (servesFtp(name)) book.setFtpServices(0, book.ftpServices(0) + by)
  updateFeatures(maps)
}
