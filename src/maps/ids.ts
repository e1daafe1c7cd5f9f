/** Ids of services and servers: taken from the free lists, else never used before. The table's lock is held. */
import { LbError } from '../model/errors.ts'
import { reclaimCells } from './free-cells.ts'
import type { TableMaps } from './table-maps.ts'

/** A service id whose record is all zero. TABLE_FULL. */
export function takeServiceId(maps: TableMaps): number {
  const { book, services } = maps
  const high = Math.max(book.serviceHigh(0), 1)
  if (book.serviceFree(0) === 0 && high >= maps.serviceMax && book.serviceRetired(0) !== 0) reclaimCells(maps)
  const free = book.serviceFree(0)
  if (free !== 0) {
    book.setServiceFree(0, services.next(free))
    services.clear(free)
    return free
  }
  if (high >= maps.serviceMax)
    throw new LbError('TABLE_FULL', undefined, { map: 'lb_services', entries: maps.serviceMax })
  book.setServiceHigh(0, high + 1)
  return high
}

/** Clears the record of a service that no packet could find yet, and frees the id. */
export function freeServiceId(maps: TableMaps, id: number): void {
  const { book, services } = maps
  services.clear(id)
  services.setNext(id, book.serviceFree(0))
  book.setServiceFree(0, id)
}

/** Clears a service's record. The id is free after the next grace period: a packet may be about to use it. */
export function retireServiceId(maps: TableMaps, id: number): void {
  const { book, services } = maps
  services.clear(id)
  services.setNext(id, book.serviceRetired(0))
  book.setServiceRetired(0, id)
}

/** A server id whose record, state and counters are all zero; 0: there is none. */
export function takeServerId(maps: TableMaps): number {
  const { book, servers } = maps
  const free = book.serverFree(0)
  if (free !== 0) {
    book.setServerFree(0, servers.next(free))
    servers.clear(free)
    return free
  }
  const high = Math.max(book.serverHigh(0), 1)
  if (high >= maps.serverMax) return 0
  book.setServerHigh(0, high + 1)
  return high
}

/** Clears a server's record, which nothing refers to any more, and frees the id. */
export function freeServerId(maps: TableMaps, id: number): void {
  const { book, servers } = maps
  servers.clear(id)
  servers.setNext(id, book.serverFree(0))
  book.setServerFree(0, id)
}
