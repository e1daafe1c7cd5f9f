/** bpvsd: a source of services, one table, the interfaces. Holds no truth of its own: the kernel's table goes on. */
import {
  type KubeProxySettings,
  localDetection,
  masqueradesAll,
  nodeName,
  timeoutsOf,
} from '../config/kube-proxy/settings.ts'
import type { Config } from '../config/schema.ts'
import type { DesiredService } from '../engine/table.ts'
import type { IpAddress } from '../kube/address.ts'
import type { KubeChanges } from '../kube/client/kubernetes-source.ts'
import { annotationEvent, type EventSink, startingEvent } from '../kube/events.ts'
import { NodeContext } from '../kube/node-context.ts'
import type { HealthCheck } from '../kube/observed.ts'
import { serviceText } from '../kube/service-text.ts'
import { SlowStart } from '../kube/slow-start.ts'
import { type Notice, Translator } from '../kube/translator.ts'
import { formatProblem } from '../manifests/problem.ts'
import type { ManifestState, ProblemChanges } from '../manifests/store.ts'
import { parsePortRange } from '../model/masquerade-ports.ts'
import { parseTunable } from '../model/settings.ts'
import type { ServerSpec, ServerView, ServiceKey, ServiceView, Source } from '../model/types.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import { ClusterKeeper } from './cluster.ts'
import { InterfaceKeeper } from './interfaces.ts'
import type { AttachPolicy, Host, ManagedTable, TableRoom, Timers } from './ports.ts'
import { Reconciler, type ReconcilerOptions } from './reconciler.ts'
import { SocketKeeper, socketPolicy } from './sockets.ts'
import type { ProxyStatus } from './status.ts'
import { TakeoverKeeper } from './takeover.ts'

/** Where desired state comes from, as far as the daemon handles it. */
export interface ServiceSource {
  start(): void
  reload(): void
  close(): void
}

/** A source calls either `onState` (manifests) or `onChanges` (Kubernetes). */
export interface SourceCallbacks {
  readonly onState: (state: ManifestState) => void
  readonly onProblems: (changes: ProblemChanges) => void
  readonly onChanges: (changes: KubeChanges) => void
  /** An object cannot be used: its last good version stays in force. */
  readonly onBad: (object: string, reasons: readonly string[]) => void
  /** A kind of object cannot be asked for; undefined: it can again. */
  readonly onTrouble: (kind: string, error: unknown) => void
}

export interface DaemonParts {
  readonly config: Config
  readonly kubeProxy: KubeProxySettings
  readonly host: Host
  readonly log: Log
  readonly timers: Timers
  readonly makeSource: (callbacks: SourceCallbacks) => ServiceSource
  readonly status: ProxyStatus
  /** Services whose ports tell load balancers of this node's endpoints: all that there are. */
  readonly onHealthChecks: (checks: readonly HealthCheck[], addresses: readonly IpAddress[]) => void
  /** Once: the first time that the table has what is wanted. */
  readonly onReady?: () => unknown
  /** Where owners of objects are told something; absent: nowhere. */
  readonly events?: EventSink
}

/** Changes that come in a row are logged in sums, but with the level debug. */
const usualLogPauseMs = 250

/** As kube-proxy sets them: who has a server that drains or is gone begins anew. */
const kubeProxyTunables = [
  ['expire_nodest_conn', 1],
  ['expire_quiescent_template', 1],
] as const

