/** Nodes that send clients' packets on to each other in tunnels (lb_peers). */
import { LbPeer } from '../abi/generated.ts'
import { ADDRESS_BYTES, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Family } from '../model/types.ts'
import type { PeerRecord } from '../native/peer-map.ts'
import { updateFeatures } from './features.ts'
import type { TableMaps } from './table-maps.ts'

/** A node's address. */
export interface PeerAddress {
  readonly family: Family
  readonly address: string
}

/** Addresses that tunnels between nodes begin and end at. */
export interface Peers {
  /** This node's. */
  readonly own: readonly PeerAddress[]
  /** Those of nodes whose tunnels are taken. */
  readonly others: readonly PeerAddress[]
}

const mapped = 12 /* an IPv4 address is mapped into IPv6: the last four bytes */

/** True if that changed anything. INVALID, NATIVE. The table's lock is held. */
export function writePeers(maps: TableMaps, { own, others }: Peers): boolean {
  const records = new Map<string, PeerRecord>()
  const add = (kind: number) => (peer: PeerAddress) => {
    const key = keyOf(peer)
    records.set(Buffer.from(key).toString('latin1'), { key, kind })
  }
  others.forEach(add(LbPeer.PEER_OTHER))
  own.forEach(add(LbPeer.PEER_OWN))
  const changed = maps.handles.setPeers([...records.values()])
  if (maps.config.peers(0) === others.length) return changed
  maps.config.setPeers(0, others.length)
  updateFeatures(maps)
  return true
}

function keyOf({ family, address }: PeerAddress): Uint8Array {
  const key = new Uint8Array(ADDRESS_BYTES)
  if (writeAddress(key, family === 4 ? mapped : 0, address, family)) {
    if (family === 4) key.fill(0xff, mapped - 2, mapped)
    return key
  }
  throw new LbError('INVALID', undefined, { what: 'address of a node', value: address })
}
