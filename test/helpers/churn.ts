/** Restless hands on a table: servers added, removed and given other weights for as long as there is traffic. */
import type { ReconcilingTable } from '../../src/engine/table.ts'
import type { ServerSpec, ServerView, ServiceKey } from '../../src/model/types.ts'
import { service } from './director.ts'
import { seeded } from './table-specs.ts'

export type Edit = 'added' | 'reweighted' | 'drained' | 'revived' | 'removed' | 'rescheduled'

/** One change, as whoever makes it needs to know it. */
export type Change =
  | { readonly edit: 'added' | 'reweighted' | 'drained' | 'revived'; readonly server: ServerSpec }
  | { readonly edit: 'removed'; readonly server: ServerView }
  | { readonly edit: 'rescheduled'; readonly scheduler: 'rr' | 'wrr' | 'lc' | 'wlc' }

/** How many servers with a weight a service keeps. */
const fewest = 2

/** Decides what to change next in one service; it only looks at the table. */
export class Restless {
  readonly key: ServiceKey
  readonly #candidates: readonly ServerSpec[]
  readonly #random: (limit: number) => number
  readonly #banned = new Set<string>()

  constructor(key: ServiceKey, candidates: readonly ServerSpec[], seed: number) {
    this.key = key
    this.#candidates = candidates
    this.#random = seeded(seed)
  }

  /**
   * The next change, or undefined when the one it thought of cannot be made now. A server is drained first, by weight
   * 0, and removed when it has no active connection left.
   */
  next(listed: readonly ServerView[]): Change | undefined {
    const working = listed.filter(({ weight }) => weight > 0)
    const resting = listed.filter(({ weight }) => weight === 0)
    const weight = 1 + this.#random(5)
    switch (this.#random(6)) {
      case 0:
        return this.#add(listed, weight)
      case 1:
        return working.length <= fewest ? undefined : this.#edit('drained', working, 0)
      case 2:
        return this.#random(4) > 0 ? undefined : this.#edit('revived', resting, weight)
      case 3:
      case 4: {
        const idle = this.#pick(resting.filter(({ active }) => active === 0))
        return idle === undefined ? this.#edit('reweighted', working, weight) : { edit: 'removed', server: idle }
      }
      default:
        if (this.#random(4) > 0) return this.#edit('reweighted', working, weight)
        return { edit: 'rescheduled', scheduler: this.#pick(['rr', 'wrr', 'lc', 'wlc'] as const) ?? 'rr' }
    }
  }

  /**
   * A server that works, to be removed without warning; undefined while the service can spare none. It is never added
   * again: with it, its connections would come back to life.
   */
  victim(listed: readonly ServerView[]): ServerView | undefined {
    const working = listed.filter(({ weight }) => weight > 0)
    const victim = working.length <= fewest ? undefined : this.#pick(working)
    if (victim !== undefined) this.#banned.add(victim.address)
    return victim
  }

  #add(listed: readonly ServerView[], weight: number): Change | undefined {
    const missing = this.#candidates.filter(({ address }) => {
      return !this.#banned.has(address) && !listed.some((server) => server.address === address)
    })
    const server = this.#pick(missing)
    return server === undefined ? undefined : { edit: 'added', server: { ...server, weight } }
  }

  #edit(edit: 'reweighted' | 'drained' | 'revived', of: readonly ServerView[], weight: number): Change | undefined {
    const server = this.#pick(of)
    return server === undefined ? undefined : { edit, server: { ...server, weight } }
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[this.#random(items.length)]
  }
}

/** Makes a change through the engine. */
export function applyChange(table: ReconcilingTable, key: ServiceKey, change: Change): void {
  switch (change.edit) {
    case 'added':
      table.addServer(key, change.server)
      break
    case 'removed':
      table.deleteServer(key, change.server)
      break
    case 'rescheduled':
      table.editService(service(key, change.scheduler))
      break
    default:
      table.editServer(key, change.server)
  }
}
