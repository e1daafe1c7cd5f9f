/** Finding one connection, or template, by its name, and having the programs end it. */
import { LbConnArray, LbConnFlag, type LbEnded, type LbEndHow, LbFwd, LbTemplate } from '../abi/generated.ts'
import { writeAddress } from '../model/address.ts'
import type { ConnectionKey, ConnectionView } from '../model/types.ts'
import { currentTick, readConnection } from './connections.ts'
import { protocolNumber } from './names.ts'
import type { TableMaps } from './table-maps.ts'

/** A connection as it was read. */
export interface FoundConnection {
  /** Of its entry. */
  readonly index: number
  readonly entry: LbConnArray
  readonly view: ConnectionView
}

const { size } = LbConnArray
const WORDS = size / 4
/** Words of both addresses and both ports. */
const ENDS = LbConnArray.at.proto / 4

/** The connection of this name, if it has not expired; not a template that leads nobody anywhere any more. */
export function findConnection(maps: TableMaps, key: ConnectionKey): FoundConnection | undefined {
  const { conns, connPools } = maps
  const wanted = encodeKey(key)
  const tick = currentTick(maps)
  const end = Math.min(connPools.high(0), conns.length)
  for (let index = 0; index < end; index++) {
    if (!matches(conns, index, wanted) || conns.fwd(index) === LbFwd.FWD_RETURN) continue
    const entry = new LbConnArray(new ArrayBuffer(size))
    const view = readConnection(maps, index, tick, entry)
    if (view === undefined || !matches(entry, 0, wanted)) continue
    if ((entry.flags(0) & LbConnFlag.CONN_VOID) === 0) return { index, entry, view }
  }
  return undefined
}

/** Has lb_end do with it what `how` says, if it is as it was read still; what it did. NATIVE. */
export function endConnection(maps: TableMaps, { index, entry }: FoundConnection, how: LbEndHow): LbEnded {
  const wish = new Uint8Array(8 + size)
  new Uint32Array(wish.buffer, 0, 2).set([index, how])
  wish.set(entry.u8, 8)
  return maps.handles.endConnection(wish) as LbEnded
}

function encodeKey({ family, protocol, client, virtual, template }: ConnectionKey): LbConnArray {
  const wanted = new LbConnArray(new ArrayBuffer(size))
  writeAddress(wanted.u8, LbConnArray.at.caddr, client.address, family)
  writeAddress(wanted.u8, LbConnArray.at.vaddr, virtual.address, family)
  wanted.setCport(0, client.port)
  wanted.setVport(0, virtual.port)
  const number = protocol === 'ip' ? 0 : protocolNumber(protocol)
  wanted.setProto(0, template === true ? number | LbTemplate.TEMPLATE : number)
  wanted.setAf(0, family)
  return wanted
}

function matches(conns: LbConnArray, index: number, wanted: LbConnArray): boolean {
  for (let w = 0; w < ENDS; w++) if (conns.u32[index * WORDS + w] !== wanted.u32[w]) return false
  return conns.proto(index) === wanted.proto(0) && conns.af(index) === wanted.af(0)
}
