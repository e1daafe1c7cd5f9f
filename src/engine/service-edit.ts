/**
 * Services come, change and go: what the order of writes is, so that a packet sees the old state or the new one.
 *
 * A service may have other servers for insiders. They are those of a second service of the same name, in no index, to which
 * the audience of the first one's list leads; the two know each other by lb_service.pair for as long as either has removed
 * servers. The second is complete before a list leads there, and goes after none does any more.
 *
 * Everything that can fail (ids, cells, slots) is done before anything that a packet can see. All functions are called
 * with the table's lock held.
 */
import { LbServiceFlag } from '../abi/generated.ts'
import { insidersOf } from '../maps/audience.ts'
import { updateFeatures } from '../maps/features.ts'
import { retireCells } from '../maps/free-cells.ts'
import { freeServiceId, takeServiceId } from '../maps/ids.ts'
import { readList } from '../maps/lists.ts'
import { namedMark, namedPort, servesFtp } from '../maps/names.ts'
import type { ServiceName } from '../maps/names.ts'
import { insidersConfig, readServiceConfig, sameServiceConfig } from '../maps/records.ts'
import type { ServerWant, ServiceConfig } from '../maps/records.ts'
import { setServiceBits } from '../maps/filter.ts'
import { findService, freeSlot, hideService, publishService } from '../maps/service-index.ts'
import { zeroServiceBase } from '../maps/stats.ts'
import { claimVip, lowerVip, raiseVip, releaseVip, type ServicePlace } from '../maps/vips.ts'
import type { VipClaim } from '../maps/vips.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'
import type { ServiceSpot } from '../native/handles.ts'
import type { Edit } from './edit.ts'
import { changeLists, type ListChange, touchesServers } from './list-edit.ts'
import { steerAlso } from './marks.ts'
import type { DesiredRecord, ServerChanges, ServiceChanges } from './plan.ts'
import { forgetAddresses } from './cursor.ts'
import { freeIfOver, putInTrash, zeroTrashed } from './trash.ts'

const NOTHING_REMOVED: ReadonlySet<number> = new Set()
const NOTHING_EDITED: ReadonlyMap<number, ServerWant> = new Map()

/** Only these servers are added. */
export function additions(added: readonly ServerWant[]): ServerChanges {
  return { removed: NOTHING_REMOVED, edited: NOTHING_EDITED, added }
}

/**
 * Makes a service with servers (announced before); packets find it when all is done. A deleted one of that name whose
 * servers are still kept comes back with them; its counters begin at 0, as the kernel's. SERVICE_EXISTS, TABLE_FULL.
 */
