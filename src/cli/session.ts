/** The table as a command sees it: opened when first needed, empty where the namespace has none. */
import { type PortRange, requireFree, type TakenPorts } from '../model/masquerade-ports.ts'
import { cpus } from 'node:os'
import { type ErrorCode, LbError } from '../model/errors.ts'
import {
  initialSettings,
  type Settings,
  type SettingsChange,
  type TunableRequest,
  tunables,
} from '../model/settings.ts'
import type { Counters, MarkRule, ServerSpec, ServiceKey, ServiceSpec, Timeouts } from '../model/types.ts'
import type { Table, Totals } from '../engine/table.ts'
import type { RunningSyncDaemon, SyncDaemonRequest, SyncRole } from '../sync/options.ts'
import type { ChangeCommand, ServiceRequest } from './command.ts'
import type { ListedService } from './format-listing.ts'
import {
  formatProcConnections,
  formatProcCpuStats,
  formatProcServices,
  formatProcStats,
  procApplications,
  type ProcFile,
} from './format-proc.ts'
import { isScheduler } from './scheduler-flags.ts'

/** A program's place: `mode` tells how it is attached (native, generic, ...). */
export interface Hook {
  readonly ifindex: number
  readonly interface: string
  readonly hook: string
  readonly mode: string
}

/** The sync daemons of the namespace. */
export interface SyncDaemons {
  /** Rejects with LbError when one of this role runs already, or its interface does not exist. */
  start(request: SyncDaemonRequest): Promise<void>
  /** Resolves when it has ended; to false when none of this role runs. */
  stop(role: SyncRole): Promise<boolean>
  list(): readonly RunningSyncDaemon[]
}

/** The rules that mark packets, in their order. */
export interface MarkRules {
  list(): readonly MarkRule[]
  /** Throws LbError: too many, or no such interface. */
  add(rule: MarkRule): void
  /** Throws LbError when there is no such rule. */
  delete(rule: MarkRule): void
}

/** What commands act on: the current network namespace. */
export interface Operations {
  /** Undefined when the namespace has no table and `create` is false; else LbError says why there can be none. */
  openTable(options: { readonly create: boolean }): Table | undefined
  /** Removes programs, maps and pins; false when there were none. */
  unload(): boolean
  hooks(): readonly Hook[]
  verdicts(): readonly { readonly name: string; readonly count: bigint }[]
  /** Contradictions in the table, one sentence each. */
  check(): readonly string[]
  /** Ports that the kernel gives out by itself, or keeps. */
  kernelPorts(): readonly TakenPorts[]
  /** The table's own rules that mark packets. */
  readonly markRules: MarkRules
  readonly syncDaemons: SyncDaemons
  /** Names that `--pe` may have. */
  readonly persistenceEngines?: readonly string[]
}

/** What ipvsadm says of an EINVAL: a server at an address that no server can have, more servers than mh takes. */
const invalidOperation = 'Invalid operation.  Possibly wrong module version, address not unicast, ...'

const noCounters: Counters = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }
const noTotals: Totals = { counters: noCounters, rates: noCounters }

/** Timeouts of a namespace where nobody set any. */
const defaultTimeouts: Timeouts = { tcpS: 900, tcpFinS: 120, udpS: 300 }

/** One command line's, or one restore's, dealings with the table. */
export class Session {
  readonly operations: Operations
  #table: Table | undefined

  constructor(operations: Operations) {
    this.operations = operations
  }

  close(): void {
    this.#table?.close()
    this.#table = undefined
  }

  services(): readonly ListedService[] {
    return this.#open()?.services() ?? []
  }

  eachService(visit: (service: ListedService) => void): void {
    this.#open()?.eachService(visit)
  }

  service(key: ServiceKey): ListedService | undefined {
    return this.#open()?.service(key)
  }

  connections(): ReturnType<Table['connections']> {
    return this.#open()?.connections() ?? []
  }

