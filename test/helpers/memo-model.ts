/** What the kernel's lblc and lblcr choose and remember: a judge for the datapath that shares nothing with it. */
import { type Candidate, leastFor, overhead } from './scheduler-model.ts'

/** A server, in its service's list or removed. */
export interface Known extends Candidate {
  upper: number
  listed: boolean
}

/** A service with lblc or lblcr, and where it sent each address. */
export class MemoModel {
  readonly servers: Known[] = []
  readonly #replicates: boolean
  readonly #removed = new Map<string, Known>()
  #memos = new Map<string, Known[]>()

  constructor(scheduler: 'lblc' | 'lblcr') {
    this.#replicates = scheduler === 'lblcr'
  }

  /** A new server comes first; one that was removed comes back as it was, with another weight and threshold. */
  add(name: string, weight: number, upper: number): void {
    const known = this.#removed.get(name) ?? {
      ...{ name, weight, upper, active: 0, inactive: 0, overload: false, listed: true },
    }
    this.#removed.delete(name)
    known.listed = true
    this.edit(known, weight, upper)
    this.servers.unshift(known)
  }

  edit(server: Known, weight: number, upper: number): void {
    const total = server.active + server.inactive
    if (upper !== 0 && total >= upper) server.overload = true
    else if (upper === 0 || total * 4 < upper * 3) server.overload = false
    Object.assign(server, { weight, upper })
  }

  remove(server: Known): void {
    this.servers.splice(this.servers.indexOf(server), 1)
    this.#removed.set(server.name, server)
    server.listed = false
  }

  /** Another scheduler was set, and this one again. */
  forget(): void {
    this.#memos = new Map()
  }

  /** All connections have ended. */
  settle(): void {
    for (const server of [...this.servers, ...this.#removed.values()]) {
      Object.assign(server, { active: 0, inactive: 0, overload: false })
    }
  }

  /** Servers that an address is remembered with, the newest first. */
  set(address: string): readonly Known[] {
    return this.#memos.get(address) ?? []
  }

  /** The server of a new connection, which it has from then on. */
  connect(address: string): Known | undefined {
    const server = this.#choose(address)
    if (server === undefined) return undefined
    server.active++
    if (server.upper > 0 && server.active + server.inactive >= server.upper) server.overload = true
    return server
  }

  #choose(address: string): Known | undefined {
    const set = this.set(address)
    const known = this.#replicates
      ? (leastFor(
          set.filter(({ listed }) => listed),
          overhead,
        ) as Known | undefined)
      : set.find(({ listed, weight }) => listed && weight > 0)
    if (known !== undefined && !this.#isOverloaded(known)) return known
    const least = leastFor(this.servers, overhead) as Known | undefined
    if (least === undefined) return undefined
    if (!this.#replicates) this.#memos.set(address, [least])
    else if (!set.includes(least)) this.#memos.set(address, [least, ...set])
    return least
  }

  #isOverloaded({ active, weight }: Known): boolean {
    return active > weight && this.servers.some((other) => other.active * 2 < other.weight)
  }
}
