/**
 * Keeps a table as one source wants it. What the source owns and somebody else changed is put right; what others own
 * is never touched (the table sees to that). What fails is tried again, later and later.
 */
import type { ApplyResult, DesiredChanges, DesiredService } from '../engine/table.ts'
import { serviceText } from '../kube/service-text.ts'
import type { Source } from '../model/types.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import type { TableSize } from '../observe/proxy-metrics.ts'
import { AppliedLog, roundMs } from './applied-log.ts'
import type { ManagedTable, Timers } from './ports.ts'

export interface ReconcilerOptions {
  readonly source: Source
  readonly table: ManagedTable
  readonly log: Log
  readonly timers: Timers
  /** How long a server that is no longer wanted may keep its TCP connections, seconds. */
  readonly drainLimitS: number
  /** What was applied is logged no more often than this; 0: every time. */
  readonly logPauseMs: number
  /** The table is as wanted, but for what failed; after so many milliseconds. */
  readonly onApplied?: (tookMs: number, size: TableSize) => void
}

const nothingNew: DesiredChanges = { added: [], dropped: [] }
const firstRetryMs = 1000
const lastRetryMs = 60_000
/** When a table is full, thousands of services may fail at once. */
const mostReported = 20

type Failure = { readonly service?: string; readonly err: unknown }

export class Reconciler {
  readonly #source: Source
  readonly #log: Log
  readonly #timers: Timers
  readonly #drainLimitS: number
  readonly #onApplied: ReconcilerOptions['onApplied']
  readonly #failures = new News<Failure>()
  readonly #applied: AppliedLog
  #table: ManagedTable
  #desired: readonly DesiredService[] | undefined
  /** How many servers that is. */
  #servers = 0
  /** Generation at which the table was as wanted; undefined: not known to be. */
  #seen: bigint | undefined
  #retry: { cancel(): void } | undefined
  #retryMs = firstRetryMs

  constructor(options: ReconcilerOptions) {
    this.#source = options.source
    this.#table = options.table
    this.#log = options.log
    this.#timers = options.timers
    this.#applied = new AppliedLog(options.log, options.timers, options.logPauseMs)
    this.#drainLimitS = options.drainLimitS
    this.#onApplied = options.onApplied
  }

  /** A new desired state: applied at once. `changes`: how it differs from the last. */
  submit(desired: readonly DesiredService[], changes?: DesiredChanges): void {
    this.#desired = desired
    // To count anew what thousands of services have would take longer than most changes.
    if (changes === undefined) this.#servers = serversOf(desired)
    else this.#servers += serversOf(changes.added) - serversOf(changes.dropped)
    this.#retryMs = firstRetryMs
    this.#apply('applied', changes)
  }

  /**
   * Looks whether somebody else wrote, and if so puts right what is the source's; and whether servers have drained. Before the
   * first submit: nothing.
   */
  check(): void {
    if (this.#desired === undefined) return
    if (this.#table.generation() !== this.#seen) this.#apply('repaired')
    else if (this.#table.hasDrained(this.#source, this.#drainLimitS)) this.#apply('drained', nothingNew)
  }

  /** From now on another table: the one before was unloaded. */
  replaceTable(table: ManagedTable): void {
    this.#table = table
    this.#seen = undefined
    if (this.#desired !== undefined) this.#apply('applied')
  }

  close(): void {
    this.#applied.flush()
    this.#retry?.cancel()
  }

  #apply(what: 'applied' | 'repaired' | 'retried' | 'drained', changes?: DesiredChanges): void {
    const desired = this.#desired
    if (desired === undefined) return
    this.#retry?.cancel()
    this.#retry = undefined
    const started = this.#timers.now()
    try {
      const before = this.#table.generation()
      const result = this.#table.apply(this.#source, desired, changes, this.#drainLimitS)
      this.#note(before, result)
      const tookMs = this.#timers.now() - started
      const size = { services: desired.length, servers: this.#servers, failed: result.failed.length }
      this.#onApplied?.(tookMs, size)
      this.#report(what, size, result, tookMs)
      this.#reportFailures(result.failed.map(({ key, error }) => ({ service: serviceText(key), err: error })))
      if (result.failed.length > 0) this.#retryLater()
    } catch (error) {
      this.#seen = undefined
      this.#reportFailures([{ err: error }])
      this.#retryLater()
    }
  }

  /**
   * Our own edit raises the generation by one (or, if there was nothing to write, perhaps not). By more: somebody else
   * wrote between the two looks, so the next check compares again.
   */
  #note(before: bigint, { added, changed, removed }: ApplyResult): void {
    const after = this.#table.generation()
    const idle = added + changed + removed === 0 && after === before
    this.#seen = idle || after === before + 1n ? after : undefined
  }

  #report(what: string, size: TableSize, result: ApplyResult, tookMs: number): void {
    const { added, changed, removed } = result
    const edits = added + changed + removed
    if (what !== 'applied' && edits === 0) return
    const { services, servers, failed } = size
    const line = { services, servers, added, changed, removed, failed, ms: tookMs }
    if (what === 'repaired') this.#log.warn({ ...line, ms: roundMs(tookMs) }, 'repaired what others changed')
    else this.#applied.say(line)
  }

  #reportFailures(failures: readonly Failure[]): void {
    const text = ({ service = '', err }: Failure): string => `${service} ${err instanceof Error ? err.message : err}`
    const { found, solved } = this.#failures.update(failures.map((failure) => [text(failure), failure]))
    for (const failure of found.slice(0, mostReported)) this.#log.error(failure, 'not programmed')
    const more = found.length - mostReported
    if (more > 0) this.#log.error({ more }, 'not programmed, and more')
    const failing = new Set(failures.map(({ service }) => service))
    const mended = solved.filter(({ service }) => !failing.has(service))
    for (const { service } of mended.slice(0, mostReported)) {
      this.#log.info(service === undefined ? {} : { service }, 'no longer failing')
    }
  }

  #retryLater(): void {
    this.#retry = this.#timers.after(this.#retryMs, () => this.#apply('retried'))
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs)
  }
}

function serversOf(services: readonly DesiredService[]): number {
  return services.reduce((sum, service) => sum + service.servers.length, 0)
}
