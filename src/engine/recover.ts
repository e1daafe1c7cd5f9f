/**
 * Puts the table in order after a writer died in the middle of an edit. What packets see is never wrong by that: lists
 * are switched whole. Lost may be ids, cells and counts of the book, so these are found out anew from the index, the
 * lists and the records. The table's lock is held.
 */
import { rebuildFreeRanges } from '../maps/cell-compaction.ts'
import { updateFeatures } from '../maps/features.ts'
import { rebuildFilter } from '../maps/filter.ts'
import { freeServerId, retireServiceId } from '../maps/ids.ts'
import { writeTable } from '../maps/hash-tables.ts'
import { insidersOf } from '../maps/audience.ts'
import { readList } from '../maps/lists.ts'
import { namedMark, namedPort, servesFtp } from '../maps/names.ts'
import type { ServiceName } from '../maps/names.ts'
import { clearSlot, findService, readSlot, serviceSpot, slotCount } from '../maps/service-index.ts'
import { zeroServiceRates } from '../maps/rates.ts'
import { insidersConfig, readServiceConfig, sameServiceConfig } from '../maps/records.ts'
import { zeroServiceBase } from '../maps/stats.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { countVips, makeVip, vipRecords } from '../maps/vips.ts'
import { LbError } from '../model/errors.ts'
import { clearState } from './cursor.ts'
import type { Edit } from './edit.ts'
import { steerLive } from './marks.ts'
import { additions, changeService } from './service-edit.ts'

/** Rebuilds the book, the chains of removed servers, ranks, weights, tables, the free lists and the filter. */
export function recoverTable(edit: Edit): void {
  const { maps, nowS } = edit
  const live = findLive(maps)
  const listed = new Set([...live, ...pairInsiders(maps, live)])
  hideOthers(maps, listed)
  const owners = listOwners(maps, listed)
  recoverServers(maps, owners, nowS)
  const missing = recoverVips(maps, live)
  dropPairs(maps, listed)
  recoverServices(maps, live, listed)
  dropDeadSlots(maps)
  recoverCells(maps)
  for (const id of live) recoverInsiders(edit, id)
  for (const [name, count] of missing) makeVip(maps, name, serviceSpot(maps.handles, name), count)
  rebuildFilter(maps)
  steerLive(maps)
}

/** Services that packets find and that have a list. */
function findLive(maps: TableMaps): ReadonlySet<number> {
  const live = new Set<number>()
  for (let slot = 0; slot < slotCount(maps); slot++) {
    const { tag, id } = readSlot(maps, slot)
    if ((tag & 1) !== 0 && id !== 0 && id < maps.book.serviceHigh(0) && hasList(maps, id)) live.add(id)
  }
  return live
}

function hasList(maps: TableMaps, id: number): boolean {
  const cell = maps.services.list(id)
  return maps.services.af(id) !== 0 && cell !== 0 && cell < maps.cells.length && maps.cells.listService(cell) === id
}

/** The services of insiders that lists in force lead to; each is its service's. */
function* pairInsiders(maps: TableMaps, live: ReadonlySet<number>): Generator<number> {
  for (const id of live) {
    const insiders = insidersOf(maps, id)
    if (insiders === 0) continue
    maps.services.setPair(id, insiders)
    maps.services.setPair(insiders, id)
    yield insiders
  }
}

/** Services that were being made or deleted are deleted ones. */
function hideOthers(maps: TableMaps, listed: ReadonlySet<number>): void {
  for (let id = 1; id < maps.book.serviceHigh(0); id++) {
    if (!listed.has(id) && maps.services.af(id) !== 0) maps.switchList(id, 0)
    maps.services.setNext(id, 0)
  }
}

/** The service in whose list a server is, by server id; 0: in none. What the lists say of servers is true. */
function listOwners(maps: TableMaps, listed: ReadonlySet<number>): Uint32Array {
  const owners = new Uint32Array(maps.serverMax)
  for (const service of listed) {
    const cell = maps.services.list(service)
    const { ids, weights } = readList(maps.cells, cell)
    for (const [i, id] of ids.entries()) {
      owners[id] = service
      maps.servers.setRank(id, ids.length - 1 - i)
      recoverWeight(maps, id, weights[i] ?? 0)
    }
    /* In place: a server of weight 0 may have got the last weight that mh counts, and its list not been switched. */
    writeTable(maps, cell)
  }
  return owners
}

/** An edit writes a server's weight before the list that it counts in. */
function recoverWeight(maps: TableMaps, id: number, weight: number): void {
  maps.servers.setWeight(id, weight)
  if (weight !== 0) maps.servers.setLastWeight(id, weight)
}

