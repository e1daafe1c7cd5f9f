/**
 * VIP records: one for each address that has services, so that the datapath knows in one look-up that an address is
 * virtual (it answers echo requests to it). It is a service record under the address alone (port and protocol 0) with
 * LB_SERVICE_VIP and no list; `fwmark` counts the services. It is there before the first of them can be found, and goes
 * after the last. Services by mark have none. The table's lock is held.
 */
import { LbServiceFlag } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import type { ServiceSpot, TableHandles } from '../native/handles.ts'
import { setFilterBit } from './filter.ts'
import { freeServiceId, retireServiceId, takeServiceId } from './ids.ts'
import { vipName } from './names.ts'
import type { ServiceName } from './names.ts'
import { clearSlot, findService, freeSlot, publishService, serviceSpot, serviceSpots } from './service-index.ts'
import type { TableMaps } from './table-maps.ts'

/** What the record of an address needs: it is there already, or room for it was found. */
export interface VipClaim {
  readonly name: ServiceName
  readonly spot: ServiceSpot
  readonly id: number
  /** Where it shall be; -1: it is there. */
  readonly slot: number
}

/** Where a service's name leads, and that of its address's record; a mark has none. */
export interface ServicePlace {
  readonly spot: ServiceSpot
  readonly vip: { readonly name: ServiceName; readonly spot: ServiceSpot } | undefined
}

/** The places of services, in one call. */
export function servicePlaces(handles: TableHandles, services: readonly ServiceName[]): ServicePlace[] {
  const vips = services.map(vipName)
  const spots = serviceSpots(handles, [...services, ...vips.filter((name) => name !== undefined)])
  let next = services.length
  return services.map((_, i) => {
    const name = vips[i]
    return { spot: spotAt(spots, i), vip: name === undefined ? undefined : { name, spot: spotAt(spots, next++) } }
  })
}

export function servicePlace(handles: TableHandles, service: ServiceName): ServicePlace {
  const [place] = servicePlaces(handles, [service])
  if (place === undefined) throw new RangeError('a name without a hash')
  return place
}

function spotAt(spots: readonly ServiceSpot[], i: number): ServiceSpot {
  const spot = spots[i]
  if (spot === undefined) throw new RangeError('a name without a hash')
  return spot
}

/**
 * Finds room for the record of the service's address; nothing that a packet sees is written. `taken`: a slot that is
 * free no more. Undefined: a mark has none. TABLE_FULL.
 */
export function claimVip(maps: TableMaps, { vip }: ServicePlace, taken: number): VipClaim | undefined {
  if (vip === undefined) return undefined
  const { name, spot } = vip
  const entry = findService(maps, name, spot)
  if (entry !== undefined) return { name, spot, id: entry.id, slot: -1 }
  return { name, spot, ...claimRecord(maps, spot, taken) }
}

/** Gives back what was claimed. */
export function releaseVip(maps: TableMaps, claim: VipClaim | undefined): void {
  if (claim !== undefined && claim.slot >= 0) freeServiceId(maps, claim.id)
}

/** The address has one service more. */
export function raiseVip(maps: TableMaps, claim: VipClaim | undefined): void {
  if (claim === undefined) return
  if (claim.slot >= 0) publishVip(maps, claim, 1)
  else maps.services.setFwmark(claim.id, maps.services.fwmark(claim.id) + 1)
}

/** The service's address has one service less. */
export function lowerVip(maps: TableMaps, service: ServiceName): void {
  const { services, book } = maps
  const name = vipName(service)
  if (name === undefined) return
  const entry = findService(maps, name, serviceSpot(maps.handles, name))
  if (entry === undefined) return
  const count = services.fwmark(entry.id) - 1
  if (count > 0) {
    services.setFwmark(entry.id, count)
    return
  }
  clearSlot(maps, entry.slot)
  book.setStaleBits(0, book.staleBits(0) + 1)
  retireServiceId(maps, entry.id)
}

/** How many of the services have each address, by the name of its record. */
export function countVips(maps: TableMaps, services: Iterable<number>): Map<ServiceName, number> {
  const counts = new Map<ServiceName, number>()
  for (const id of services) {
    const name = vipName(maps.serviceName(id))
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return counts
}

/** Ids of the records. */
export function* vipRecords(maps: TableMaps): Generator<number> {
  for (let id = 1; id < maps.book.serviceHigh(0); id++) if (maps.isVip(id)) yield id
}

/** Makes a record, and then has packets find it. TABLE_FULL. */
export function makeVip(maps: TableMaps, name: ServiceName, spot: ServiceSpot, count: number): void {
  publishVip(maps, { name, spot, ...claimRecord(maps, spot, -1) }, count)
}

function claimRecord(
  maps: TableMaps,
  spot: ServiceSpot,
  taken: number,
): { readonly id: number; readonly slot: number } {
  const slot = freeSlot(maps, spot, taken)
  if (slot < 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_service_index' })
  return { id: takeServiceId(maps), slot }
}

function publishVip(maps: TableMaps, { name, spot, id, slot }: VipClaim, count: number): void {
  maps.services.setFlags(id, LbServiceFlag.SERVICE_VIP)
  maps.setServiceName(id, name)
  maps.services.setFwmark(id, count)
  setFilterBit(maps, spot.filterBit)
  publishService(maps, slot, spot, id)
}
