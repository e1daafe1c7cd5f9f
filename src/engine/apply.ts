/** Makes what a source owns be what it wants, touching only what differs. The table's lock is held. */
import { insidersOf } from '../maps/audience.ts'
import { readList } from '../maps/lists.ts'
import type { ServerName, ServiceName } from '../maps/names.ts'
import { serviceName } from '../maps/names.ts'
import { readServerConfig, readServiceConfig } from '../maps/records.ts'
import type { ServerWant } from '../maps/records.ts'
import { ServerBits } from '../maps/filter.ts'
import { findService, serviceSpots } from '../maps/service-index.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { type ServicePlace, servicePlaces } from '../maps/vips.ts'
import { LbError } from '../model/errors.ts'
import type { ServerSpec, ServiceKey } from '../model/types.ts'
import { Drain, type Draining } from './drain.ts'
import { plan } from './plan.ts'
import type { ActualServer, ActualService, DesiredRecord, Operation } from './plan.ts'
import { endpointOf } from './list-edit.ts'
import { changeService, createService, deleteService } from './service-edit.ts'
import type { Edit } from './edit.ts'
import { describeKey, encodeServer, encodeService } from './specs.ts'
import type { ApplyResult, DesiredChanges, DesiredService } from './table.ts'
import { liveServices, sourceName } from './views.ts'

type Failure = ApplyResult['failed'][number]

/** Something wanted, and whether the table refused it. */
interface Want {
  readonly want: DesiredService
  failed: boolean
}

/**
 * What a source wanted last and got. As long as nobody else edits, a DesiredService that it brings again is as it was.
 */
export interface Applied {
  /** Of the table, right after. */
  generation: bigint
  readonly byWant: Map<DesiredService, ServiceName>
  readonly byName: Map<ServiceName, DesiredService>
  /** Wanted and not got: to be tried again. */
  readonly unmet: Set<DesiredService>
  /** Names of these: there may be an older version of them in the table. */
  readonly strays: Set<ServiceName>
  /** Servers that are no longer wanted and still there. */
  readonly draining: Draining
}

/** Of a source of which nothing is known: everything it owns is read. */
export function nothingApplied(): Applied {
  return {
    generation: -1n,
    byWant: new Map(),
    byName: new Map(),
    unmet: new Set(),
    strays: new Set(),
    draining: new Map(),
  }
}

/** How a whole desired state differs from what was applied last. */
export function changesSince(applied: Applied, desired: readonly DesiredService[]): DesiredChanges {
  const wanted = new Set(desired)
  const before = [...applied.byWant.keys(), ...applied.unmet]
  return {
    added: [...wanted].filter((want) => !applied.byWant.has(want) && !applied.unmet.has(want)),
    dropped: before.filter((want) => !wanted.has(want)),
  }
}

/**
 * `source`: enum lb_source. `drainLimitS`: how long servers drain. Counts services; what cannot be is in `failed`, the rest is
 * done. Brings `applied` up to date, except its generation; if this throws it is useless.
 */
export function applyDesired(
  edit: Edit,
  source: number,
  changes: DesiredChanges,
  applied: Applied,
  drainLimitS: number,
): ApplyResult {
  const { maps } = edit
  const drain = new Drain(maps, edit.nowS, drainLimitS)
  const failed: Failure[] = []
  const stale = forget(applied, changes.dropped)
  const again = forgetDrained(applied, drain, stale)
  const fresh = [...applied.unmet, ...again, ...changes.added]
  const { records, wants } = encodeAll(fresh, applied, failed)
  // A service that is wanted but cannot be said in the table's terms stays as it is.
  const unclear = new Set(unclearNames(fresh, failed).filter((name) => !wants.has(name) && !applied.byName.has(name)))
  for (const name of wants.keys()) stale.add(name)
  const actual = applied.generation < 0n ? readOwned(maps, source) : readNamed(maps, source, [...stale])
  const clear = actual.filter(({ name }) => !unclear.has(name))
  const operations = plan(clear, records, (service, server) => drain.keeps(service, server))
  applied.strays.clear()
  for (const name of unclear) applied.strays.add(name)
  const result = performAll(edit, source, operations, wants, failed)
  drain.settle(clear, records, applied.draining)
  remember(applied, fresh, wants)
  return result
}

