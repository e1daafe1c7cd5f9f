/** The table of a network namespace in the kernel's memory: every client's way to it. */
import { LbState } from '../abi/generated.ts'
import { findConnection } from '../maps/connection-end.ts'
import { readConnections } from '../maps/connections.ts'
import { updateFeatures } from '../maps/features.ts'
import { refreshFilter } from '../maps/filter.ts'
import { readList } from '../maps/lists.ts'
import { readMarkRules, type TableMarkRule, writeMarkRules } from '../maps/mark-rules.ts'
import { serverAddress, serverFamily, serverName, serviceName } from '../maps/names.ts'
import type { ServerName } from '../maps/names.ts'
import { findService, serviceSpot } from '../maps/service-index.ts'
import type { IndexEntry } from '../maps/service-index.ts'
import { totalRates, zeroTotalRates } from '../maps/rates.ts'
import { addTotal, laneCounters, newSums, toCounters, zeroTotal } from '../maps/stats.ts'
import { readServiceConfig } from '../maps/records.ts'
import { type Peers, writePeers } from '../maps/peers.ts'
import { type NodePortAddresses, writeNodePortAddresses } from '../maps/node-ports.ts'
import { type PodsKnown, writePods } from '../maps/pods.ts'
import { writeServiceRanges } from '../maps/service-ranges.ts'
import { readSettings, writeSettings } from '../maps/settings.ts'
import { TableMaps } from '../maps/table-maps.ts'
import { servicePlace } from '../maps/vips.ts'
import { canBeServer } from '../model/server-address.ts'
import { LbError } from '../model/errors.ts'
import type { ErrorCode } from '../model/errors.ts'
import type { Settings, SettingsChange } from '../model/settings.ts'
import type {
  ConnectionKey,
  ConnectionView,
  Counters,
  Prefix,
  ServerKey,
  ServerSpec,
  ServiceKey,
  ServiceSpec,
  ServiceView,
  Source,
  Timeouts,
} from '../model/types.ts'
import type { ServiceSpot, TableHandles } from '../native/handles.ts'
import { applyDesired, changesSince, nothingApplied } from './apply.ts'
import type { Applied } from './apply.ts'
import { Drain } from './drain.ts'
import { nameSockets } from './name-sockets.ts'
import { endByName, type EndOptions } from './end-connection.ts'
import { recoverTable } from './recover.ts'
import { announceServers } from './list-edit.ts'
import { additions, changeService, createService, deleteService, dropUnled } from './service-edit.ts'
import type { Edit } from './edit.ts'
import { steerLive } from './marks.ts'
import { refreshSources } from './sources.ts'
import { checkTimeouts, encodeServer, encodeService } from './specs.ts'
import type { ApplyResult, DesiredChanges, DesiredService, ReconcilingTable, Totals } from './table.ts'
import { sweepSome, trashedByName, zeroService } from './trash.ts'
import { liveServices, sourceNumber, ViewReader, withInsiders } from './views.ts'

/** A service that packets find, and where the index has it. */
interface Found extends IndexEntry {
  readonly spot: ServiceSpot
}

/**
 * Holds no copy of the table: what another process did is seen at once. Only apply() remembers what it was given, and
 * believes it as long as the generation says that nobody else edited.
 */
export class KernelTable implements ReconcilingTable {
  readonly connectionSlots: number
  readonly hz: number
  readonly #handles: TableHandles
  readonly #maps: TableMaps
  readonly #applied = new Map<Source, Applied>()

  constructor(handles: TableHandles) {
    this.#handles = handles
    this.#maps = new TableMaps(handles)
    this.connectionSlots = handles.rodata.connMax
    this.hz = handles.rodata.hz
  }

  generation(): bigint {
    return this.#maps.generation()
  }

  services(): ServiceView[] {
    const services: ServiceView[] = []
    this.eachService((service) => services.push(service))
    return services
  }

  eachService(visit: (service: ServiceView) => unknown, after = 0): void {
    this.#handles.sweep()
    this.#handles.withLock(() => {
      const reader = new ViewReader(this.#maps)
      for (const id of liveServices(this.#maps, after)) if (visit(reader.service(id)) === false) return
    })
  }

  service(key: ServiceKey): ServiceView | undefined {
    this.#handles.sweep()
    return this.#handles.withLock(() => {
      const found = this.#find(key)
      return found === undefined ? undefined : new ViewReader(this.#maps).service(found.id)
    })
  }

