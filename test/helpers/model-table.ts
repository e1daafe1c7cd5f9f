/**
 * A table in plain JavaScript with the behaviour of the kernel's IPVS (no packets, so no connections): what the command
 * line is tested against where no kernel is wanted.
 */
import { isDeepStrictEqual } from 'node:util'
import type { EndOptions } from '../../src/engine/end-connection.ts'
import type { Table, Totals } from '../../src/engine/table.ts'
import type { MarkRules, Operations, SyncDaemons } from '../../src/cli/session.ts'
import {
  completeRequest,
  type RunningSyncDaemon,
  type SyncDaemonRequest,
  type SyncRole,
} from '../../src/sync/options.ts'
import { parseAddress } from '../../src/native/ip.ts'
import { canBeServer, type RouteType } from '../../src/model/server-address.ts'
import { LbError } from '../../src/model/errors.ts'
import { initialSettings, type Settings, type SettingsChange } from '../../src/model/settings.ts'
import type {
  ConnectionKey,
  ConnectionView,
  Counters,
  MarkRule,
  ServerKey,
  ServerSpec,
  ServerView,
  ServiceKey,
  ServiceSpec,
  ServiceView,
  Source,
  Timeouts,
} from '../../src/model/types.ts'

const noCounters: Counters = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }

export interface ModelOptions {
  /** Schedulers that the table does not have. */
  readonly missing?: readonly string[]
}

/** What names it, of a connection. */
function connectionKey({ family, protocol, client, virtual, template }: ConnectionKey): ConnectionKey {
  return { family, protocol, client, virtual, ...(template === true ? { template } : {}) }
}

function sameService(one: ServiceKey, two: ServiceKey): boolean {
  if (one.family !== two.family) return false
  if (one.kind === 'fwmark') return two.kind === 'fwmark' && one.mark === two.mark
  return two.kind === 'address' && one.protocol === two.protocol && one.address === two.address && one.port === two.port
}

function sameServer(one: ServerKey, two: ServerKey): boolean {
  return one.family === two.family && one.address === two.address && one.port === two.port
}

export class ModelTable implements Table {
  readonly connectionSlots = 4096
  readonly hz = 250
  readonly #missing: readonly string[]
  #services: ServiceView[] = []
  #timeouts: Timeouts = { tcpS: 900, tcpFinS: 120, udpS: 300 }
  #settings = initialSettings
  #generation = 0n
  #nextId = 1

  constructor(options: ModelOptions = {}) {
    this.#missing = options.missing ?? []
  }

  generation(): bigint {
    return this.#generation
  }

  settings(): Settings {
    return this.#settings
  }

  changeSettings({ tunables, ...change }: SettingsChange): void {
    this.#settings = { ...this.#settings, ...change, tunables: { ...this.#settings.tunables, ...tunables } }
    this.#generation++
  }

