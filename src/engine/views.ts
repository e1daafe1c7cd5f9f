/** The table as its users see it: addresses as text, names for numbers. The table's lock is held while it is read. */
import { LbServerArray, lbSourceNames, LbSource } from '../abi/generated.ts'
import { insidersOf } from '../maps/audience.ts'
import { readList } from '../maps/lists.ts'
import { readServerKey } from '../maps/names.ts'
import { readServerConfig, readServiceConfig } from '../maps/records.ts'
import { addServerCounters, addServiceBase, addSums, newSums, toCounters } from '../maps/stats.ts'
import { addRates, serverRates, serviceRates } from '../maps/rates.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import type { ServerView, ServiceView, Source } from '../model/types.ts'
import { decodeServer, decodeService } from './specs.ts'
import { trashedServers } from './trash.ts'

const sources = ['command', 'manifest', 'kubernetes'] as const

/** enum lb_source of a source. */
export function sourceNumber(source: Source): number {
  return LbSource[`SOURCE_${source.toUpperCase()}` as keyof typeof LbSource]
}

export function sourceName(number: number): Source {
  const text = lbSourceNames[number]?.replace('SOURCE_', '').toLowerCase()
  return sources.find((name) => name === text) ?? 'command'
}

/** Ids of the services that packets find, of those above `after`. */
export function* liveServices(maps: TableMaps, after = 0): Generator<number> {
  for (const id of listedServices(maps, after)) if (!maps.isForInsiders(id)) yield id
}

/** Of these and of the services of their insiders: all that have a list. */
export function* listedServices(maps: TableMaps, after = 0): Generator<number> {
  for (let id = after + 1; id < maps.book.serviceHigh(0); id++) if (maps.services.list(id) !== 0) yield id
}

/** A service, and the one that its insiders have, or had while servers of it are kept. */
export function withInsiders(maps: TableMaps, id: number): number[] {
  const pair = maps.services.pair(id)
  return pair === 0 ? [id] : [id, pair]
}

/** Views of services, of tables of any size: sums are added up in place, and most counters are the same zeros. */
export class ViewReader {
  readonly #maps: TableMaps
  readonly #ofService = newSums()
  readonly #ofServer = newSums()

  constructor(maps: TableMaps) {
    this.#maps = maps
  }

  service(id: number): ServiceView {
    const maps = this.#maps
    const sums = this.#ofService.fill(0n)
    const servers = this.#listed(maps.services.list(id))
    const insiders = insidersOf(maps, id)
    const others = insiders === 0 ? {} : { insiders: this.#listed(maps.services.list(insiders)) }
    const both = withInsiders(maps, id)
    for (const each of both) this.#addGone(each)
    return {
      ...decodeService(maps.serviceName(id), readServiceConfig(maps, id)),
      id,
      source: sourceName(maps.services.source(id)),
      counters: toCounters(sums),
      rates: both.map((each) => serviceRates(maps, each)).reduce(addRates),
      servers,
      ...others,
    }
  }

  /** Adds to the service's counters what servers did that are in no list. */
  #addGone(id: number): void {
    addServiceBase(this.#maps, id, this.#ofService)
    for (const server of trashedServers(this.#maps, id)) addServerCounters(this.#maps, server, this.#ofService)
  }

  #listed(list: number): ServerView[] {
    return readList(this.#maps.cells, list).ids.map((server) => this.#server(server))
  }

  /** Adds the server's counters to its service's. */
  #server(id: number): ServerView {
    const { servers, serverStates } = this.#maps
    const sums = this.#ofServer.fill(0n)
    addServerCounters(this.#maps, id, sums)
    addSums(sums, this.#ofService)
    const at = id * LbServerArray.size
    const spec = decodeServer(readServerKey(servers.u8, at), readServerConfig(this.#maps, id))
    // Assigned, not spread: that takes a multiple of the time, and there may be a hundred thousand.
    return Object.assign(spec, {
      id,
      active: serverStates.active(id),
      inactive: serverStates.inactive(id),
      persistent: serverStates.persistent(id),
      counters: toCounters(sums),
      rates: serverRates(this.#maps, id),
    })
  }
}
