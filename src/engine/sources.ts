/** What the programs have to be told of this host's own addresses: from which it sends to servers in tunnels. */
import { LbFwd } from '../abi/generated.ts'
import { serverAddress, serverFamily, type ServerName } from '../maps/names.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import type { TunnelEnd } from '../native/sources.ts'

/** A server that is wanted. */
interface Wanted {
  readonly name: ServerName
  readonly config: { readonly method: number }
}

/** Tells of servers that packets do not find yet. NATIVE. */
export function tellSources(maps: TableMaps, servers: Iterable<Wanted>): void {
  const ends: TunnelEnd[] = []
  for (const { name, config } of servers) if (config.method === LbFwd.FWD_TUNNEL) ends.push(endOf(name))
  if (ends.length > 0) maps.handles.tellSources(ends, false)
}

/** Tells of all servers in tunnels anew, as addresses and routes are now; removed ones too, that may have connections. NATIVE. */
export function refreshSources(maps: TableMaps): void {
  if (!maps.handles.wantsSources) return
  const ends = new Map<string, TunnelEnd>()
  for (let id = 1; id < maps.book.serverHigh(0); id++) {
    if (maps.servers.af(id) === 0 || maps.servers.fwd(id) !== LbFwd.FWD_TUNNEL) continue
    const end = endOf(maps.serverName(id))
    ends.set(`${end.family} ${end.address.join()}`, end)
  }
  if (ends.size > 0) maps.handles.tellSources([...ends.values()], true)
}

function endOf(name: ServerName): TunnelEnd {
  return { family: serverFamily(name), address: serverAddress(name) }
}
