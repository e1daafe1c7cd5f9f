/** A daemon's surroundings without a kernel: a table in memory, interfaces by name, time that passes when told to. */
import type { AttachPolicy, Host, ManagedTable, SocketPolicy, TableRoom, Timers } from '../../src/daemon/ports.ts'
import type { ApplyResult, DesiredChanges, DesiredService } from '../../src/engine/table.ts'
import type { IpAddress } from '../../src/kube/address.ts'
import type { HostInterface } from '../../src/kube/local-detection.ts'
import { type PortRange, reservedPorts, type TakenPorts } from '../../src/model/masquerade-ports.ts'
import { serviceText } from '../../src/kube/service-text.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Peers } from '../../src/maps/peers.ts'
import type { NodePortAddresses } from '../../src/maps/node-ports.ts'
import type { PodsKnown } from '../../src/maps/pods.ts'
import type { ServiceRanges } from '../../src/maps/service-ranges.ts'
import { initialSettings, type Settings, type SettingsChange } from '../../src/model/settings.ts'
import type { Prefix, ServiceKey, ServiceView, Source, Timeouts } from '../../src/model/types.ts'
import type { Log } from '../../src/observe/log.ts'

const noCounters = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }

interface Entry {
  readonly source: Source
  readonly want: DesiredService
}

/** Keeps what it is told, by the rules of ReconcilingTable. */
export class FakeTable implements ManagedTable {
  readonly entries = new Map<string, Entry>()
  /** Thrown by the next calls of apply, as long as it is set. */
  broken: Error | undefined
  /** Services that can't be programmed, by serviceText. */
  readonly refused = new Map<string, LbError>()
  /** Called in the middle of apply, before anything is written: another process that is faster. */
  interfere: (() => void) | undefined
  /** Changes of settings, in order. */
  readonly changes: SettingsChange[] = []
  /** Timeouts that were set, in order. */
  readonly timeouts: Timeouts[] = []
  applies = 0
  closed = false
  #generation = 0n

  generation(): bigint {
    return this.#generation
  }

  apply(
    source: Source,
    desired: readonly DesiredService[],
    _changes?: DesiredChanges,
    drainLimitS?: number,
  ): ApplyResult {
    this.applies++
    this.drainLimits.push(drainLimitS)
    this.drained = false
    if (this.broken !== undefined) throw this.broken
    this.interfere?.()
    const result = {
      added: 0,
      changed: 0,
      removed: 0,
      failed: [] as { key: DesiredService['service']['key']; error: LbError }[],
    }
    const wanted = new Set(desired.map(({ service }) => serviceText(service.key)))
    for (const [text, entry] of [...this.entries]) {
      if (entry.source === source && !wanted.has(text) && this.entries.delete(text)) result.removed++
    }
    for (const want of desired) {
      const text = serviceText(want.service.key)
      const there = this.entries.get(text)
      const error =
        there !== undefined && there.source !== source ? new LbError('SERVICE_EXISTS') : this.refused.get(text)
      if (error !== undefined) result.failed.push({ key: want.service.key, error })
      else if (there === undefined) result.added++
      else if (JSON.stringify(there.want) !== JSON.stringify(want)) result.changed++
      if (error === undefined) this.entries.set(text, { source, want })
    }
    this.#generation++
    return result
  }

  /** Limits that servers drained with, in seconds, of every apply. */
  readonly drainLimits: (number | undefined)[] = []
  /** A server has drained since the last apply. */
  drained = false

  hasDrained(): boolean {
    return this.drained
  }

  /** How often it was asked to look at the host's addresses. */
  refreshed = 0

  refreshSources(): void {
    this.refreshed++
  }

  changeSettings(change: SettingsChange): void {
    this.changes.push(change)
    const { masqueradePorts = this.current.masqueradePorts, handover = this.current.handover } = change
    this.current = { ...this.current, handover, ...(masqueradePorts === undefined ? {} : { masqueradePorts }) }
  }

