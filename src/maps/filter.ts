/**
 * The filter: two bitmaps that say whether an endpoint may be a service's or a server's. A bit is set before what it
 * stands for can be found, and never cleared alone: other endpoints may share it. When too many have outlived their
 * cause, the bitmaps are computed anew and stored word by word; at no moment does a bit lack that has a cause.
 */
import { littleEndian } from '../abi/codec.ts'
import { LbFwd } from '../abi/generated.ts'
import { ENDPOINT_SIZE } from '../native/endpoints.ts'
import type { ServiceSpot } from '../native/handles.ts'
import { namedMark, namedPort, packServer, packService, servesFtp, serviceProtocol, withoutPort } from './names.ts'
import type { ServerName, ServiceName } from './names.ts'
import { serviceSpot } from './service-index.ts'
import type { TableMaps } from './table-maps.ts'

/** Endpoints hashed in one call. */
const BATCH = 16384
const FIRST_BATCH = 16
/** A service by mark takes any protocol. */
const ALL_PROTOCOLS = [6, 17, 132] as const

/** A server and whose it is: that says which packets it may send. */
export interface ServerEndpoint {
  readonly name: ServerName
  readonly service: ServiceName
  /** Reached by direct routing or a tunnel: it answers under the virtual address. */
  readonly oneWay: boolean
}

/** Sets one bit. */
export function setFilterBit(maps: TableMaps, bit: number): void {
  Atomics.or(filterWords(maps), wordOf(bit), 1 << (bit & 31))
}

/** Sets the bits of servers, many in one call. */
export class ServerBits {
  readonly #batch: EndpointBatch

  constructor(maps: TableMaps) {
    const words = filterWords(maps)
    this.#batch = new EndpointBatch(
      (packed) => maps.handles.hashServers(packed),
      1,
      (bit) => {
        Atomics.or(words, wordOf(bit), 1 << (bit & 31))
      },
    )
  }

  /** Its bits are set by the next flush() at the latest. */
  add(server: ServerEndpoint): void {
    addServer(this.#batch, server)
  }

  flush(): void {
    this.#batch.flush()
  }
}

/** Computes the filter anew if a quarter of its bits (and 1024) may be stale. The table's lock is held. */
export function refreshFilter(maps: TableMaps): void {
  const { book } = maps
  const live = book.services(0) + book.servers(0) + book.trashed(0)
  if (book.staleBits(0) > 1024 + live / 4) rebuildFilter(maps)
}

/** Computes the filter anew. */
export function rebuildFilter(maps: TableMaps): void {
  const fresh = computeFilter(maps)
  const words = filterWords(maps)
  for (let i = 0; i < fresh.length; i++) {
    const word = fresh[i] ?? 0
    if (words[i] !== word) Atomics.store(words, i, word)
  }
  maps.book.setStaleBits(0, 0)
}

/** The words that the filter needs for what is in the table, deleted services and removed servers included. */
export function computeFilter(maps: TableMaps): Uint32Array {
  const fresh = new Uint32Array(filterWords(maps).length)
  const set = (bit: number): void => {
    fresh[wordOf(bit)]! |= 1 << (bit & 31)
  }
  const services = new EndpointBatch((packed) => maps.handles.hashServices(packed), 4, set)
  const servers = new EndpointBatch((packed) => maps.handles.hashServers(packed), 1, set)
  const names: ServiceName[] = []
  for (let id = 1; id < maps.book.serviceHigh(0); id++) {
    if (maps.services.af(id) === 0) continue
    const name = maps.serviceName(id)
    names[id] = name
    for (const each of bitNames(name)) services.addService(each)
  }
  for (let id = 1; id < maps.book.serverHigh(0); id++) {
    const service = names[maps.servers.service(id)]
    if (maps.servers.af(id) === 0 || service === undefined) continue
    const oneWay = maps.servers.fwd(id) !== LbFwd.FWD_MASQ
    addServer(servers, { name: maps.serverName(id), service, oneWay })
  }
  services.flush()
  servers.flush()
  return fresh
}

