/**
 * Keeps the table told whether another proxy (kube-proxy) has connections on this host. As long as there are its rules, or
 * connections to our services that connection tracking translates, what is of none of our connections may be of one of its.
 */
import type { Config } from '../config/schema.ts'
import type { ServerView, ServiceKey } from '../model/types.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import type { Host, ManagedTable, Timers } from './ports.ts'

/** How often is looked: that reads the other's tables. */
const lookMs = 5000

export interface TakeoverOptions {
  readonly host: Host
  readonly log: Log
  readonly timers: Pick<Timers, 'now'>
  /** on, off: whatever is found. */
  readonly mode: Config['takeover']
  /** How long connections of a proxy that is gone are left alone, seconds. */
  readonly limitS: number
  /** Called when it begins and ends. */
  readonly onChange: (on: boolean) => void
}

export class TakeoverKeeper {
  readonly #options: TakeoverOptions
  readonly #failures = new News<unknown>()
  #table: ManagedTable | undefined
  #lookedAt = -Infinity
  /** Since when nothing but connections is left of the other. */
  #goneAt: number | undefined

  constructor(options: TakeoverOptions) {
    this.#options = options
  }

  /** A table that was opened, before it has any service: what is of none of its connections is left alone from the first on. */
  setTable(table: ManagedTable): void {
    this.#table = table
    this.#lookedAt = -Infinity
    this.#goneAt = undefined
    this.look()
  }

  /** The slow beat. */
  look(): void {
    const { timers } = this.#options
    const table = this.#table
    if (table === undefined || timers.now() - this.#lookedAt < lookMs) return
    this.#lookedAt = timers.now()
    const failures: [string, unknown][] = []
    try {
      this.#decide(table)
    } catch (err) {
      failures.push([err instanceof Error ? err.message : String(err), err])
    }
    for (const err of this.#failures.update(failures).found) {
      this.#options.log.error({ err }, 'cannot see whether there is another proxy')
    }
  }

  #decide(table: ManagedTable): void {
    const { mode, host } = this.#options
    const found = mode === 'auto' ? host.findProxy() : []
    if (mode === 'on' || found.length > 0) {
      this.#goneAt = undefined
      this.#begin(table, found)
    } else if (table.settings().handover !== 'none') this.#leave(table)
  }

  #begin(table: ManagedTable, found: readonly string[]): void {
    if (table.settings().handover === 'from') return
    table.changeSettings({ handover: 'from' })
    this.#options.log.info({ found, datagrams: table.knowsOthers() }, 'taking over from another proxy')
    this.#options.onChange(true)
  }

  /** It is gone; its connections may not be. */
  #leave(table: ManagedTable): void {
    const { mode, host, log, timers, limitS, onChange } = this.#options
    this.#goneAt ??= timers.now()
    const serversOf = (key: ServiceKey): readonly ServerView[] | undefined => {
      const { servers, insiders = [] } = table.service(key) ?? {}
      return servers && [...servers, ...insiders]
    }
    const connections = mode === 'auto' ? host.settleTranslated(serversOf) : 0
    const isOver = connections === 0 || timers.now() - this.#goneAt >= limitS * 1000
    if (!isOver && table.settings().handover === 'from') return
    table.changeSettings({ handover: isOver ? 'none' : 'from' })
    if (!isOver) return
    host.forgetTranslated()
    log.info({ connections }, 'taken over')
    onChange(false)
  }
}