/** Takes services that have servers to be drained no longer out of `applied`, to be applied again. */
function forgetDrained(applied: Applied, drain: Drain, stale: Set<ServiceName>): DesiredService[] {
  const again: DesiredService[] = []
  for (const [name, ids] of applied.draining) {
    const want = applied.byName.get(name)
    if (want === undefined || !drain.isDue(ids)) continue
    stale.add(name)
    applied.byWant.delete(want)
    applied.byName.delete(name)
    again.push(want)
  }
  return again
}

/** Takes what is no longer wanted out of `applied`; names of services that may have to change. */
function forget(applied: Applied, dropped: readonly DesiredService[]): Set<ServiceName> {
  const stale = new Set(applied.strays)
  for (const want of dropped) {
    const name = applied.byWant.get(want)
    applied.unmet.delete(want)
    if (name === undefined) continue
    stale.add(name)
    applied.byWant.delete(want)
    applied.byName.delete(name)
  }
  return stale
}

/** What of `fresh` is in the table now as it was wanted; what is not is unmet, and a stray. */
function remember(applied: Applied, fresh: readonly DesiredService[], wants: ReadonlyMap<ServiceName, Want>): void {
  for (const [name, { want, failed }] of wants) {
    if (failed) {
      applied.strays.add(name)
    } else {
      applied.byWant.set(want, name)
      applied.byName.set(name, want)
    }
  }
  applied.unmet.clear()
  for (const want of fresh) if (!applied.byWant.has(want)) applied.unmet.add(want)
}

/** Notes in `wants` what fails. */
function performAll(
  edit: Edit,
  source: number,
  operations: readonly Operation[],
  wants: ReadonlyMap<ServiceName, Want>,
  failed: Failure[],
): ApplyResult {
  const { maps } = edit
  announce(maps, operations)
  const places = servicePlaces(
    maps.handles,
    operations.map(({ name }) => name),
  )
  const done = { remove: 0, change: 0, add: 0 }
  for (const [i, operation] of operations.entries()) {
    try {
      perform(edit, source, operation, places[i])
      done[operation.kind]++
    } catch (error) {
      const want = wants.get(operation.name)
      if (!(error instanceof LbError) || error.code === 'NATIVE' || want === undefined) throw error
      want.failed = true
      failed.push({ key: want.want.service.key, error })
    }
  }
  return { added: done.add, changed: done.change, removed: done.remove, failed }
}

/** What a source owns. */
export function readOwned(maps: TableMaps, source: number): ActualService[] {
  const owned: ActualService[] = []
  for (const id of liveServices(maps)) {
    if (maps.services.source(id) === source) owned.push(readActual(maps, id))
  }
  return owned
}

/** What a source owns of these names. */
function readNamed(maps: TableMaps, source: number, names: readonly ServiceName[]): ActualService[] {
  const spots = serviceSpots(maps.handles, names)
  return names.flatMap((name, i) => {
    const spot = spots[i]
    const entry = spot === undefined ? undefined : findService(maps, name, spot)
    return entry?.live && maps.services.source(entry.id) === source ? [readActual(maps, entry.id)] : []
  })
}

function readActual(maps: TableMaps, id: number): ActualService {
  const insiders = insidersOf(maps, id)
  return {
    id,
    name: maps.serviceName(id),
    config: readServiceConfig(maps, id),
    servers: readServers(maps, id),
    ...(insiders === 0 ? {} : { insiders: readServers(maps, insiders) }),
  }
}

