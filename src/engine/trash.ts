/**
 * Removed servers, as IPVS's dest_trash: kept with their counts, connections and counters while anything refers to them
 * and 120 s longer, so that a server that is added again goes on where it was. Each service has a chain of its own
 * (lb_service.next, then lb_server.next); a deleted service is kept as long as its chain is not empty.
 *
 * All functions are called with the table's lock held.
 */
import { serverBits, serviceBits } from '../maps/filter.ts'
import type { ServerName } from '../maps/names.ts'
import { freeServerId, retireServiceId, takeServerId } from '../maps/ids.ts'
import { readList } from '../maps/lists.ts'
import { clearSlot, findService, serviceSpot } from '../maps/service-index.ts'
import { zeroServerRates, zeroServiceRates } from '../maps/rates.ts'
import { foldServer, foldService, zeroServer, zeroServiceBase } from '../maps/stats.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'
import { clearState, forgetAddresses, leaveServer } from './cursor.ts'
import type { Edit } from './edit.ts'

/** As IP_VS_DEST_TRASH_PERIOD, seconds. */
const KEEP_S = 120
/** Services whose chains are looked at in one edit. */
const SWEEP_SERVICES = 256
const NONE: ReadonlySet<number> = new Set()

/** Ids in a service's chain. */
export function trashedServers(maps: TableMaps, service: number): number[] {
  const ids: number[] = []
  for (let id = maps.services.next(service); id !== 0; id = maps.servers.next(id)) ids.push(id)
  return ids
}

/** The removed servers of a service by name. */
export function trashedByName(maps: TableMaps, service: number): ReadonlyMap<ServerName, number> {
  return new Map(trashedServers(maps, service).map((id) => [maps.serverName(id), id]))
}

/** A server is no longer in its service's list. `before`: the server before it there; 0: it was the head. */
export function putInTrash(edit: Edit, id: number, before: number): void {
  const { maps, nowS } = edit
  edit.shortage = undefined
  const { servers, services, book } = maps
  const service = servers.service(id)
  servers.setBefore(id, before)
  servers.setRemoved(id, nowS)
  maps.setAvailable(id, false)
  servers.setNext(id, services.next(service))
  services.setNext(service, id)
  book.setServers(0, book.servers(0) - 1)
  book.setTrashed(0, book.trashed(0) + 1)
}

/** Takes servers out of a service's chain, to be in its list again. */
export function takeFromTrash(maps: TableMaps, service: number, ids: ReadonlySet<number>): void {
  const { servers, book } = maps
  unchain(maps, service, ids)
  for (const id of ids) {
    servers.setNext(id, 0)
    servers.setRemoved(id, 0)
    servers.setBefore(id, 0)
  }
  book.setServers(0, book.servers(0) + ids.size)
  book.setTrashed(0, book.trashed(0) - ids.size)
}

/**
 * A new server's id, not in any list yet. Under pressure removed servers without connections give way, but those in
 * `keep`; services that are being edited (`editing`) stay. TABLE_FULL.
 */
