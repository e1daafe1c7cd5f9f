/** The table as its users see it: addresses as text, names for numbers. The table's lock is held while it is read. */
import { lbSourceNames, LbSource } from '../abi/generated.ts'
import { readList } from '../maps/lists.ts'
import { serverKey } from '../maps/names.ts'
import { readServerConfig, readServiceConfig } from '../maps/records.ts'
import { addServerCounters, addServiceBase, newSums, toCounters } from '../maps/stats.ts'
import type { CounterSums } from '../maps/stats.ts'
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

/** Ids of the services that packets find. */
export function* liveServices(maps: TableMaps): Generator<number> {
  for (let id = 1; id < maps.book.serviceHigh(0); id++) if (maps.services.list(id) !== 0) yield id
}

/** Views of services; asks the host only once about each address. */
export class ViewReader {
  readonly #maps: TableMaps
  readonly #local = new Map<string, boolean>()

  constructor(maps: TableMaps) {
    this.#maps = maps
  }

  service(id: number): ServiceView {
    const maps = this.#maps
    const sums = newSums()
    addServiceBase(maps, id, sums)
    const { ids } = readList(maps.cells, maps.services.list(id))
    const servers = ids.map((server) => this.#server(server, sums))
    for (const server of trashedServers(maps, id)) addServerCounters(maps, server, sums)
    return {
      ...decodeService(maps.serviceName(id), readServiceConfig(maps, id)),
      id,
      source: sourceName(maps.services.source(id)),
      counters: toCounters(sums),
      servers,
    }
  }

  /** Adds the server's counters to `total`. */
  #server(id: number, total: CounterSums): ServerView {
    const maps = this.#maps
    const sums = newSums()
    addServerCounters(maps, id, sums)
    for (let i = 0; i < sums.length; i++) total[i] = (total[i] ?? 0n) + (sums[i] ?? 0n)
    const key = serverKey(maps.serverName(id))
    return {
      ...decodeServer(key, readServerConfig(maps, id)),
      id,
      active: maps.serverStates.active(id),
      inactive: maps.serverStates.inactive(id),
      persistent: maps.serverStates.persistent(id),
      counters: toCounters(sums),
      local: this.#isLocal(key.address),
    }
  }

  #isLocal(address: string): boolean {
    let local = this.#local.get(address)
    if (local === undefined) {
      local = this.#maps.handles.isLocalAddress(address)
      this.#local.set(address, local)
    }
    return local
  }
}
