/** Do services, their lists, their servers and the book agree? */
import { LbSched, LbServerFlag, LbServiceFlag } from '../abi/generated.ts'
import { isTableRight } from '../maps/hash-tables.ts'
import { readList, summarizeWeights } from '../maps/lists.ts'
import type { ServerList } from '../maps/lists.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { checkAudience } from './check-audience.ts'
import { listedServices } from './views.ts'

/** Violations among services, lists, and the counts of services. */
export function checkServices(maps: TableMaps): string[] {
  const { book, services, cells } = maps
  const found: string[] = []
  let live = 0
  for (const id of listedServices(maps)) {
    if (!maps.isForInsiders(id)) live++
    const cell = services.list(id)
    if (services.af(id) === 0) found.push(`service ${id} has a list and no family`)
    if (cell >= cells.length || cells.listService(cell) !== id) {
      found.push(`service ${id}: cell ${cell} is not the head of its list`)
      continue
    }
    found.push(...checkList(maps, id, cell), ...checkCursor(maps, id, cell), ...checkAudience(maps, id))
  }
  if (live !== book.services(0)) found.push(`${live} services are in force, lb_book says ${book.services(0)}`)
  return [...found, ...checkFreeServices(maps)]
}

function checkList(maps: TableMaps, id: number, cell: number): string[] {
  const { cells, services } = maps
  const found: string[] = []
  const list = readList(cells, cell)
  const { gcd, maxWeight, total } = summarizeWeights(list.weights)
  const numbers = [
    ['gcd', cells.listGcd(cell), gcd],
    ['max_weight', cells.listMaxWeight(cell), maxWeight],
    ['total_weight', cells.listTotalWeight(cell), total],
    ['flags', cells.listFlags(cell), services.flags(id) & ~LbServiceFlag.SERVICE_INSIDERS],
  ] as const
  for (const [what, is, due] of numbers) {
    if (is !== due) found.push(`service ${id}: ${what} of its list is ${is}, not ${due}`)
  }
  found.push(...checkListed(maps, id, list))
  /* What is wrong with its servers is wrong with the table too. */
  if (found.length === 0 && !isTableRight(maps, cell))
    found.push(`service ${id}: its table is not what its servers say`)
  return found
}

function checkListed(maps: TableMaps, service: number, list: ServerList): string[] {
  const { servers } = maps
  return list.ids.flatMap((id, i) => {
    const rank = list.ids.length - 1 - i
    const where = `server ${id} in the list of service ${service}`
    if (id === 0 || id >= maps.serverMax || servers.af(id) === 0) return [`${where} is none`]
    if (servers.service(id) !== service) return [`${where} names service ${servers.service(id)}`]
    if ((servers.flags(id) & LbServerFlag.SERVER_AVAILABLE) === 0) return [`${where} is not available`]
    if (servers.rank(id) !== rank) return [`${where} has rank ${servers.rank(id)}, not ${rank}`]
    if (servers.weight(id) !== list.weights[i])
      return [`${where} has weight ${servers.weight(id)}, not ${list.weights[i]}`]
    return []
  })
}

/** The cursor is on a server of the service, perhaps one just removed. */
function checkCursor(maps: TableMaps, id: number, cell: number): string[] {
  const cursor = maps.serviceStates.cursor(id)
  const scheduler = maps.cells.listSched(cell)
  const server = Number(scheduler === LbSched.SCHED_WRR ? cursor >> 32n : cursor)
  if ((scheduler !== LbSched.SCHED_WRR && scheduler !== LbSched.SCHED_RR) || server === 0) return []
  if (server < maps.serverMax && maps.servers.service(server) === id) return []
  return [`service ${id}: its cursor is on server ${server}, which is not its own`]
}

function checkFreeServices(maps: TableMaps): string[] {
  const { book, services } = maps
  const found: string[] = []
  const free = new Set<number>()
  for (const head of [book.serviceFree(0), book.serviceRetired(0)]) {
    for (let id = head; id !== 0; id = services.next(id)) {
      if (free.has(id) || id >= book.serviceHigh(0)) {
        return [...found, `free service ${id} is twice in a list, or was never given out`]
      }
      free.add(id)
      if (services.af(id) !== 0) found.push(`service ${id} is free and has a family`)
    }
  }
  for (let id = 1; id < book.serviceHigh(0); id++) {
    if (free.has(id) || maps.isVip(id)) continue
    if (services.list(id) !== 0) continue
    const ofInsiders = maps.isForInsiders(id) || services.pair(id) === 0
    if (services.af(id) === 0 || (services.next(id) === 0 && ofInsiders)) found.push(`service ${id} is lost`)
  }
  return found
}

/** Violations among servers: each is in one list, in its service's chain of removed ones, or free. */
export function checkServers(maps: TableMaps): string[] {
  const { book, services } = maps
  const uses = new Map<number, string>()
  const found: string[] = []
  const note = (id: number, use: string): boolean => {
    const known = uses.get(id)
    if (known !== undefined) found.push(`server ${id} is ${known} and ${use}`)
    uses.set(id, use)
    return known === undefined && id < maps.serverMax
  }
  let listed = 0
  for (const service of listedServices(maps)) {
    for (const id of readList(maps.cells, services.list(service)).ids) {
      if (note(id, `listed by service ${service}`)) listed++
    }
  }
  const trashed = checkTrash(maps, note, found)
  for (let id = book.serverFree(0); id !== 0 && note(id, 'free'); id = maps.servers.next(id)) checkFree(maps, id, found)
  for (let id = 1; id < book.serverHigh(0); id++) if (!uses.has(id)) found.push(`server ${id} is lost`)
  if (listed !== book.servers(0)) found.push(`${listed} servers are in lists, lb_book says ${book.servers(0)}`)
  if (trashed !== book.trashed(0)) found.push(`${trashed} removed servers are kept, lb_book says ${book.trashed(0)}`)
  return found
}

function checkTrash(maps: TableMaps, note: (id: number, use: string) => boolean, found: string[]): number {
  const { book, servers, services } = maps
  let trashed = 0
  for (let service = 1; service < book.serviceHigh(0); service++) {
    if (services.af(service) === 0) continue
    const use = `removed from service ${service}`
    for (let id = services.next(service); id !== 0 && note(id, use); id = servers.next(id)) {
      trashed++
      if (servers.service(id) !== service) {
        found.push(`removed server ${id} is kept by service ${service}, and names ${servers.service(id)}`)
      }
      if ((servers.flags(id) & LbServerFlag.SERVER_AVAILABLE) !== 0) found.push(`removed server ${id} is available`)
    }
  }
  return trashed
}

function checkFree(maps: TableMaps, id: number, found: string[]): void {
  if (maps.servers.af(id) !== 0) found.push(`server ${id} is free and has a family`)
  if (maps.isReferenced(id)) found.push(`server ${id} is free and connections refer to it`)
  for (let lane = 0; lane < maps.lanes; lane++) {
    if (maps.stats.conns(lane * maps.serverMax + id) !== 0n) {
      found.push(`server ${id} is free and has counters in lane ${lane}`)
    }
  }
}