export function takeServer(edit: Edit, keep: ReadonlySet<number>, editing: ReadonlySet<number>): number {
  const { maps } = edit
  const id = takeServerId(maps) || reuseServer(edit, keep, editing)
  if (id === 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_servers', entries: maps.serverMax })
  return id
}

/** The id of a removed server; 0: none. What was in vain is not tried again in this edit. */
function reuseServer(edit: Edit, keep: ReadonlySet<number>, editing: ReadonlySet<number>): number {
  const { maps, nowS, shortage } = edit
  if (maps.book.trashed(0) === 0 || (shortage !== undefined && isWithin(shortage, keep))) return 0
  sweepAll(maps, editing, (server) => !keep.has(server) && isDue(maps, server, nowS))
  let id = takeServerId(maps)
  if (id === 0) {
    const forgot = forgetRemoved(maps)
    // Programs that run now may have chosen one of them and not counted their connection yet.
    maps.handles.gracePeriod()
    if (forgot) maps.handles.sweep()
    sweepAll(maps, editing, (server) => !keep.has(server))
    id = takeServerId(maps)
  }
  if (id === 0) edit.shortage = new Set([...keep].filter((server) => !maps.isReferenced(server)))
  return id
}

function isWithin(some: ReadonlySet<number>, all: ReadonlySet<number>): boolean {
  return [...some].every((each) => all.has(each))
}

/** Frees the removed servers of a service that nothing has referred to for 120 s. */
export function sweepService(maps: TableMaps, service: number, nowS: number): void {
  if (maps.services.next(service) === 0) return
  for (const id of trashedServers(maps, service)) if (maps.isReferenced(id)) maps.servers.setRemoved(id, nowS)
  sweepChain(maps, service, (server) => isDue(maps, server, nowS))
}

/** Sweeps some services, others at every call; ends deleted ones of which nothing is left. */
export function sweepSome(maps: TableMaps, nowS: number): void {
  const { book } = maps
  const high = book.serviceHigh(0)
  if (book.trashed(0) === 0 || high <= 1) return
  let id = book.sweep(0)
  for (let i = Math.min(SWEEP_SERVICES, high - 1); i > 0; i--) {
    id = id < 1 || id >= high ? 1 : id
    if (hasTrash(maps, id)) {
      sweepService(maps, id, nowS)
      freeIfOver(maps, id)
    }
    id++
  }
  book.setSweep(0, id)
}

/** Ends a service that no packet is led to, and that no removed server belongs to. */
function freeService(maps: TableMaps, service: number): void {
  const name = maps.serviceName(service)
  const entry = findService(maps, name, serviceSpot(maps.handles, name))
  if (entry?.id === service) clearSlot(maps, entry.slot)
  zeroServiceBase(maps, service)
  zeroServiceRates(maps, service)
  clearState(maps, service)
  if (!maps.isForInsiders(service)) maps.book.setStaleBits(0, maps.book.staleBits(0) + serviceBits(name))
  retireServiceId(maps, service)
}

/** Zeroes the counters and rates of a service and of its servers, removed ones too. */
export function zeroService(maps: TableMaps, id: number): void {
  const list = maps.services.list(id)
  for (const server of list === 0 ? [] : readList(maps.cells, list).ids) {
    zeroServer(maps, server)
    zeroServerRates(maps, server)
  }
  zeroTrashed(maps, id)
  zeroServiceBase(maps, id)
  zeroServiceRates(maps, id)
}

/** Zeroes the counters and rates of removed servers. */
export function zeroTrashed(maps: TableMaps, service: number): void {
  for (const id of trashedServers(maps, service)) {
    zeroServer(maps, id)
    zeroServerRates(maps, id)
  }
}

function isDue(maps: TableMaps, id: number, nowS: number): boolean {
  return nowS - maps.servers.removed(id) >= KEEP_S
}

function hasTrash(maps: TableMaps, service: number): boolean {
  return maps.services.af(service) !== 0 && maps.services.next(service) !== 0
}

/** Ends a service that packets are not led to, unless it or its insiders have removed servers, or it is in `but`. */
export function freeIfOver(maps: TableMaps, service: number, but: ReadonlySet<number> = NONE): void {
  const { services } = maps
  if (services.list(service) !== 0 || services.next(service) !== 0 || but.has(service)) return
  const pair = services.pair(service)
  if (!maps.isForInsiders(service)) {
    if (pair === 0) freeService(maps, service)
    return
  }
  if (pair !== 0) {
    foldService(maps, service, pair)
    services.setPair(pair, 0)
  }
  freeService(maps, service)
  if (pair !== 0) freeIfOver(maps, pair, but)
}

/** Makes void what lblc and lblcr remember of services whose removed servers that keeps; returns whether there were any. */
function forgetRemoved(maps: TableMaps): boolean {
  let forgot = false
  for (let id = 1; id < maps.book.serviceHigh(0); id++) {
    if (!hasTrash(maps, id)) continue
    if (!trashedServers(maps, id).some((server) => maps.serverStates.memos(server) !== 0)) continue
    forgetAddresses(maps, id)
    forgot = true
  }
  return forgot
}

function sweepAll(maps: TableMaps, editing: ReadonlySet<number>, due: (server: number) => boolean): void {
  for (let id = 1; id < maps.book.serviceHigh(0); id++) {
    if (!hasTrash(maps, id)) continue
    sweepChain(maps, id, due)
    freeIfOver(maps, id, editing)
  }
}

/** Frees the removed servers that are due and that nothing refers to. */
function sweepChain(maps: TableMaps, service: number, due: (server: number) => boolean): void {
  const gone = new Set<number>()
  for (const id of trashedServers(maps, service)) if (!maps.isReferenced(id) && due(id)) gone.add(id)
  if (gone.size === 0) return
  unchain(maps, service, gone)
  skipServers(maps, service, gone)
  for (const id of gone) freeTrashed(maps, service, id)
}

/** What names a server that is about to be freed names the one before it. */
function skipServers(maps: TableMaps, service: number, gone: ReadonlySet<number>): void {
  const { servers, services, cells } = maps
  const stays = (start: number): number => {
    let id = start
    while (gone.has(id)) id = servers.before(id)
    return id
  }
  for (const id of trashedServers(maps, service)) servers.setBefore(id, stays(servers.before(id)))
  const list = services.list(service)
  if (list !== 0) for (const id of gone) leaveServer(maps, service, cells.listSched(list), id, stays(id))
}

/** Frees a server that is in no chain; what it counted stays with its service. */
function freeTrashed(maps: TableMaps, service: number, id: number): void {
  const { book } = maps
  foldServer(maps, id, service)
  maps.rates.clear(id)
  maps.serverStates.clear(id)
  book.setTrashed(0, book.trashed(0) - 1)
  const bits = serverBits({ name: maps.serverName(id), service: maps.serviceName(service) })
  book.setStaleBits(0, book.staleBits(0) + bits)
  freeServerId(maps, id)
}

/** Takes servers out of a service's chain in one walk. */
function unchain(maps: TableMaps, service: number, gone: ReadonlySet<number>): void {
  const { servers, services } = maps
  let last = 0
  for (const id of trashedServers(maps, service)) {
    if (gone.has(id)) continue
    if (last === 0) services.setNext(service, id)
    else servers.setNext(last, id)
    last = id
  }
  if (last === 0) services.setNext(service, 0)
  else servers.setNext(last, 0)
}