  /** What is in force of settings. */
  current: Settings = { ...initialSettings, masqueradePorts: { first: 1024, last: 29999 } }

  settings(): Settings {
    return this.current
  }

  knowsOthers(): boolean {
    return true
  }

  /** Of every call, in order. */
  readonly nodePortAddresses: NodePortAddresses[] = []
  readonly pods: PodsKnown[] = []
  readonly serviceRanges: ServiceRanges[] = []

  setPods(pods: PodsKnown): void {
    this.pods.push(pods)
  }

  setNodePortAddresses(addresses: NodePortAddresses): void {
    this.nodePortAddresses.push(addresses)
  }

  setServiceRanges(prefixes: readonly Prefix[], known: boolean): void {
    this.serviceRanges.push({ prefixes, known })
  }

  /** Of every call, in order. */
  readonly peers: Peers[] = []

  setPeers(peers: Peers): void {
    this.peers.push(peers)
  }

  setTimeouts(timeouts: Timeouts): void {
    this.timeouts.push(timeouts)
  }

  /** Something that another process writes. */
  edit(change: (entries: Map<string, Entry>) => void): void {
    change(this.entries)
    this.#generation++
  }

  service(key: ServiceKey): ServiceView | undefined {
    return this.services().find((view) => serviceText(view.key) === serviceText(key))
  }

  services(): ServiceView[] {
    return [...this.entries.values()].map(({ source, want }, id) => ({
      ...want.service,
      id,
      source,
      counters: noCounters,
      rates: noCounters,
      servers: want.servers.toReversed().map((server, i) => {
        const counts = { active: 0, inactive: 0, persistent: 0, counters: noCounters, rates: noCounters }
        return { ...server, id: i, ...counts }
      }),
    }))
  }

  close(): void {
    this.closed = true
  }

  /** `TCP 10.96.0.1:80 -> 10.0.0.1:8080, 10.0.0.2:8080`, of one source or all. */
  lines(source?: Source): string[] {
    return [...this.entries]
      .filter(([, entry]) => source === undefined || entry.source === source)
      .map(
        ([text, { want }]) => `${text} -> ${want.servers.map(({ address, port }) => `${address}:${port}`).join(', ')}`,
      )
      .sort()
  }
}

export class FakeHost implements Host {
  table = new FakeTable()
  current = true
  opened = 0
  room: TableRoom | undefined
  policy: AttachPolicy | undefined
  openError: Error | undefined
  interfaces = ['eth0']
  addresses: readonly IpAddress[] = []
  readonly attached = new Set<string>()
  readonly unattachable = new Map<string, LbError>()
  attachError: LbError | undefined
  passes = 0
  following = false
  changed: () => void = () => undefined

  openTable(room: TableRoom, policy: AttachPolicy): FakeTable {
    if (this.openError !== undefined) throw this.openError
    if (!this.current) this.table = new FakeTable()
    this.current = true
    this.opened++
    this.room = room
    this.policy = policy
    return this.table
  }

  tableIsCurrent(): boolean {
    return this.current
  }

  attachInterfaces(): ReturnType<Host['attachInterfaces']> {
    this.passes++
    if (this.attachError !== undefined) throw this.attachError
    const failed = this.interfaces.flatMap((name) => {
      const error = this.unattachable.get(name)
      return error === undefined ? [] : [{ interface: name, error }]
    })
    const fresh = this.interfaces.filter((name) => !this.attached.has(name) && !this.unattachable.has(name))
    for (const name of fresh) this.attached.add(name)
    const gone = [...this.attached].filter((name) => !this.interfaces.includes(name))
    for (const name of gone) this.attached.delete(name)
    return {
      attached: fresh.map((name) => ({ interface: name, hook: 'ingress', kind: 'tcx' })),
      detached: gone.map((_, i) => i + 1),
      failed,
    }
  }