  timeouts(): Timeouts {
    return this.#open()?.timeouts() ?? defaultTimeouts
  }

  settings(): Settings {
    return this.#open()?.settings() ?? initialSettings
  }

  /** Makes the table where there is none, or the settings would be forgotten. */
  changeSettings(change: SettingsChange): void {
    this.#create().changeSettings(change)
  }

  /** INVALID: the kernel gives some of these ports to others. */
  setMasqueradePorts(ports: PortRange): void {
    requireFree(ports, this.operations.kernelPorts())
    this.changeSettings({ masqueradePorts: ports })
  }

  /** Sets what has a value, all at once; returns what the tunables asked about are then: all, if none is named. */
  tunables(requests: readonly TunableRequest[]): Required<TunableRequest>[] {
    const given = requests.flatMap(({ name, value }) => (value === undefined ? [] : [[name, value] as const]))
    if (given.length > 0) this.changeSettings({ tunables: Object.fromEntries(given) })
    const now = this.settings().tunables
    return (requests.length > 0 ? requests : tunables).map(({ name }) => ({ name, value: now[name] }))
  }

  /** A file of IPVS's in /proc/net, in pieces. */
  proc(file: ProcFile): Iterable<string> {
    const table = this.#open()
    const { counters, rates } = table?.totals() ?? noTotals
    switch (file) {
      case 'ip_vs':
        return [formatProcServices(this.services(), table?.hz ?? 0)]
      case 'ip_vs_app':
        return [procApplications]
      case 'ip_vs_conn':
      case 'ip_vs_conn_sync':
        return formatProcConnections(this.connections(), { origins: file === 'ip_vs_conn_sync' })
      case 'ip_vs_stats':
        return [formatProcStats(counters, rates)]
      case 'ip_vs_stats_percpu':
        return [formatProcCpuStats(table?.cpuCounters() ?? cpus().map(() => noCounters), counters, rates)]
    }
  }

  /** Rejects with LbError: what the table refuses. */
  async change(command: ChangeCommand): Promise<void> {
    switch (command.do) {
      case 'add-service':
        this.#addService(command.service)
        break
      case 'edit-service':
        this.#editService(command.service)
        break
      case 'delete-service':
        this.#existing('NO_SERVICE').deleteService(command.service)
        break
      case 'add-server':
        this.#addServer(command.service, command.server)
        break
      case 'edit-server':
        this.#editServer(command.service, command.server)
        break
      case 'delete-server':
        this.#existing('SERVICE_NOT_DEFINED').deleteServer(command.service, command.server)
        break
      case 'flush':
        this.#open()?.clear()
        break
      case 'zero':
        this.#zero(command.service)
        break
      case 'set':
        this.#setTimeouts(command.timeouts)
        break
      case 'start-daemon':
        await this.#startDaemon(command.daemon)
        break
      case 'stop-daemon':
        await this.#stopDaemon(command.role)
        break
    }
  }