export class Daemon {
  readonly #parts: DaemonParts
  readonly #config: Config
  readonly #kubeProxy: KubeProxySettings
  readonly #host: Host
  readonly #log: Log
  readonly #room: TableRoom
  readonly #policy: AttachPolicy
  readonly #notices = new News<Notice>()
  readonly #trouble = new News<unknown>()
  readonly #interfaces: InterfaceKeeper
  readonly #cluster: ClusterKeeper
  readonly #sockets: SocketKeeper
  readonly #takeover: TakeoverKeeper
  readonly #sourceName: Source
  readonly #source: ServiceSource
  readonly #timers: Timers
  readonly #context: NodeContext
  readonly #translator: Translator
  readonly #slowStart = new SlowStart((key) => {
    const { servers = [], insiders = [] } = this.#table?.service(key) ?? {}
    return [...servers, ...insiders]
  })
  /** The next change of weights. */
  #weights: { cancel(): void } | undefined
  #table: ManagedTable | undefined
  #reconciler: Reconciler | undefined
  #check: { cancel(): void } | undefined
  /** Services that an earlier bpvsd made, of which nothing was said while not everything was known. */
  #kept: readonly DesiredService[] | undefined
  #complete = false
  /** The last submission was what the translator gave: the next differs from it by the translator's changes. */
  #incremental = false
  /** Kinds of objects that cannot be asked for, and why. */
  readonly #away = new Map<string, string>()
  #ready = false
  #asks = false
  /** What the source told before there was a table. */
  #early: (() => void)[] = []

  constructor(parts: DaemonParts) {
    const { config, kubeProxy, host, log, timers, makeSource } = parts
    this.#parts = parts
    this.#config = config
    this.#kubeProxy = kubeProxy
    this.#host = host
    this.#log = log
    this.#timers = timers
    this.#room = { services: config.maxServices, servers: config.maxServers, connections: config.maxConnections }
    this.#policy = { include: config.interfaces, exclude: config.excludeInterfaces, xdp: config.xdp }
    const onPass = (): void => this.#cluster.look()
    this.#interfaces = new InterfaceKeeper({ host, policy: this.#policy, log, timers, onPass })
    this.#sockets = new SocketKeeper(host, socketPolicy(config), log)
    const { takeover: mode, takeoverLimitS: limitS } = config
    const onChange = (on: boolean): void => parts.status.takingOver(on)
    this.#takeover = new TakeoverKeeper({ host, log, timers, mode, limitS, onChange })
    this.#sourceName = config.manifests === undefined ? 'kubernetes' : 'manifest'
    const { configuration } = kubeProxy
    const pods = localDetection(configuration)
    const ports =
      config.masqueradePorts === undefined ? {} : { masqueradePorts: parsePortRange(config.masqueradePorts) }
    this.#cluster = new ClusterKeeper({ host, log, pods, ...ports })
    this.#context = new NodeContext({
      scheduler: config.scheduler,
      nodeName: nodeName(configuration),
      bindAddress: configuration.bindAddress,
      nodePortAddresses: configuration.nodePortAddresses ?? [],
      masqueradeAll: masqueradesAll(configuration),
      pods,
    })
    this.#translator = new Translator(this.#context.options)
    this.#source = makeSource({
      onState: (state) => this.#whenStarted(() => this.#onState(state)),
      onProblems: (changes) => this.#onProblems(changes),
      onChanges: (changes) => this.#whenStarted(() => this.#onChanges(changes)),
      onBad: (object, reasons) => log.error({ object, reasons }, 'bad object'),
      onTrouble: (kind, error) => this.#onTrouble(kind, error),
    })
  }

  /** Starts the source, whose answers take a while: what it tells waits for start(). */
  ask(): void {
    if (this.#asks) return
    this.#asks = true
    this.#source.start()
  }

  /** Opens or makes the table, attaches, asks the source, and follows from then on. Throws if there is no table. */
  start(): void {
    this.#parts.events?.record(startingEvent(nodeName(this.#kubeProxy.configuration)))
    for (const warning of this.#kubeProxy.warnings) this.#log.warn({ warning }, 'configuration')
    this.#cluster.checkPorts()
    this.#table = this.#openTable()
    const source = this.#sourceName
    const onApplied: ReconcilerOptions['onApplied'] = (ms, size) => this.#parts.status.applied(ms, size)
    const { drainLimitS, logLevel } = this.#config
    const logPauseMs = logLevel === 'debug' || logLevel === 'trace' ? 0 : usualLogPauseMs
    const parts = { source, table: this.#table, log: this.#log, timers: this.#timers }
    this.#reconciler = new Reconciler({ ...parts, drainLimitS, logPauseMs, onApplied })
    this.#interfaces.start()
    this.#sockets.start()
    this.#readAddresses()
    for (const tell of this.#early.splice(0)) tell()
    this.ask()
    this.#check = this.#timers.every(this.#config.repairIntervalMs, () => this.#lookAround())
  }

  /** Asks the source for everything anew, and reports all problems again. */
  reload(): void {
    this.#log.info({}, 'reading everything anew')
    this.#notices.forget()
    this.#source.reload()
  }

  /** The namespace and name of the Service that a virtual service is kept as. */
  ownerOf(key: ServiceKey): string | undefined {
    return this.#translator.ownerOf(key)
  }

  /** Lets go of everything and leaves the kernel's table as it is. */
  stop(): void {
    this.#check?.cancel()
    this.#weights?.cancel()
    this.#source.close()
    this.#interfaces.close()
    this.#reconciler?.close()
    this.#table?.close()
  }

  /** The table, with what the configuration says of its settings. */
  #openTable(): ManagedTable {
    const table = this.#host.openTable(this.#room, this.#policy)
    const { bypass, sysctls } = this.#config
    const wanted = sysctls.map(parseTunable).map(({ name, value }) => [name, value] as const)
    const values = [...(this.#sourceName === 'kubernetes' ? kubeProxyTunables : []), ...wanted]
    if (bypass !== undefined || values.length > 0) {
      table.changeSettings({ ...(bypass === undefined ? {} : { bypass }), tunables: Object.fromEntries(values) })
    }
    const timeouts = timeoutsOf(this.#kubeProxy.configuration)
    if (Object.values(timeouts).some((seconds) => seconds > 0)) table.setTimeouts(timeouts)
    this.#cluster.setNetworks(this.#context.podNetworks)
    this.#cluster.setNodePortAddresses(this.#context.options.nodePortAddresses)
    this.#cluster.setTable(table)
    this.#takeover.setTable(table)
    return table
  }

  #whenStarted(tell: () => void): void {
    if (this.#reconciler === undefined) this.#early.push(tell)
    else tell()
  }

  #onState({ objects, complete, files }: ManifestState): void {
    this.#translator.replace(objects)
    this.#parts.status.changed([], [])
    const services = this.#submit(complete)
    this.#sayReady({ services, files, complete })
  }

  #onChanges({ set, removed, node, nodes, serviceCidrs, complete }: KubeChanges): void {
    const { status } = this.#parts
    const changed = [this.#context.setNode(node), this.#context.setNodes(nodes)]
    if (changed.includes(true)) this.#translator.configure(this.#context.options)
    this.#cluster.setNodes(node, nodes)
    this.#cluster.setNetworks(this.#context.podNetworks)
    this.#cluster.setNodePortAddresses(this.#context.options.nodePortAddresses)
    this.#cluster.setServiceCidrs(serviceCidrs)
    status.setNodeEligible(node?.eligible ?? false)
    status.changed(set, removed)
    for (const object of set) this.#translator.set(object)
    for (const id of removed) this.#translator.remove(id)
    const services = this.#submit(complete)
    status.programmed(set)
    if (complete) this.#sayReady({ services, complete })
  }

  /** Has the table brought to what the objects say; returns how many virtual services that is. */
  #submit(complete: boolean): number {
    this.#complete ||= complete
    const translation = this.#translator.take()
    const { notices, healthChecks } = translation
    const { desired, changes } = this.#slowStart.apply(translation, this.#timers.now())
    const { status, onHealthChecks } = this.#parts
    status.translated(translation)
    this.#cluster.note(translation.changes.added)
    onHealthChecks(healthChecks, this.#healthAddresses())
    this.#sayNotices(notices)
    if (!this.#complete) this.#reconciler?.submit(this.#withKept(desired))
    else if (this.#incremental) this.#reconciler?.submit(desired, changes)
    else this.#reconciler?.submit(desired)
    this.#incremental = this.#complete
    this.#awaitWeights()
    return desired.length
  }

  /** What is new of what is not served as its owner may expect. */
  #sayNotices(notices: readonly Notice[]): void {
    const named = notices.map((notice) => [`${notice.object} ${notice.reason}`, notice] as const)
    for (const { object, reason, tell } of this.#notices.update(named).found) {
      this.#log.warn({ object, reason }, 'not served in full')
      if (tell !== undefined)
        this.#parts.events?.record(annotationEvent(tell, `${object}: ${reason}; the default stays in force`))
    }
  }

  /** Weights of new servers rise with time. */
  #awaitWeights(): void {
    this.#weights?.cancel()
    const waitMs = this.#slowStart.dueMs(this.#timers.now())
    this.#weights =
      waitMs === undefined ? undefined : this.#timers.after(Math.ceil(waitMs), () => this.#submit(this.#complete))
  }

  /** Where health checks are served: as node ports are; none: everywhere. */
  #healthAddresses(): readonly IpAddress[] {
    const wanted = this.#kubeProxy.configuration.nodePortAddresses ?? []
    return wanted.length === 0 ? [] : this.#context.options.nodePortAddresses
  }

  #sayReady(fields: object): void {
    if (this.#ready) return
    this.#ready = true
    this.#log.info(fields, 'ready')
    this.#parts.onReady?.()
  }

  /**
   * Until everything is known nothing is taken out of force, not even over a restart: what the table holds from before
   * and nothing has been said of stays.
   */
  #withKept(desired: readonly DesiredService[]): readonly DesiredService[] {
    const first = this.#kept === undefined
    const own = (): readonly DesiredService[] =>
      this.#table
        ?.services()
        .filter((view) => view.source === this.#sourceName)
        .map(asDesired) ?? []
    const wanted = new Set(desired.map(({ service }) => serviceText(service.key)))
    this.#kept = (this.#kept ?? own()).filter(({ service }) => !wanted.has(serviceText(service.key)))
    const { length: services } = this.#kept
    if (first && services > 0) this.#log.warn({ services }, 'services kept from before until everything is known')
    return [...desired, ...this.#kept]
  }

  /** Attempts go on and on: what is wrong is said when it is new. */
  #onTrouble(kind: string, err: unknown): void {
    const text = err instanceof Error ? err.message : String(err)
    if (err === undefined) {
      this.#away.delete(kind)
      this.#log.info({ kind }, 'the API server answers again')
    } else if (this.#away.get(kind) !== text) {
      this.#away.set(kind, text)
      this.#log.error({ kind, err }, 'the API server cannot be followed; what it said stays in force')
    }
  }

  /** Node ports are served on the host's own addresses: true if these have changed. */
  #readAddresses(): boolean {
    if (!this.#context.setAddresses(this.#host.localAddresses())) return false
    this.#translator.configure(this.#context.options)
    this.#cluster.setNodePortAddresses(this.#context.options.nodePortAddresses)
    return true
  }

  #onProblems({ found, solved }: ProblemChanges): void {
    for (const problem of found) this.#log.error({ ...problem, problem: formatProblem(problem) }, 'bad manifest')
    for (const problem of solved) this.#log.info({ problem: formatProblem(problem) }, 'manifest problem solved')
  }

  /** The slow beat: is the table still there, and as we left it? */
  #lookAround(): void {
    try {
      if (!this.#host.tableIsCurrent()) this.#remakeTable()
      if (this.#readAddresses() && this.#ready) this.#submit(this.#complete)
      this.#sockets.look()
      this.#takeover.look()
      this.#reconciler?.check()
      this.#table?.refreshSources()
      this.#trouble.update([])
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error)
      for (const err of this.#trouble.update([[text, error]]).found) this.#log.error({ err }, 'table out of reach')
    }
  }

  #remakeTable(): void {
    this.#log.warn({}, 'table was unloaded by somebody else; making it anew')
    const table = this.#openTable()
    this.#table?.close()
    this.#table = table
    this.#reconciler?.replaceTable(table)
    this.#interfaces.attach()
    this.#sockets.start()
  }
}

/** A table's service as a source would ask for it: servers in the order of their adding, the reverse of the list. */
function asDesired(view: ServiceView): DesiredService {
  const { key, scheduler, schedulerFlags, persistence, onePacket, policy } = view
  const service = {
    key,
    scheduler,
    schedulerFlags,
    onePacket,
    ...(persistence === undefined ? {} : { persistence }),
    ...(policy === undefined ? {} : { policy }),
  }
  const others = view.insiders === undefined ? {} : { insiders: asAdded(view.insiders) }
  return { service, servers: asAdded(view.servers), ...others }
}

function asAdded(views: readonly ServerView[]): ServerSpec[] {
  const servers = views.map(({ family, address, port, weight, method, upper, lower, tunnel }) => {
    return { family, address, port, weight, method, upper, lower, ...(tunnel === undefined ? {} : { tunnel }) }
  })
  return servers.reverse()
}
