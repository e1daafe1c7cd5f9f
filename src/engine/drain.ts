/**
 * Draining, as kube-proxy's ipvs mode ends a server gracefully: one that its source no longer wants and that TCP connections
 * refer to stays in its service with weight 0, until they have ended or its time is up. All that tells of it is in the table
 * (the weight, the counts, lb_server.removed), so a new process goes on where another one left off.
 */
import { protocolNumber, serviceProtocol, type ServiceName } from '../maps/names.ts'
import type { ServerWant } from '../maps/records.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import type { ActualServer, ActualService, DesiredRecord } from './plan.ts'

/** Ids of the servers that drain, by their service. */
export type Draining = Map<ServiceName, readonly number[]>

const tcp = protocolNumber('tcp')

/** What one moment decides about servers that are no longer wanted. */
export class Drain {
  readonly #maps: TableMaps
  readonly #nowS: number
  readonly #limitS: number
  readonly #kept = new Map<ServiceName, number[]>()

  /** `nowS`: monotonic seconds. `limitS`: how long a server may drain; 0: not at all. */
  constructor(maps: TableMaps, nowS: number, limitS: number) {
    this.#maps = maps
    this.#nowS = nowS
    this.#limitS = limitS
  }

  /** Whether a server that is not wanted stays, to drain. Remembers that it does. */
  keeps({ name }: ActualService, { id }: ActualServer): boolean {
    if (serviceProtocol(name) !== tcp || this.#isOver(id)) return false
    const kept = this.#kept.get(name)
    if (kept === undefined) this.#kept.set(name, [id])
    else kept.push(id)
    return true
  }

  /** Whether a server of these is to drain no longer. */
  isDue(ids: readonly number[]): boolean {
    return ids.some((id) => this.#isOver(id))
  }

  /**
   * After an edit of these services: notes in the table since when servers drain, and that those which came back do not;
   * in `draining`, which do. The table's lock is held.
   */
  settle(services: readonly ActualService[], records: readonly DesiredRecord[], draining: Draining): void {
    const { servers } = this.#maps
    for (const service of services) {
      const { name } = service
      const kept = this.#kept.get(name) ?? []
      if (kept.length > 0) draining.set(name, kept)
      else draining.delete(name)
      for (const id of kept) if (servers.removed(id) === 0) servers.setRemoved(id, this.#nowS)
      const isMarked = ({ id }: ActualServer): boolean => servers.removed(id) !== 0 && !kept.includes(id)
      const marked = service.servers.filter(isMarked)
      const insiders = service.insiders?.filter(isMarked) ?? []
      if (marked.length + insiders.length === 0) continue
      const record = records.find((each) => each.name === name)
      this.#unmark(marked, record?.servers)
      this.#unmark(insiders, record?.insiders)
    }
  }

  #unmark(servers: readonly ActualServer[], wants: readonly ServerWant[] = []): void {
    const wanted = new Set(wants.map(({ name }) => name))
    for (const { id, name } of servers) if (wanted.has(name)) this.#maps.servers.setRemoved(id, 0)
  }

  #isOver(id: number): boolean {
    const { servers, serverStates } = this.#maps
    if (serverStates.active(id) + serverStates.inactive(id) === 0) return true
    const since = servers.removed(id) || this.#nowS
    return this.#nowS - since >= this.#limitS
  }
}
