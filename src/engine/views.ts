/** The table as its users see it: addresses as text, names for numbers. The table's lock is held while it is read. */
import { LbServerArray, lbSourceNames, LbSource } from '../abi/generated.ts'
import { readList } from '../maps/lists.ts'
import { readServerKey } from '../maps/names.ts'
import { readServerConfig, readServiceConfig } from '../maps/records.ts'
import { addServerCounters, addServiceBase, addSums, newSums, toCounters } from '../maps/stats.ts'
import { serverRates, serviceRates } from '../maps/rates.ts'
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
  for (let id = after + 1; id < maps.book.serviceHigh(0); id++) if (maps.services.list(id) !== 0) yield id
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
    addServiceBase(maps, id, sums)
    const { ids } = readList(maps.cells, maps.services.list(id))
    const servers = ids.map((server) => this.#server(server))
    for (const server of trashedServers(maps, id)) addServerCounters(maps, server, sums)
    return {
      ...decodeService(maps.serviceName(id), readServiceConfig(maps, id)),
      id,
      source: sourceName(maps.services.source(id)),
      counters: toCounters(sums),
      rates: serviceRates(maps, id),
      servers,
    }
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
