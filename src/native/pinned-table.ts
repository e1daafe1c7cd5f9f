/** An open table: the implementation of TableHandles. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { LbClockArray, LbRodataArray, type MapName, maps } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import { ENDPOINT_SIZE, packEndpoint } from './endpoints.ts'
import type { ServiceSpot, TableConstants, TableHandles } from './handles.ts'
import { PodLinks } from './link-maps.ts'
import { PeerMap, type PeerRecord } from './peer-map.ts'
import type { RouteType } from '../model/server-address.ts'
import { routeType } from './route-types.ts'
import type { ProgramName } from './programs.ts'
import { runProgram } from './run.ts'
import { withNamespace } from './setns.ts'
import { SocketHooks } from './socket-hooks.ts'
import { inAllNamespaces } from './stale.ts'
import {
  closeFd,
  type Fd,
  gracePeriod,
  hashServers,
  hashServices,
  lock,
  openDirectory,
  OpenMaps,
  openPin,
  unlock,
} from './shim.ts'
import { Sources, type TunnelEnd } from './sources.ts'
import { type Mark, steer } from './steering.ts'

const EMPTY_PACKET = new Uint8Array(64)
/** Where lb_end finds what it is to do: bpf/end.h. */
const WISH_OFFSET = 16

function readConstants(buffer: ArrayBuffer): TableConstants {
  const padded = new ArrayBuffer(LbRodataArray.size)
  new Uint8Array(padded).set(new Uint8Array(buffer).subarray(0, padded.byteLength))
  const rodata = new LbRodataArray(padded)
  return Object.freeze({
    hashKey: BigUint64Array.from({ length: LbRodataArray.count.hashKey }, (_, n) => rodata.hashKey(0, n)),
    serviceLineMask: rodata.serviceLineMask(0),
    filterMask: rodata.filterMask(0),
    connLineMask: rodata.connLineMask(0),
    connMax: rodata.connMax(0),
    serverMax: rodata.serverMax(0),
    laneMask: rodata.laneMask(0),
    lanesShared: rodata.lanesShared(0),
    tickShift: rodata.tickShift(0),
    hz: rodata.hz(0),
  })
}

/** The pinned maps of `dir`, mapped. */
export class PinnedTable implements TableHandles {
  readonly dir: string
  readonly rodata: TableConstants
  readonly #maps: OpenMaps
  readonly #directory: Fd
  /** Of the thread that opened the table: whoever uses it later may be elsewhere. */
  readonly #namespace: number
  readonly #clock: LbClockArray
  #clockAheadNs: bigint | undefined
  #wantsSources: boolean | undefined
  #locks = 0
  readonly #programs = new Map<ProgramName, Fd>()
  #closed = false