export function createService(edit: Edit, want: DesiredRecord, place: ServicePlace, source: number): void {
  const { maps } = edit
  const { spot } = place
  const entry = findService(maps, want.name, spot)
  if (entry?.live) throw new LbError('SERVICE_EXISTS')
  const slot = entry?.slot ?? freeSlot(maps, spot)
  if (slot < 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_service_index' })
  const id = entry?.id ?? takeServiceId(maps)
  let vip: VipClaim | undefined
  try {
    vip = claimVip(maps, place, slot)
    fillService(edit, id, want)
  } catch (error) {
    releaseVip(maps, vip)
    if (entry === undefined) freeServiceId(maps, id)
    else freeIfOver(maps, id)
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
function fillService(edit: Edit, id: number, { name, config, servers, insiders }: DesiredRecord): void {
  const { maps } = edit
  maps.setServiceName(id, name)
  for (const each of [id, maps.services.pair(id)]) {
    if (each === 0) continue
    zeroServiceBase(maps, each)
    zeroTrashed(maps, each)
  }
  const others = insiders === undefined ? {} : { insiders: additions(insiders) }
  changeService(edit, id, { ...additions(servers), config, ...others })
}

/** Packets no longer find the service; its servers are kept as removed ones, for their connections. */
export function deleteService(edit: Edit, id: number, slot: number, spot: ServiceSpot): void {
  const { maps } = edit
  const { book } = maps
  hideService(maps, slot, spot, id)
  const insiders = insidersOf(maps, id)
  takeOutOfForce(edit, id)
  if (insiders !== 0) takeOutOfForce(edit, insiders)
  book.setServices(0, book.services(0) - 1)
  const name = maps.serviceName(id)
  countFeatures(maps, name, -1)
  if (namedMark(name) !== 0) edit.unsteered = true
  lowerVip(maps, name)
  if (insiders !== 0) freeIfOver(maps, insiders)
  freeIfOver(maps, id)
}

/** Of a service that no packet is led to any more. */
function takeOutOfForce(edit: Edit, id: number): void {
  const { maps } = edit
  const cell = maps.services.list(id)
  const { ids } = readList(maps.cells, cell)
  for (const [i, server] of ids.entries()) putInTrash(edit, server, ids[i - 1] ?? 0)
  maps.switchList(id, 0)
  retireCells(maps, cell)
  forgetAddresses(maps, id)
}

/**
 * Changes a service's configuration and servers in one switch of its list; those for insiders in another one. Each is
 * touched only if it changes. TABLE_FULL; INVALID: see checkCount().
 */
export function changeService(edit: Edit, id: number, changes: ServiceChanges): void {
  const { maps } = edit
  const { services } = maps
  const isNew = services.list(id) === 0
  const before = isNew ? undefined : readServiceConfig(maps, id)
  const config = changes.config ?? before
  if (config === undefined) throw new RangeError(`service ${id} has no configuration yet`)
  const current = isNew ? 0 : insidersOf(maps, id)
  const insiders = nextInsiders(maps, id, current, changes.insiders)
  const ownChange = { id, config, before, servers: changes, insiders }
  const lists = insiders === 0 ? [] : insidersChange(maps, insiders, config, changes.insiders)
  if (insiders !== current || !isOfInsidersAlone(changes)) lists.push(ownChange)
  try {
    changeLists(edit, lists)
  } catch (error) {
    if (insiders !== 0 && services.list(insiders) === 0) freeIfOver(maps, insiders, new Set([id]))
    throw error
  }
  if (current !== 0 && insiders === 0) (edit.unled ??= []).push(current)
}

/** At the end of an edit: takes out of force what no list leads to any more, when nobody is on the way there. */
export function dropUnled(edit: Edit): void {
  const { maps, unled = [] } = edit
  if (unled.length === 0) return
  maps.handles.gracePeriod()
  for (const id of unled) {
    takeOutOfForce(edit, id)
    freeIfOver(maps, id)
  }
}

function isOfInsidersAlone({ config, insiders, ...servers }: ServiceChanges): boolean {
  return insiders !== undefined && config === undefined && !touchesServers(servers)
}

/** Id of the service that insiders shall get, made if there is none; 0: none. TABLE_FULL. */
function nextInsiders(maps: TableMaps, id: number, current: number, change: ServiceChanges['insiders']): number {
  if (change === undefined) return current
  if (change === 'none') return 0
  const known = maps.services.pair(id)
  if (known !== 0) return known
  const made = takeServiceId(maps)
  maps.services.setFlags(made, LbServiceFlag.SERVICE_INSIDERS)
  maps.setServiceName(made, maps.serviceName(id))
  maps.services.setPair(made, id)
  maps.services.setPair(id, made)
  return made
}

/** How the insiders' list changes: with the configuration of the service, and by itself. */
function insidersChange(
  maps: TableMaps,
  id: number,
  outer: ServiceConfig,
  change: ServiceChanges['insiders'],
): ListChange[] {
  const before = maps.services.list(id) === 0 ? undefined : readServiceConfig(maps, id)
  const config = insidersConfig(outer)
  const servers = change === undefined || change === 'none' ? additions([]) : change
  const same = before !== undefined && sameServiceConfig(before, config) && !touchesServers(servers)
  return same ? [] : [{ id, config, before, servers, insiders: 0 }]
}

/** Keeps lb_config.features true. */
function countFeatures(maps: TableMaps, name: ServiceName, by: 1 | -1): void {
  const { book } = maps
  if (namedMark(name) !== 0) book.setFwmarkServices(0, book.fwmarkServices(0) + by)
  else if (namedPort(name) === 0) book.setPort0Services(0, book.port0Services(0) + by)
  else if (servesFtp(name)) book.setFtpServices(0, book.ftpServices(0) + by)
  updateFeatures(maps)
}