/** The filter as it is, in words as computeFilter() gives them. */
export function filterWords(maps: TableMaps): Uint32Array<ArrayBuffer> {
  return new Uint32Array(maps.handles.buffer('lb_filter'), 0, (maps.handles.rodata.filterMask + 1) / 16)
}

/** Bit b is bit b & 63 of the 64-bit word b >> 6. */
function wordOf(bit: number): number {
  return littleEndian ? bit >>> 5 : (bit >>> 5) ^ 1
}

/** Sets the bits of a service whose own one is known. */
export function setServiceBits(maps: TableMaps, name: ServiceName, spot: ServiceSpot): void {
  setFilterBit(maps, spot.filterBit)
  for (const other of bitNames(name).slice(1)) setFilterBit(maps, serviceSpot(maps.handles, other).filterBit)
}

/** How many bits a service sets. */
export function serviceBits(name: ServiceName): number {
  return bitNames(name).length
}

/** What stands for a service in the filter: its name, and of FTP's also that of any port. */
function bitNames(name: ServiceName): readonly ServiceName[] {
  return servesFtp(name) ? [name, withoutPort(name)] : [name]
}

/** How many bits a server sets. */
export function serverBits({ name, service }: Omit<ServerEndpoint, 'oneWay'>): number {
  return portNames(name, service).length * protocolsOf(service).length
}

/** What answers under a virtual address is known by that; for a service by mark it may be any. */
function addServer(batch: EndpointBatch, { name, service, oneWay }: ServerEndpoint): void {
  for (const each of portNames(name, service)) {
    for (const protocol of protocolsOf(service)) batch.addServer(each, protocol)
  }
  if (!oneWay || namedMark(service) !== 0) return
  for (const each of bitNames(service)) batch.addService(each)
}

/** A server of a service of any port, or of FTP, may be asked at the packets' ports, and answers from there: 0 stands for any. */
function portNames(name: ServerName, service: ServiceName): readonly ServerName[] {
  const anyPort = namedPort(service) === 0 || servesFtp(service)
  return anyPort && namedPort(name) !== 0 ? [name, withoutPort(name)] : [name]
}

function protocolsOf(service: ServiceName): readonly number[] {
  const protocol = serviceProtocol(service)
  return protocol === 0 ? ALL_PROTOCOLS : [protocol]
}

/** Collects endpoints and hashes them many at a time; the bit is the last of `stride` words of each result. */
class EndpointBatch {
  /** Most batches are of a few endpoints, and there are thousands of them. */
  #packed = new Uint8Array(FIRST_BATCH * ENDPOINT_SIZE)
  readonly #hash: (packed: Uint8Array) => Uint32Array
  readonly #stride: number
  readonly #take: (bit: number) => void
  #count = 0

  constructor(hash: (packed: Uint8Array) => Uint32Array, stride: number, take: (bit: number) => void) {
    this.#hash = hash
    this.#stride = stride
    this.#take = take
  }

  addService(name: ServiceName): void {
    const index = this.#next()
    packService(this.#packed, index, name)
  }

  addServer(name: ServerName, protocol: number): void {
    const index = this.#next()
    packServer(this.#packed, index, name, protocol)
  }

  /** Where the next endpoint goes. */
  #next(): number {
    if (this.#count === BATCH) this.flush()
    if (this.#count * ENDPOINT_SIZE === this.#packed.length) this.#grow()
    return this.#count++
  }

  #grow(): void {
    const packed = new Uint8Array(Math.min(4 * this.#packed.length, BATCH * ENDPOINT_SIZE))
    packed.set(this.#packed)
    this.#packed = packed
  }

  flush(): void {
    if (this.#count === 0) return
    const words = this.#hash(this.#packed.subarray(0, this.#count * ENDPOINT_SIZE))
    for (let i = 0; i < this.#count; i++) this.#take(words[i * this.#stride + this.#stride - 1] ?? 0)
    this.#count = 0
  }
}