  /** The first service makes the table. */
  #addService(request: ServiceRequest): void {
    const spec = this.#known(request, () => present(this.#open(), request.key))
    const table = this.#create()
    inKernelsOrder(
      () => table.addService(spec, 'command'),
      () => present(table, request.key),
    )
  }

  #editService(request: ServiceRequest): void {
    const table = this.#existing('NO_SERVICE')
    const spec = this.#known(request, () => absent(table, request.key, 'NO_SERVICE'))
    inKernelsOrder(
      () => asEinval(() => table.editService(spec)),
      () => absent(table, request.key, 'NO_SERVICE'),
    )
  }

  #addServer(service: ServiceKey, server: ServerSpec): void {
    const table = this.#existing('SERVICE_NOT_DEFINED')
    inKernelsOrder(
      () => {
        if (server.family !== service.family && this.daemons().length > 0)
          throw new LbError('INVALID', invalidOperation)
        asEinval(() => table.addServer(service, server))
      },
      () => absent(table, service, 'SERVICE_NOT_DEFINED'),
    )
  }

  #editServer(service: ServiceKey, server: ServerSpec): void {
    const table = this.#existing('SERVICE_NOT_DEFINED')
    inKernelsOrder(
      () => table.editServer(service, server),
      () => absent(table, service, 'SERVICE_NOT_DEFINED'),
    )
  }

  #zero(key?: ServiceKey): void {
    if (key === undefined) this.#open()?.zero()
    else this.#existing('NO_SERVICE').zero(key)
  }

  /** Makes the table where there is none, or the timeouts would be forgotten. */
  #setTimeouts(timeouts: Timeouts): void {
    const changes = timeouts.tcpS !== 0 || timeouts.tcpFinS !== 0 || timeouts.udpS !== 0
    if (changes) this.#create().setTimeouts(timeouts)
  }

  /** Records have one family for both ends, so no server may be of another family than its service. */
  async #startDaemon(request: SyncDaemonRequest): Promise<void> {
    const mixed = this.services().some(({ key, servers }) => servers.some(({ family }) => family !== key.family))
    if (mixed) throw new LbError('INVALID', invalidOperation)
    await this.operations.syncDaemons.start(request)
  }

  async #stopDaemon(role: SyncRole): Promise<void> {
    if (!(await this.operations.syncDaemons.stop(role))) throw new LbError('INVALID', 'No daemon is running')
  }

  daemons(): readonly RunningSyncDaemon[] {
    return this.operations.syncDaemons.list()
  }

  #open(): Table | undefined {
    this.#table ??= this.operations.openTable({ create: false })
    return this.#table
  }

  #create(): Table {
    const table = this.#open() ?? this.operations.openTable({ create: true })
    if (table === undefined) throw new LbError('NATIVE', 'the table could not be made in this network namespace')
    this.#table = table
    return table
  }

  #existing(otherwise: 'NO_SERVICE' | 'SERVICE_NOT_DEFINED'): Table {
    const table = this.#open()
    if (table === undefined) throw new LbError(otherwise)
    return table
  }

  /** A request with a scheduler and an engine that exist; `first` is what else may be wrong with it, and is told before. */
  #known(request: ServiceRequest, first: () => ErrorCode | undefined): ServiceSpec {
    const { scheduler, engine } = request
    const known = engine === undefined || this.operations.persistenceEngines?.includes(engine) === true
    if (known && isScheduler(scheduler)) return { ...request, scheduler }
    throw new LbError(first() ?? 'NO_SCHEDULER')
  }
}

function present(table: Table | undefined, key: ServiceKey): ErrorCode | undefined {
  return table?.service(key) === undefined ? undefined : 'SERVICE_EXISTS'
}

function absent(table: Table, key: ServiceKey, otherwise: ErrorCode): ErrorCode | undefined {
  return table.service(key) === undefined ? otherwise : undefined
}

/** Does `action`; what it calls INVALID is told in ipvsadm's words. */
function asEinval(action: () => void): void {
  try {
    action()
  } catch (error) {
    if (error instanceof LbError && error.code === 'INVALID') {
      throw new LbError('INVALID', invalidOperation, error.detail, error)
    }
    throw error
  }
}

/** Errors about what is wanted of a service, not about whether it is there. */
const wishErrors: ReadonlySet<ErrorCode> = new Set(['RANGE', 'INVALID', 'NO_SCHEDULER'])

/**
 * Does `action`. The kernel looks for the service before it looks at what is wanted of it, a table may do it the other
 * way round: where both are wrong, the error is what `first` finds.
 */
function inKernelsOrder(action: () => void, first: () => ErrorCode | undefined): void {
  try {
    action()
  } catch (error) {
    const code = error instanceof LbError && wishErrors.has(error.code) ? first() : undefined
    throw code === undefined ? error : new LbError(code, undefined, {}, error)
  }
}