/** Each server is in a list, in its service's chain, or free. */
function recoverServers(maps: TableMaps, owners: Uint32Array, nowS: number): void {
  const { book, servers, services } = maps
  let listed = 0
  let trashed = 0
  book.setServerFree(0, 0)
  for (let id = book.serverHigh(0) - 1; id > 0; id--) {
    const service = servers.service(id)
    const known = servers.af(id) !== 0 && service < book.serviceHigh(0) && services.af(service) !== 0
    if (owners[id] !== 0) {
      listed++
      servers.setNext(id, 0)
      servers.setRemoved(id, 0)
      servers.setBefore(id, 0)
      maps.setAvailable(id, true)
    } else if (known) {
      trashed++
      maps.setAvailable(id, false)
      servers.setRemoved(id, servers.removed(id) || nowS)
      servers.setNext(id, services.next(service))
      services.setNext(service, id)
    } else {
      clearServer(maps, id)
    }
  }
  book.setServers(0, listed)
  book.setTrashed(0, trashed)
}

function clearServer(maps: TableMaps, id: number): void {
  for (let lane = 0; lane < maps.lanes; lane++) maps.stats.clear(lane * maps.serverMax + id)
  maps.statsBase.clear(id)
  maps.rates.clear(id)
  maps.serverStates.clear(id)
  freeServerId(maps, id)
}

/** Keeps VIP records of addresses with services and corrects their counts; what addresses have none. */
function recoverVips(maps: TableMaps, live: ReadonlySet<number>): ReadonlyMap<ServiceName, number> {
  const counts = countVips(maps, live)
  for (const id of vipRecords(maps)) {
    const name = maps.serviceName(id)
    const count = counts.get(name)
    const entry = findService(maps, name, serviceSpot(maps.handles, name))
    if (count !== undefined && entry?.id === id && entry.live) {
      maps.services.setFwmark(id, count)
      counts.delete(name)
    } else {
      maps.services.setFlags(id, 0) /* no service either: its id and its slot become free */
    }
  }
  return counts
}

/** Services of insiders that have neither a list nor removed servers are nobody's any more. */
function dropPairs(maps: TableMaps, listed: ReadonlySet<number>): void {
  const { services } = maps
  for (let id = 1; id < maps.book.serviceHigh(0); id++) {
    const pair = services.pair(id)
    if (pair === 0) continue
    const insiders = maps.isForInsiders(id) ? id : pair
    const kept = listed.has(insiders) || services.next(insiders) !== 0
    if (!kept || services.pair(pair) !== id) services.setPair(id, 0)
  }
}

/** Counts services; those without a list and without removed servers, their insiders' too, are free. */
function recoverServices(maps: TableMaps, live: ReadonlySet<number>, listed: ReadonlySet<number>): void {
  const { book } = maps
  let marks = 0
  let port0 = 0
  let ftp = 0
  book.setServiceFree(0, 0)
  book.setServiceRetired(0, 0)
  for (let id = 1; id < book.serviceHigh(0); id++) {
    if (live.has(id)) {
      const name = maps.serviceName(id)
      if (namedMark(name) !== 0) marks++
      else if (namedPort(name) === 0) port0++
      else if (servesFtp(name)) ftp++
    } else if (!listed.has(id) && isOver(maps, id)) {
      zeroServiceBase(maps, id)
      zeroServiceRates(maps, id)
      clearState(maps, id)
      retireServiceId(maps, id)
    }
  }
  book.setServices(0, live.size)
  book.setFwmarkServices(0, marks)
  book.setPort0Services(0, port0)
  book.setFtpServices(0, ftp)
  updateFeatures(maps)
}

/** Of what packets are not led to. */
function isOver(maps: TableMaps, id: number): boolean {
  const { services } = maps
  if (maps.isVip(id)) return false
  const kept = services.next(id) !== 0 || (services.pair(id) !== 0 && !maps.isForInsiders(id))
  return services.af(id) === 0 || !kept
}

/** Slots of services that are free now, and of hidden ones under a tag that packets use. */
function dropDeadSlots(maps: TableMaps): void {
  for (let slot = 0; slot < slotCount(maps); slot++) {
    const { tag, id } = readSlot(maps, slot)
    if (id === 0) continue
    const dead = id >= maps.book.serviceHigh(0) || maps.services.af(id) === 0
    const hidden = maps.services.list(id) === 0 && !maps.isVip(id)
    if (dead || ((tag & 1) !== 0 && hidden)) clearSlot(maps, slot)
  }
}

/** The list of insiders is switched before the service's own: an edit of both may have got no further. */
function recoverInsiders(edit: Edit, id: number): void {
  const { maps } = edit
  const insiders = insidersOf(maps, id)
  if (insiders === 0) return
  const config = readServiceConfig(maps, id)
  if (sameServiceConfig(readServiceConfig(maps, insiders), insidersConfig(config))) return
  try {
    changeService(edit, id, { ...additions([]), config })
  } catch (error) {
    /* There is no room for another list: it stays as it is until there is. */
    if (!(error instanceof LbError) || error.code !== 'TABLE_FULL') throw error
  }
}

/** All that is in no list is free, once nobody reads it any more. */
function recoverCells(maps: TableMaps): void {
  maps.handles.gracePeriod()
  maps.book.setCellRetired(0, 0)
  maps.book.setCellsRetired(0, 0)
  rebuildFreeRanges(maps, [])
}
