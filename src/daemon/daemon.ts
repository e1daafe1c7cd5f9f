/** bpvsd: a source of manifests, one table, the interfaces. Holds no truth of its own: the kernel's table goes on. */
import type { Config } from '../config/schema.ts'
import type { DesiredService } from '../engine/table.ts'
import { serviceText } from '../kube/service-text.ts'
import { TranslationMemo, translate } from '../kube/translate.ts'
import { formatProblem } from '../manifests/problem.ts'
import type { ManifestState, ProblemChanges } from '../manifests/store.ts'
import { parseTunable } from '../model/settings.ts'
import type { ServiceView } from '../model/types.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import { InterfaceKeeper } from './interfaces.ts'
import type { AttachPolicy, Host, ManagedTable, TableRoom, Timers } from './ports.ts'
import { Reconciler } from './reconciler.ts'

/** Where desired state comes from, as far as the daemon handles it. */
export interface ManifestSource {
  start(): void
  reload(): void
  close(): void
}

export interface SourceCallbacks {
  readonly onState: (state: ManifestState) => void
  readonly onProblems: (changes: ProblemChanges) => void
}

export interface DaemonParts {
  readonly config: Config
  readonly host: Host
  readonly log: Log
  readonly timers: Timers
  readonly makeSource: (callbacks: SourceCallbacks) => ManifestSource
}

const source = 'manifest'

export class Daemon {
  readonly #config: Config
  readonly #host: Host
  readonly #log: Log
  readonly #room: TableRoom
  readonly #policy: AttachPolicy
  readonly #notices = new News<{ readonly object: string; readonly reason: string }>()
  readonly #trouble = new News<unknown>()
  readonly #interfaces: InterfaceKeeper
  readonly #source: ManifestSource
  readonly #timers: Timers
  readonly #memo = new TranslationMemo()
  #table: ManagedTable | undefined
  #reconciler: Reconciler | undefined
  #check: { cancel(): void } | undefined
  /** Services that an earlier bpvsd made, of which the first full read said nothing while it was incomplete. */
  #kept: readonly DesiredService[] = []
  #ready = false

  constructor({ config, host, log, timers, makeSource }: DaemonParts) {
    this.#config = config
    this.#host = host
    this.#log = log
    this.#timers = timers
    this.#room = { services: config.maxServices, servers: config.maxServers, connections: config.maxConnections }
    this.#policy = { include: config.interfaces, exclude: config.excludeInterfaces, xdp: config.xdp }
    this.#interfaces = new InterfaceKeeper({ host, policy: this.#policy, log, timers })
    this.#source = makeSource({
      onState: (state) => this.#onState(state),
      onProblems: (changes) => this.#onProblems(changes),
    })
  }

  /** Opens or makes the table, attaches, reads the manifests, and follows from then on. Throws if there is no table. */
  start(): void {
    this.#table = this.#openTable()
    this.#reconciler = new Reconciler({ source, table: this.#table, log: this.#log, timers: this.#timers })
    this.#interfaces.start()
    this.#source.start()
    this.#check = this.#timers.every(this.#config.repairIntervalMs, () => this.#lookAround())
  }

  /** Reads all manifests anew, and reports all their problems again. */
  reload(): void {
    this.#log.info({}, 'reading all manifests anew')
    this.#notices.forget()
    this.#source.reload()
  }

  /** Lets go of everything and leaves the kernel's table as it is. */
  stop(): void {
    this.#check?.cancel()
    this.#source.close()
    this.#interfaces.close()
    this.#reconciler?.close()
    this.#table?.close()
  }

  /** The table, with what the configuration says of its settings. */
  #openTable(): ManagedTable {
    const table = this.#host.openTable(this.#room, this.#policy)
    const { bypass, sysctls } = this.#config
    const values = sysctls.map(parseTunable).map(({ name, value }) => [name, value])
    if (bypass !== undefined || values.length > 0) {
      table.changeSettings({ ...(bypass === undefined ? {} : { bypass }), tunables: Object.fromEntries(values) })
    }
    return table
  }

  #onState(state: ManifestState): void {
    const { desired, notices } = translate(state.objects, { scheduler: this.#config.scheduler }, this.#memo)
    const named = notices.map((notice) => [`${notice.object} ${notice.reason}`, notice] as const)
    for (const notice of this.#notices.update(named).found) this.#log.warn(notice, 'manifest not served in full')
    this.#reconciler?.submit(this.#withKept(desired, state.complete))
    if (this.#ready) return
    this.#ready = true
    this.#log.info({ services: desired.length, files: state.files, complete: state.complete }, 'ready')
  }

  /**
   * A bad manifest takes nothing out of force, not even over a restart: what the table holds from before and the
   * first, incomplete, read does not mention stays until all manifests are good.
   */
  #withKept(desired: readonly DesiredService[], complete: boolean): readonly DesiredService[] {
    const wanted = new Set(desired.map(({ service }) => serviceText(service.key)))
    const before = this.#kept.length
    if (!this.#ready && !complete) {
      const own = this.#table?.services().filter((view) => view.source === source) ?? []
      this.#kept = own.map(asDesired)
    }
    if (complete) this.#kept = []
    this.#kept = this.#kept.filter(({ service }) => !wanted.has(serviceText(service.key)))
    const { length: services } = this.#kept
    if (services > before) this.#log.warn({ services }, 'services kept from before until all manifests are good')
    return services === 0 ? desired : [...desired, ...this.#kept]
  }

  #onProblems({ found, solved }: ProblemChanges): void {
    for (const problem of found) this.#log.error({ ...problem, problem: formatProblem(problem) }, 'bad manifest')
    for (const problem of solved) this.#log.info({ problem: formatProblem(problem) }, 'manifest problem solved')
  }

  /** The slow beat: is the table still there, and as we left it? */
  #lookAround(): void {
    try {
      if (!this.#host.tableIsCurrent()) this.#remakeTable()
      this.#reconciler?.check()
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
  }
}

/** A table's service as a source would ask for it: servers in the order of their adding, the reverse of the list. */
function asDesired(view: ServiceView): DesiredService {
  const { key, scheduler, schedulerFlags, persistence, onePacket } = view
  const servers = view.servers.map(({ family, address, port, weight, method, upper, lower, tunnel }) => {
    return { family, address, port, weight, method, upper, lower, ...(tunnel === undefined ? {} : { tunnel }) }
  })
  const service = { key, scheduler, schedulerFlags, onePacket, ...(persistence === undefined ? {} : { persistence }) }
  return { service, servers: servers.reverse() }
}
