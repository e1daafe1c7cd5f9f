/** Keeps the programs on the interfaces that the policy names, as these come and go. */
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import type { AttachPolicy, Host, Timers } from './ports.ts'

export interface InterfaceKeeperOptions {
  readonly host: Host
  readonly policy: AttachPolicy
  readonly log: Log
  readonly timers: Timers
  /** After every pass. */
  readonly onPass?: () => void
}

/** A new container brings a dozen events at once. */
const gatherMs = 5
const firstRetryMs = 1000
const lastRetryMs = 60_000

export class InterfaceKeeper {
  readonly #options: InterfaceKeeperOptions
  readonly #failures = new News<{ readonly interface?: string; readonly err: unknown }>()
  #monitor: { close(): void } | undefined
  #next: { cancel(): void } | undefined
  #gathering = false
  #retryMs = firstRetryMs

  constructor(options: InterfaceKeeperOptions) {
    this.#options = options
  }

  /** Attaches now and follows. Without a monitor it still attaches, and says so. */
  start(): void {
    const { host, log } = this.#options
    this.#monitor = host.onLinkChange(
      () => this.#gather(),
      (err) => log.error({ err }, 'interfaces are no longer followed'),
    )
    this.attach()
  }

  /** One pass over the interfaces. What fails is reported once and tried again, later and later. */
  attach(): void {
    this.#next?.cancel()
    this.#next = undefined
    this.#gathering = false
    const { host, policy, log } = this.#options
    const failures: { readonly interface?: string; readonly err: unknown }[] = []
    try {
      const { attached, detached, failed } = host.attachInterfaces(policy)
      for (const fields of attached) log.info(fields, 'attached')
      for (const ifindex of detached) log.info({ ifindex }, 'detached')
      for (const failure of failed) failures.push({ interface: failure.interface, err: failure.error })
    } catch (err) {
      failures.push({ err })
    }
    const text = (err: unknown): string => (err instanceof Error ? err.message : String(err))
    const news = this.#failures.update(failures.map((each) => [`${each.interface ?? ''} ${text(each.err)}`, each]))
    for (const fields of news.found) log.error(fields, 'interface not attached')
    this.#options.onPass?.()
    if (failures.length === 0) {
      this.#retryMs = firstRetryMs
      return
    }
    this.#next = this.#options.timers.after(this.#retryMs, () => this.attach())
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs)
  }

  close(): void {
    this.#monitor?.close()
    this.#next?.cancel()
  }

  /** A pass soon; events that come until then are part of it. */
  #gather(): void {
    if (this.#gathering) return
    this.#gathering = true
    this.#next?.cancel()
    this.#next = this.#options.timers.after(gatherMs, () => this.attach())
  }
}