function readServers(maps: TableMaps, service: number): ActualServer[] {
  const { ids } = readList(maps.cells, maps.services.list(service))
  return ids.map((id) => ({ id, name: maps.serverName(id), config: readServerConfig(maps, id) }))
}

/** What is wanted in the table's terms, and by name. */
function encodeAll(
  desired: readonly DesiredService[],
  applied: Applied,
  failed: Failure[],
): { readonly records: DesiredRecord[]; readonly wants: ReadonlyMap<ServiceName, Want> } {
  const records: DesiredRecord[] = []
  const wants = new Map<ServiceName, Want>()
  for (const want of desired) {
    const { key } = want.service
    try {
      const record = encodeDesired(want)
      if (wants.has(record.name) || applied.byName.has(record.name)) {
        throw new LbError('SERVICE_EXISTS', `${describeKey(key)} is wanted twice`)
      }
      wants.set(record.name, { want, failed: false })
      records.push(record)
    } catch (error) {
      if (!(error instanceof LbError)) throw error
      failed.push({ key, error })
    }
  }
  return { records, wants }
}

function encodeDesired({ service, servers, insiders }: DesiredService): DesiredRecord {
  const want = encodeService(service)
  const others = insiders === undefined ? {} : { insiders: encodeServers(want.name, service.key, insiders) }
  return { ...want, servers: encodeServers(want.name, service.key, servers), ...others }
}

function encodeServers(service: ServiceName, key: ServiceKey, servers: readonly ServerSpec[]): ServerWant[] {
  const records: ServerWant[] = []
  const names = new Set<ServerName>()
  for (const server of servers) {
    const record = encodeServer(service, server)
    records.push(record)
    names.add(record.name)
  }
  if (names.size < records.length) throw new LbError('SERVER_EXISTS', `${describeKey(key)} has a server twice`)
  return records
}

/** Names of the services that failed to be encoded, as far as they have one. */
function unclearNames(desired: readonly DesiredService[], failed: readonly Failure[]): ServiceName[] {
  const keys = new Set(failed.map(({ key }) => key))
  return desired.flatMap(({ service: { key } }) => {
    if (!keys.has(key)) return []
    try {
      return [serviceName(key)]
    } catch (error) {
      if (error instanceof LbError) return []
      throw error
    }
  })
}

/** Sets the filter's bits for all servers that are about to be added. */
function announce(maps: TableMaps, operations: readonly Operation[]): void {
  const bits = new ServerBits(maps)
  for (const operation of operations) {
    if (operation.kind === 'remove') continue
    const service = operation.name
    for (const server of addedBy(operation)) bits.add(endpointOf(service, server))
  }
  bits.flush()
}

function addedBy(operation: Exclude<Operation, { kind: 'remove' }>): readonly ServerWant[] {
  if (operation.kind === 'add') {
    const { servers, insiders } = operation.want
    return insiders === undefined ? servers : [...servers, ...insiders]
  }
  const { added, insiders } = operation.changes
  return insiders === undefined || insiders === 'none' ? added : [...added, ...insiders.added]
}

function perform(edit: Edit, source: number, operation: Operation, place: ServicePlace | undefined): void {
  const { maps } = edit
  if (place === undefined) throw new RangeError('an operation without a hash')
  const { spot } = place
  if (operation.kind === 'change') {
    changeService(edit, operation.id, operation.changes)
  } else if (operation.kind === 'remove') {
    const entry = findService(maps, operation.name, spot)
    if (entry?.id !== operation.id) throw new RangeError(`service ${operation.id} is not in the index`)
    deleteService(edit, entry.id, entry.slot, spot)
  } else {
    const entry = findService(maps, operation.name, spot)
    if (entry?.live) {
      throw new LbError('SERVICE_EXISTS', `Service belongs to source "${sourceName(maps.services.source(entry.id))}"`)
    }
    createService(edit, operation.want, place, source)
  }
}
