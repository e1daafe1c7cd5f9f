/** Which marks of netfilter have to come to the programs: those of services by mark. */
import { namedMark, serviceFamily } from '../maps/names.ts'
import type { ServiceName } from '../maps/names.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import type { Mark } from '../native/steering.ts'
import { liveServices } from './views.ts'

/** Has packets with the marks of all services come, and no others. NATIVE. */
export function steerLive(maps: TableMaps): void {
  maps.handles.steer(Array.from(liveNames(maps), markOf))
}

/** The same with a service by mark that packets do not find yet. */
export function steerAlso(maps: TableMaps, name: ServiceName): void {
  maps.handles.steer(Array.from(liveNames(maps).add(name), markOf))
}

/** Names of services by mark. */
function liveNames(maps: TableMaps): Set<ServiceName> {
  if (maps.book.fwmarkServices(0) === 0) return new Set()
  const names = Array.from(liveServices(maps), (id) => maps.serviceName(id))
  return new Set(names.filter((name) => namedMark(name) !== 0))
}

function markOf(name: ServiceName): Mark {
  return { family: serviceFamily(name), mark: namedMark(name) }
}