  services(): ServiceView[] {
    return [...this.#services]
  }

  eachService(visit: (service: ServiceView) => unknown, after = 0): void {
    for (const service of this.#services) if (service.id > after && visit(service) === false) return
  }

  exclusively<T>(work: () => T): T {
    return work()
  }

  service(key: ServiceKey): ServiceView | undefined {
    return this.#services.find((service) => sameService(service.key, key))
  }

  /** For a test to fill. */
  readonly held: ConnectionView[] = []

  connections(): Iterable<ConnectionView> {
    return this.held
  }

  connection(key: ConnectionKey): ConnectionView | undefined {
    return this.held.find((each) => isDeepStrictEqual(connectionKey(each), connectionKey(key)))
  }

  endConnection(key: ConnectionKey, { check }: EndOptions = {}): void {
    const found = this.connection(key)
    if (found === undefined) throw new LbError('NO_CONNECTION')
    check?.(found)
    this.held.splice(this.held.indexOf(found), 1)
  }

  cpuCounters(): Counters[] {
    return [noCounters, noCounters]
  }

  totals(): Totals {
    return { counters: noCounters, rates: noCounters }
  }

  timeouts(): Timeouts {
    return this.#timeouts
  }

  addService(spec: ServiceSpec, source: Source = 'command'): void {
    if (this.service(spec.key) !== undefined) throw new LbError('SERVICE_EXISTS')
    this.#checkScheduler(spec)
    this.#services.push({ ...spec, id: this.#nextId++, source, counters: noCounters, rates: noCounters, servers: [] })
    this.#generation++
  }

  editService(spec: ServiceSpec): void {
    const old = this.#find(spec.key, 'NO_SERVICE')
    this.#checkScheduler(spec)
    const { id, source, counters, servers } = old
    this.#replace(old, { ...spec, id, source, counters, servers, rates: noCounters })
  }

  deleteService(key: ServiceKey): void {
    const old = this.#find(key, 'NO_SERVICE')
    this.#services = this.#services.filter((service) => service !== old)
    this.#generation++
  }

  clear(): void {
    this.#services = []
    this.#generation++
  }

  addServer(service: ServiceKey, spec: ServerSpec): void {
    const owner = this.#find(service, 'SERVICE_NOT_DEFINED')
    this.#checkThresholds(spec)
    if (owner.servers.some((server) => sameServer(server, spec))) throw new LbError('SERVER_EXISTS')
    const { family, bytes } = parseAddress(spec.address)
    if (!canBeServer(family, bytes, () => this.#routeType(spec.address))) throw new LbError('INVALID')
    this.#replace(owner, { ...owner, servers: [this.#newServer(spec), ...owner.servers] })
  }

  editServer(service: ServiceKey, spec: ServerSpec): void {
    const owner = this.#find(service, 'SERVICE_NOT_DEFINED')
    this.#checkThresholds(spec)
    const old = owner.servers.find((server) => sameServer(server, spec))
    if (old === undefined) throw new LbError('NO_SERVER')
    const { id, active, inactive, persistent, counters } = old
    const edited: ServerView = { ...spec, id, active, inactive, persistent, counters, rates: noCounters }
    this.#replace(owner, { ...owner, servers: owner.servers.map((server) => (server === old ? edited : server)) })
  }

  deleteServer(service: ServiceKey, server: ServerKey): void {
    const owner = this.#find(service, 'SERVICE_NOT_DEFINED')
    const left = owner.servers.filter((candidate) => !sameServer(candidate, server))
    if (left.length === owner.servers.length) throw new LbError('NO_SERVER')
    this.#replace(owner, { ...owner, servers: left })
  }

  zero(key?: ServiceKey): void {
    if (key !== undefined) this.#find(key, 'NO_SERVICE')
  }

  setTimeouts(timeouts: Timeouts): void {
    this.#timeouts = {
      tcpS: timeouts.tcpS || this.#timeouts.tcpS,
      tcpFinS: timeouts.tcpFinS || this.#timeouts.tcpFinS,
      udpS: timeouts.udpS || this.#timeouts.udpS,
    }
  }

  /** Nothing is held. */
  close(): void {}

  /** Of a host whose only network is that of its loopback interface. */
  #routeType(address: string): RouteType {
    return address === '127.255.255.255' ? 'broadcast' : 'unicast'
  }

  #newServer(spec: ServerSpec): ServerView {
    const counts = { active: 0, inactive: 0, persistent: 0, counters: noCounters, rates: noCounters }
    return { ...spec, id: this.#nextId++, ...counts }
  }

  #checkScheduler(spec: ServiceSpec): void {
    if (this.#missing.includes(spec.scheduler)) throw new LbError('NO_SCHEDULER')
  }

  #checkThresholds(spec: ServerSpec): void {
    if (spec.lower > spec.upper) throw new LbError('RANGE')
  }

  #find(key: ServiceKey, otherwise: 'NO_SERVICE' | 'SERVICE_NOT_DEFINED'): ServiceView {
    const found = this.#services.find((service) => sameService(service.key, key))
    if (found === undefined) throw new LbError(otherwise)
    return found
  }

  #replace(old: ServiceView, service: ServiceView): void {
    this.#services = this.#services.map((candidate) => (candidate === old ? service : candidate))
    this.#generation++
  }
}

/** Sync daemons that do nothing but be there, on interfaces with an MTU of 1500. */
export class ModelSyncDaemons implements SyncDaemons {
  readonly #interfaces: readonly string[]
  #running: RunningSyncDaemon[] = []

  constructor(interfaces: readonly string[]) {
    this.#interfaces = interfaces
  }

  async start(request: SyncDaemonRequest): Promise<void> {
    if (!this.#interfaces.includes(request.interface)) throw new LbError('INVALID', 'No such device')
    if (this.#running.some((daemon) => daemon.role === request.role))
      throw new LbError('INVALID', 'Daemon has already run')
    const counters = { messages: 0n, connections: 0n, refused: 0n, failed: 0n, waiting: 0n }
    this.#running.push({ ...completeRequest(request, 1500), counters })
  }

  async stop(role: SyncRole): Promise<boolean> {
    const left = this.#running.filter((daemon) => daemon.role !== role)
    const stopped = left.length < this.#running.length
    this.#running = left
    return stopped
  }

  list(): readonly RunningSyncDaemon[] {
    return [...this.#running].sort((one, two) => two.role.localeCompare(one.role))
  }
}

function modelMarkRules(): MarkRules {
  const rules: MarkRule[] = []
  return {
    list: () => rules,
    add: (rule) => void rules.push(rule),
    delete: (rule) => {
      const at = rules.findIndex((each) => isDeepStrictEqual(each, rule))
      if (at < 0) throw new LbError('INVALID', 'No such mark rule')
      rules.splice(at, 1)
    },
  }
}

/** Operations on a namespace of the model's; without a table until the first service, if `table` is left out. */
export function modelOperations(options: { table?: ModelTable; interfaces?: readonly string[] } = {}): Operations {
  let table = options.table
  return {
    openTable: ({ create }) => {
      if (create) table ??= new ModelTable()
      return table
    },
    unload: () => {
      const had = table !== undefined
      table = undefined
      return had
    },
    hooks: () => [{ ifindex: 2, interface: 'eth0', hook: 'tcx/ingress', mode: 'link' }],
    verdicts: () => [{ name: 'NO_SERVER', count: 3n }],
    check: () => [],
    kernelPorts: () => [{ what: 'net.ipv4.ip_local_port_range', first: 32768, last: 60999 }],
    markRules: modelMarkRules(),
    syncDaemons: new ModelSyncDaemons(options.interfaces ?? []),
    persistenceEngines: ['sip'],
  }
}
