/** Does every name lead to its service, has every address with services its VIP record, and does the filter let its packets through? */
import { computeFilter, filterWords } from '../maps/filter.ts'
import { findService, readSlot, serviceSpots, slotCount } from '../maps/service-index.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { countVips, vipRecords } from '../maps/vips.ts'
import { liveServices } from './views.ts'

/** Violations among the slots of the index and the services they name. */
export function checkIndex(maps: TableMaps): string[] {
  return [...checkNames(maps), ...checkSlots(maps), ...checkVips(maps)]
}

/** Each address that has services has one record, with their number; no other has. */
function checkVips(maps: TableMaps): string[] {
  const found: string[] = []
  const due = countVips(maps, liveServices(maps))
  const ids = [...vipRecords(maps)]
  const names = ids.map((id) => maps.serviceName(id))
  const spots = serviceSpots(maps.handles, names)
  for (const [i, id] of ids.entries()) {
    const name = names[i] ?? ''
    const spot = spots[i]
    const entry = spot === undefined ? undefined : findService(maps, name, spot)
    const count = due.get(name) ?? 0
    due.delete(name)
    if (entry?.id !== id || !entry.live) found.push(`packets do not find VIP record ${id}`)
    if (maps.services.list(id) !== 0) found.push(`VIP record ${id} has a list`)
    if (maps.services.fwmark(id) !== count) {
      found.push(`VIP record ${id} counts ${maps.services.fwmark(id)} services, not ${count}`)
    }
  }
  if (due.size > 0) found.push(`${due.size} addresses have services and no VIP record`)
  return found
}

function checkNames(maps: TableMaps): string[] {
  const found: string[] = []
  const ids = [...liveServices(maps)]
  const names = ids.map((id) => maps.serviceName(id))
  const spots = serviceSpots(maps.handles, names)
  for (const [i, id] of ids.entries()) {
    const spot = spots[i]
    const entry = spot === undefined ? undefined : findService(maps, names[i] ?? '', spot)
    if (entry === undefined) found.push(`service ${id} is not in the index`)
    else if (entry.id !== id) found.push(`service ${id}: its name leads to service ${entry.id}`)
    else if (!entry.live) found.push(`service ${id}: packets do not find it`)
  }
  return found
}

function checkSlots(maps: TableMaps): string[] {
  const found: string[] = []
  const seen = new Map<number, number>()
  for (let slot = 0; slot < slotCount(maps); slot++) {
    const { tag, id } = readSlot(maps, slot)
    if (id === 0) {
      if (tag !== 0) found.push(`slot ${slot} has tag ${tag} and no service`)
      continue
    }
    if (id >= maps.book.serviceHigh(0) || maps.services.af(id) === 0) {
      found.push(`slot ${slot} names service ${id}, which is none`)
      continue
    }
    if (seen.has(id)) found.push(`slots ${seen.get(id)} and ${slot} both name service ${id}`)
    seen.set(id, slot)
    const live = maps.services.list(id) !== 0 || maps.isVip(id)
    if (live !== ((tag & 1) !== 0)) {
      found.push(`slot ${slot}: service ${id} is ${live ? 'in force' : 'deleted'}, its tag says otherwise`)
    }
  }
  return found
}

/** Bits that are missing. */
export function checkFilter(maps: TableMaps): string[] {
  const words = filterWords(maps)
  const missing = computeFilter(maps).findIndex((word, i) => (word & ~(words[i] ?? 0)) !== 0)
  return missing < 0 ? [] : [`word ${missing} of the filter lacks a bit: packets of ours would be passed by`]
}
