/** Which server of the table a record of another director means. As ip_vs_find_dest(). */
import { insidersOf } from '../maps/audience.ts'
import { readList } from '../maps/lists.ts'
import { addressName, endpointName, FTP_PORT, markName, type ServerName, type ServiceName } from '../maps/names.ts'
import { findService, serviceSpot } from '../maps/service-index.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { connFlags, type SyncRecord } from './message.ts'

const TCP = 6
const FTP_DATA_PORT = 20
const FIRST_USER_PORT = 1024

/** A service's servers by name. */
type Servers = ReadonlyMap<ServerName, number>

/** Remembers what it found for as long as nobody edits the table. Its user holds the table's lock. */
export class ServerFinder {
  readonly #maps: TableMaps
  readonly #known = new Map<ServiceName, Servers | undefined>()
  #generation = -1n

  constructor(maps: TableMaps) {
    this.#maps = maps
  }

  /** Id of the server; 0: the table has none such. */
  find(record: SyncRecord): number {
    const generation = this.#maps.generation()
    if (generation !== this.#generation) this.#known.clear()
    this.#generation = generation
    const servers = this.#service(record)
    if (servers === undefined) return 0
    const { family, server, serverPort, fwmark, flags } = record
    const named = servers.get(endpointName(family, server, serverPort))
    const anyPort = servers.get(endpointName(family, server, 0))
    const portLast = fwmark !== 0 && (flags & connFlags.METHOD) !== 0
    return (portLast ? (anyPort ?? named) : (named ?? anyPort)) ?? 0
  }

  /** The service, in the order of ip_vs_service_find(): by mark, by address, that of FTP, of port 0. */
  #service({ family, protocol, virtual, virtualPort, fwmark }: SyncRecord): Servers | undefined {
    const marked = fwmark === 0 ? undefined : this.#servers(markName(family, fwmark))
    const exact = marked ?? this.#servers(addressName(family, protocol, virtual, virtualPort))
    if (exact !== undefined) return exact
    const dataPort = protocol === TCP && (virtualPort === FTP_DATA_PORT || virtualPort >= FIRST_USER_PORT)
    const ftp = dataPort ? this.#servers(addressName(family, protocol, virtual, FTP_PORT)) : undefined
    return ftp ?? this.#servers(addressName(family, protocol, virtual, 0))
  }

  #servers(name: ServiceName): Servers | undefined {
    if (!this.#known.has(name)) this.#known.set(name, this.#read(name))
    return this.#known.get(name)
  }

  #read(name: ServiceName): Servers | undefined {
    const maps = this.#maps
    const found = findService(maps, name, serviceSpot(maps.handles, name))
    if (found?.live !== true) return undefined
    const insiders = insidersOf(maps, found.id)
    const both = insiders === 0 ? [found.id] : [insiders, found.id]
    const ids = both.flatMap((service) => readList(maps.cells, maps.services.list(service)).ids)
    return new Map(ids.map((id) => [maps.serverName(id), id]))
  }
}