  /** Opens a complete table. NATIVE with ENOENT if something is missing, PERMISSION. */
  constructor(dir: string) {
    this.dir = dir
    this.#directory = openDirectory(dir)
    this.#namespace = openSync('/proc/thread-self/ns/net', 'r')
    try {
      this.#maps = new OpenMaps(dir, [...Object.keys(maps), 'lb_rodata'])
    } catch (error) {
      closeFd(this.#directory)
      closeSync(this.#namespace)
      throw error
    }
    this.rodata = readConstants(this.#maps.buffer('lb_rodata'))
    this.#clock = new LbClockArray(this.#maps.buffer('lb_clock'))
  }

  buffer(map: MapName): ArrayBuffer {
    if (this.#closed) throw new LbError('NATIVE', `${this.dir}: the table was closed`)
    return this.#maps.buffer(map)
  }

  withLock<T>(fn: () => T): T {
    if (this.#locks === 0 && !lock(this.#directory)) {
      throw new LbError('NATIVE', `${this.dir}: the table was unloaded`, { call: 'flock', dir: this.dir })
    }
    this.#locks++
    try {
      return fn()
    } finally {
      this.#locks--
      if (this.#locks === 0) unlock(this.#directory)
    }
  }

  clock(): { readonly jiffies: bigint; readonly ktimeNs: bigint; readonly conntrackReadable: boolean } {
    this.#run('lb_read_clock')
    const conntrackReadable = this.#clock.conntrackReadable(0) !== 0
    return { jiffies: this.#clock.jiffies(0), ktimeNs: this.#clock.ktimeNs(0), conntrackReadable }
  }

  monotonicNs(): bigint {
    // In a time namespace this process has another clock; how far it is off never changes.
    this.#clockAheadNs ??= this.clock().ktimeNs - process.hrtime.bigint()
    return process.hrtime.bigint() + this.#clockAheadNs
  }

  get wantsSources(): boolean {
    if (this.#wantsSources === undefined) {
      this.#run('lb_read_clock')
      this.#wantsSources = this.#clock.sourcesWanted(0) !== 0
    }
    return this.#wantsSources
  }

  sweep(): void {
    this.#run('lb_sweep')
  }

  enterSynced(): void {
    this.#run('lb_sync')
  }

  nameSockets(elsewhere: boolean): boolean {
    const hooks = new SocketHooks(this.dir)
    if (!elsewhere) return withNamespace(`/proc/self/fd/${this.#namespace}`, () => hooks.name())
    inAllNamespaces(() => hooks.name())
    return true
  }

  endConnection(wish: Uint8Array): number {
    const packet = new Uint8Array(WISH_OFFSET + wish.length)
    packet.set(wish, WISH_OFFSET)
    return this.#run('lb_end', packet)
  }

  hashService(family: 4 | 6, protocol: number, address: Uint8Array, port: number): ServiceSpot {
    const endpoint = new Uint8Array(ENDPOINT_SIZE)
    packEndpoint(endpoint, 0, family, protocol, address, port)
    const [first = 0, second = 0, tag = 0, filterBit = 0] = this.hashServices(endpoint)
    return { first, second, tag, filterBit }
  }

  hashServer(family: 4 | 6, protocol: number, address: Uint8Array, port: number): { readonly filterBit: number } {
    const endpoint = new Uint8Array(ENDPOINT_SIZE)
    packEndpoint(endpoint, 0, family, protocol, address, port)
    return { filterBit: this.hashServers(endpoint)[0] ?? 0 }
  }

  hashServices(endpoints: Uint8Array): Uint32Array {
    const { hashKey, serviceLineMask, filterMask } = this.rodata
    return hashServices(hashKey, endpoints, endpoints.length / ENDPOINT_SIZE, serviceLineMask, filterMask)
  }

  hashServers(endpoints: Uint8Array): Uint32Array {
    return hashServers(this.rodata.hashKey, endpoints, endpoints.length / ENDPOINT_SIZE, this.rodata.filterMask)
  }

  gracePeriod(): void {
    gracePeriod()
  }

  routeType(family: 4 | 6, address: Uint8Array): RouteType {
    return routeType(family, address)
  }

  steer(marks: readonly Mark[]): void {
    withNamespace(`/proc/self/fd/${this.#namespace}`, () => {
      steer(this.dir, marks)
    })
  }

  tellSources(ends: readonly TunnelEnd[], only: boolean): void {
    if (!this.wantsSources) return
    withNamespace(`/proc/self/fd/${this.#namespace}`, () => {
      const sources = new Sources(this.dir)
      if (only) sources.tellOnly(ends)
      else sources.tell(ends)
    })
  }

  setPodLinks(links: readonly number[]): boolean {
    return new PodLinks(this.dir).set(links)
  }

  setPeers(records: readonly PeerRecord[]): boolean {
    return new PeerMap(this.dir).set(records)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#maps.close()
    closeFd(this.#directory)
    closeSync(this.#namespace)
    for (const program of this.#programs.values()) closeFd(program)
  }

  /** Runs a pinned program that needs no packet. */
  #run(name: ProgramName, packet = EMPTY_PACKET): number {
    let program = this.#programs.get(name)
    if (program === undefined) {
      program = openPin(join(this.dir, `prog-${name}`))
      this.#programs.set(name, program)
    }
    return runProgram(program, { packet }).result
  }
}
