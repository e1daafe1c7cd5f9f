/**
 * VIP records: one for each address that has services, so that the datapath knows in one look-up that an address is
 * virtual (it answers echo requests to it). It is a service record under the address alone (port and protocol 0) with
 * LB_SERVICE_VIP and no list; `fwmark` counts the services. It is there before the first of them can be found, and goes
 * after the last. Services by mark have none. The table's lock is held.
 */
import { LbServiceFlag } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import type { ServiceSpot } from '../native/handles.ts'
import { setFilterBit } from './filter.ts'
import { retireServiceId, takeServiceId } from './ids.ts'
import { vipName } from './names.ts'
import type { ServiceName } from './names.ts'
import { clearSlot, findService, freeSlot, publishService, serviceSpot } from './service-index.ts'
import type { TableMaps } from './table-maps.ts'

/** The service's address has one service more. TABLE_FULL. */
export function raiseVip(maps: TableMaps, service: ServiceName): void {
  const name = vipName(service)
  if (name === undefined) return
  const spot = serviceSpot(maps.handles, name)
  const entry = findService(maps, name, spot)
  if (entry === undefined) makeVip(maps, name, spot, 1)
  else maps.services.setFwmark(entry.id, maps.services.fwmark(entry.id) + 1)
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
  const slot = freeSlot(maps, spot)
  if (slot < 0) throw new LbError('TABLE_FULL', undefined, { map: 'lb_service_index' })
  const id = takeServiceId(maps)
  maps.services.setFlags(id, LbServiceFlag.SERVICE_VIP)
  maps.setServiceName(id, name)
  maps.services.setFwmark(id, count)
  setFilterBit(maps, spot.filterBit)
  publishService(maps, slot, spot, id)
}