  totals(): Totals {
    return this.#handles.withLock(() => {
      const sums = newSums()
      addTotal(this.#maps, sums)
      return { counters: toCounters(sums), rates: totalRates(this.#maps) }
    })
  }

  cpuCounters(): Counters[] {
    return this.#handles.withLock(() => laneCounters(this.#maps))
  }

  connections(): Iterable<ConnectionView> {
    this.#handles.sweep()
    nameSockets(this.#maps)
    return readConnections(this.#maps)
  }

  connection(key: ConnectionKey): ConnectionView | undefined {
    nameSockets(this.#maps)
    return findConnection(this.#maps, key)?.view
  }

  endConnection(key: ConnectionKey, options: EndOptions = {}): void {
    nameSockets(this.#maps)
    endByName(this.#maps, key, options)
  }

  timeouts(): Timeouts {
    const { config } = this.#maps
    return {
      tcpS: config.timeout(0, LbState.TCP_ESTABLISHED),
      tcpFinS: config.timeout(0, LbState.TCP_FIN_WAIT),
      udpS: config.timeout(0, LbState.UDP_NORMAL),
    }
  }

  settings(): Settings {
    return readSettings(this.#maps)
  }

  knowsOthers(): boolean {
    return this.#handles.clock().conntrackReadable
  }

  exclusively<T>(work: () => T): T {
    return this.#handles.withLock(work)
  }

  addService(spec: ServiceSpec, source: Source = 'command'): void {
    const want = encodeService(spec)
    this.#edit((edit) => {
      createService(edit, { ...want, servers: [] }, servicePlace(this.#handles, want.name), sourceNumber(source))
    })
  }

  editService(spec: ServiceSpec): void {
    const want = encodeService(spec)
    this.#edit((edit) => {
      const { id } = this.#get(spec.key, 'NO_SERVICE')
      const { policy, allowed } = spec.policy === undefined ? readServiceConfig(this.#maps, id) : want.config
      changeService(edit, id, { ...additions([]), config: { ...want.config, policy, allowed } })
    })
  }

  deleteService(key: ServiceKey): void {
    this.#edit((edit) => {
      const { id, slot, spot } = this.#get(key, 'NO_SERVICE')
      deleteService(edit, id, slot, spot)
    })
  }

  clear(): void {
    this.#edit((edit) => {
      for (const id of liveServices(this.#maps)) {
        const name = this.#maps.serviceName(id)
        const spot = serviceSpot(this.#handles, name)
        const entry = findService(this.#maps, name, spot)
        if (entry?.id === id) deleteService(edit, id, entry.slot, spot)
      }
    })
  }

  addServer(service: ServiceKey, spec: ServerSpec): void {
    this.#edit((edit) => {
      const { id } = this.#get(service, 'SERVICE_NOT_DEFINED')
      const name = this.#maps.serviceName(id)
      const want = encodeServer(name, spec)
      if (this.#findServer(id, want.name) !== 0) throw new LbError('SERVER_EXISTS')
      if (!trashedByName(this.#maps, id).has(want.name)) this.#checkAddress(want.name)
      announceServers(this.#maps, name, [want])
      changeService(edit, id, additions([want]))
    })
  }

  editServer(service: ServiceKey, spec: ServerSpec): void {
    this.#edit((edit) => {
      const { id } = this.#get(service, 'SERVICE_NOT_DEFINED')
      const want = encodeServer(this.#maps.serviceName(id), spec)
      const server = this.#getServer(id, want.name)
      changeService(edit, id, { ...additions([]), edited: new Map([[server, want]]) })
    })
  }

  deleteServer(service: ServiceKey, key: ServerKey): void {
    this.#edit((edit) => {
      const { id } = this.#get(service, 'SERVICE_NOT_DEFINED')
      const server = this.#getServer(id, serverName(key))
      changeService(edit, id, { ...additions([]), removed: new Set([server]) })
    })
  }

  zero(key?: ServiceKey): void {
    this.#edit(() => {
      const ids = key === undefined ? liveServices(this.#maps) : [this.#get(key, 'NO_SERVICE').id]
      for (const id of ids) for (const each of withInsiders(this.#maps, id)) zeroService(this.#maps, each)
      if (key !== undefined) return
      zeroTotal(this.#maps)
      zeroTotalRates(this.#maps)
    })
  }

  setTimeouts(timeouts: Timeouts): void {
    checkTimeouts(timeouts)
    this.#edit(({ maps }) => {
      const { tcpS, tcpFinS, udpS } = timeouts
      if (tcpS > 0) maps.config.setTimeout(0, LbState.TCP_ESTABLISHED, tcpS)
      if (tcpFinS > 0) maps.config.setTimeout(0, LbState.TCP_FIN_WAIT, tcpFinS)
      if (udpS > 0) maps.config.setTimeout(0, LbState.UDP_NORMAL, udpS)
    })
  }

  /** The rules that mark packets, in their order. */
  markRules(): TableMarkRule[] {
    return this.#handles.withLock(() => readMarkRules(this.#maps))
  }

  /** Replaces the rules by what `change` makes of them. TABLE_FULL, INVALID, and what `change` throws. */
  editMarkRules(change: (rules: readonly TableMarkRule[]) => readonly TableMarkRule[]): void {
    this.#edit(({ maps }) => {
      writeMarkRules(maps, change(readMarkRules(maps)))
      updateFeatures(maps)
    })
  }

  changeSettings(change: SettingsChange): void {
    this.#edit(({ maps }) => writeSettings(maps, change))
    this.#handles.sweep()
  }

  refreshSources(): void {
    this.#handles.withLock(() => refreshSources(this.#maps))
  }

  setNodePortAddresses(addresses: NodePortAddresses): void {
    this.#edit(({ maps }) => writeNodePortAddresses(maps, addresses), Boolean)
  }

  setPods(pods: PodsKnown): void {
    this.#edit(({ maps }) => writePods(maps, pods), Boolean)
  }

  setServiceRanges(prefixes: readonly Prefix[], known: boolean): void {
    this.#edit(({ maps }) => writeServiceRanges(maps, { prefixes, known }), Boolean)
  }

  setPeers(peers: Peers): void {
    this.#edit(({ maps }) => writePeers(maps, peers), Boolean)
  }

  /**
   * As ReconcilingTable; a DesiredService object that was applied before is taken to be unchanged: never change one.
   */
  apply(source: Source, desired: readonly DesiredService[], changes?: DesiredChanges, drainLimitS = 0): ApplyResult {
    const known = this.#applied.get(source)
    this.#applied.delete(source)
    try {
      return this.#edit((edit) => {
        const before = edit.maps.generation()
        const applied = known?.generation === before ? known : nothingApplied()
        const news = changes !== undefined && known === applied ? changes : changesSince(applied, desired)
        const result = applyDesired(edit, sourceNumber(source), news, applied, drainLimitS)
        const after = isChange(result) ? before + 1n : before
        for (const other of this.#applied.values()) if (other.generation === before) other.generation = after
        applied.generation = after
        this.#applied.set(source, applied)
        return result
      }, isChange)
    } catch (error) {
      this.#applied.clear()
      throw error
    }
  }

  hasDrained(source: Source, drainLimitS: number): boolean {
    const draining = this.#applied.get(source)?.draining
    if (draining === undefined || draining.size === 0) return false
    const drain = new Drain(this.#maps, this.#nowS(), drainLimitS)
    return [...draining.values()].some((ids) => drain.isDue(ids))
  }

  close(): void {
    this.#handles.close()
  }

  /** Monotonic seconds. */
  #nowS(): number {
    return Number(this.#handles.monotonicNs() / 1_000_000_000n)
  }

  /**
   * One edit, seen as a whole by everybody who takes the lock. If the last writer died in the middle of one, what it
   * left is put in order first.
   */
  #edit<T>(change: (edit: Edit) => T, isEdit: (result: T) => boolean = () => true): T {
    const maps = this.#maps
    return this.#handles.withLock(() => {
      const nowS = this.#nowS()
      if (maps.book.editing(0) !== 0) this.#recover(nowS)
      maps.book.setEditing(0, 1)
      let result: T
      const edit: Edit = { maps, nowS }
      try {
        result = change(edit)
        if (edit.unsteered) steerLive(maps)
        dropUnled(edit)
      } catch (error) {
        // A refusal comes before anything is written. After any other error the next edit begins with a recovery.
        if (error instanceof LbError && error.code !== 'NATIVE') maps.book.setEditing(0, 0)
        throw error
      }
      if (maps.config.expireNodestConn(0) !== 0 && maps.book.trashed(0) !== 0) this.#handles.sweep()
      sweepSome(maps, nowS)
      refreshFilter(maps)
      maps.book.setEditing(0, 0)
      if (isEdit(result)) maps.raiseGeneration()
      return result
    })
  }

  #recover(nowS: number): void {
    recoverTable({ maps: this.#maps, nowS })
    this.#maps.raiseGeneration()
  }

  /** INVALID: no server can have it, as the host's routes are. One that comes back has its address. */
  #checkAddress(server: ServerName): void {
    const [family, bytes] = [serverFamily(server), serverAddress(server)]
    if (canBeServer(family, bytes, () => this.#handles.routeType(family, bytes))) return
    throw new LbError('INVALID', undefined, { what: 'server address', value: [...bytes] })
  }

  #find(key: ServiceKey): Found | undefined {
    const name = serviceName(key)
    const spot = serviceSpot(this.#handles, name)
    const entry = findService(this.#maps, name, spot)
    return entry?.live ? { ...entry, spot } : undefined
  }

  #get(key: ServiceKey, missing: ErrorCode): Found {
    const found = this.#find(key)
    if (found === undefined) throw new LbError(missing)
    return found
  }

  /** 0: the service has no such server. */
  #findServer(service: number, name: ServerName): number {
    const { ids } = readList(this.#maps.cells, this.#maps.services.list(service))
    return ids.find((id) => this.#maps.serverName(id) === name) ?? 0
  }

  #getServer(service: number, name: ServerName): number {
    const id = this.#findServer(service, name)
    if (id === 0) throw new LbError('NO_SERVER')
    return id
  }
}

function isChange({ added, changed, removed }: ApplyResult): boolean {
  return added + changed + removed > 0
}