  sockets: SocketPolicy = { scope: 'off', protocols: 'all', leave: [] }
  socketError: Error | undefined
  socketPasses = 0

  balanceSockets(policy: SocketPolicy): boolean {
    this.socketPasses++
    if (this.socketError !== undefined) throw this.socketError
    const changed = JSON.stringify(policy) !== JSON.stringify(this.sockets)
    this.sockets = policy
    return changed
  }

  stuckSockets = 0

  endStuckSockets(): number {
    const ended = this.stuckSockets
    this.stuckSockets = 0
    return ended
  }

  links: readonly HostInterface[] = []

  listInterfaces(): readonly HostInterface[] {
    return this.links
  }

  ports: readonly TakenPorts[] = [{ what: 'net.ipv4.ip_local_port_range', first: 32768, last: 60999 }]

  kernelPorts(): readonly TakenPorts[] {
    return this.ports
  }

  /** The kernel keeps what it is asked to keep, unless this says why not. */
  unreservable: LbError | undefined

  reservePorts(range: PortRange): void {
    if (this.unreservable !== undefined) throw this.unreservable
    this.ports = [...this.ports, { what: reservedPorts, ...range }]
  }

  /** What there is of another proxy; connections that it has left. */
  proxy: readonly string[] = []
  translated = 0
  forgotten = 0

  findProxy(): readonly string[] {
    return this.proxy
  }

  settleTranslated(): number {
    return this.translated
  }

  forgetTranslated(): void {
    this.forgotten++
  }

  localAddresses(): readonly IpAddress[] {
    return this.addresses
  }

  onLinkChange(onChange: () => void): { close(): void } {
    this.changed = onChange
    this.following = true
    return {
      close: () => {
        this.following = false
      },
    }
  }

  unload(): boolean {
    return true
  }
}

/** Time that stands still until `pass` is called; what is due then runs in order. */
export class FakeTimers implements Timers {
  #now = 0
  #waiting: { atMs: number; everyMs: number; run: () => void }[] = []

  now(): number {
    return this.#now
  }

  after(ms: number, run: () => void): { cancel(): void } {
    return this.#add({ atMs: this.#now + ms, everyMs: 0, run })
  }

  every(ms: number, run: () => void): { cancel(): void } {
    return this.#add({ atMs: this.#now + ms, everyMs: ms, run })
  }

  get pending(): number {
    return this.#waiting.length
  }

  pass(ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const next = this.#waiting.filter(({ atMs }) => atMs <= end).sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined) break
      this.#now = Math.max(this.#now, next.atMs)
      if (next.everyMs > 0) next.atMs += next.everyMs
      else this.#remove(next)
      next.run()
    }
    this.#now = Math.max(this.#now, end)
  }

  /** Time passes, but nothing that is due runs meanwhile. */
  skip(ms: number): void {
    this.#now += ms
  }

  #add(timer: { atMs: number; everyMs: number; run: () => void }): { cancel(): void } {
    this.#waiting.push(timer)
    return { cancel: () => this.#remove(timer) }
  }

  #remove(timer: object): void {
    this.#waiting = this.#waiting.filter((each) => each !== timer)
  }
}

/** Keeps what is logged. */
export class FakeLog implements Log {
  readonly lines: { readonly level: string; readonly message: string; readonly fields: Record<string, unknown> }[] = []
  readonly debug = this.#at('debug')
  readonly info = this.#at('info')
  readonly warn = this.#at('warn')
  readonly error = this.#at('error')
  readonly fatal = this.#at('fatal')

  /** Fields of all lines with a message. */
  of(message: string): Record<string, unknown>[] {
    return this.lines.filter((line) => line.message === message).map(({ fields }) => fields)
  }

  #at(level: string): (fields: object, message: string) => void {
    return (fields, message) => {
      this.lines.push({ level, message, fields: { ...fields } })
    }
  }
}
