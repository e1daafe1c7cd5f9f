/** Do lists lead insiders to services that are theirs, and are the intervals of who may come in order? */
import { readAudience } from '../maps/audience.ts'
import { unpackIntervals } from '../maps/intervals.ts'
import { serviceFamily } from '../maps/names.ts'
import { insidersConfig, readServiceConfig, sameServiceConfig } from '../maps/records.ts'
import type { TableMaps } from '../maps/table-maps.ts'

/** Violations of one service that has a list; of insiders' too. */
export function checkAudience(maps: TableMaps, id: number): string[] {
  const { services, cells } = maps
  const insiders = readAudience(cells, services.list(id))?.insiders ?? 0
  if (!maps.isForInsiders(id)) return [...checkInsiders(maps, id, insiders), ...checkAllowed(maps, id)]
  const pair = services.pair(id)
  const leads = pair !== 0 && services.list(pair) !== 0 && readAudience(cells, services.list(pair))?.insiders === id
  const found = leads ? [] : [`service ${id} is for insiders and nothing leads there`]
  if (readAudience(cells, services.list(id)) !== undefined)
    found.push(`service ${id} is for insiders and has an audience`)
  return found
}

function checkInsiders(maps: TableMaps, id: number, insiders: number): string[] {
  const { services } = maps
  if (insiders === 0) return []
  const where = `service ${id}: service ${insiders} of its insiders`
  if (insiders >= maps.serviceMax || services.list(insiders) === 0 || !maps.isForInsiders(insiders)) {
    return [`${where} is none`]
  }
  const found: string[] = []
  if (services.pair(id) !== insiders || services.pair(insiders) !== id) found.push(`${where} is not known as such`)
  if (maps.serviceName(insiders) !== maps.serviceName(id)) found.push(`${where} has another name`)
  const due = insidersConfig(readServiceConfig(maps, id))
  if (!sameServiceConfig(readServiceConfig(maps, insiders), due)) found.push(`${where} is configured otherwise`)
  return found
}

function checkAllowed(maps: TableMaps, id: number): string[] {
  const { allowed } = readServiceConfig(maps, id)
  const intervals = unpackIntervals(allowed, serviceFamily(maps.serviceName(id)))
  const wrong = intervals.findIndex(({ first, last }, i) => {
    const before = intervals[i - 1]
    return first > last || (before !== undefined && first <= before.last + 1n)
  })
  return wrong < 0 ? [] : [`service ${id}: interval ${wrong} of who may come is not in order`]
}
