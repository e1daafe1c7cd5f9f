/** Where node ports are served (lb_config): sockets of the host find them at loopback addresses too, and leave them to services. */
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { TableMaps } from './table-maps.ts'

/** One address of each family that has any. */
export interface NodePortAddresses {
  readonly ipv4?: string | undefined
  readonly ipv6?: string | undefined
}

const unspecified = { ipv4: '0.0.0.0', ipv6: '::' } as const

/** Those in force. */
export function readNodePortAddresses({ config }: TableMaps): NodePortAddresses {
  const ipv4 = formatAddress(config.nodePort4(0), 0, 4)
  const ipv6 = formatAddress(config.nodePort6(0), 0, 6)
  return {
    ...(ipv4 === unspecified.ipv4 ? {} : { ipv4 }),
    ...(ipv6 === unspecified.ipv6 ? {} : { ipv6 }),
  }
}

/** True if that changed anything. INVALID. The table's lock is held. */
export function writeNodePortAddresses(maps: TableMaps, wanted: NodePortAddresses): boolean {
  const before = readNodePortAddresses(maps)
  if (before.ipv4 === wanted.ipv4 && before.ipv6 === wanted.ipv6) return false
  maps.config.setNodePort4(0, bytesOf(wanted.ipv4 ?? unspecified.ipv4, 4))
  maps.config.setNodePort6(0, bytesOf(wanted.ipv6 ?? unspecified.ipv6, 6))
  return true
}

function bytesOf(address: string, family: 4 | 6): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BYTES)
  if (!writeAddress(bytes, 0, address, family))
    throw new LbError('INVALID', `${address}: no IPv${family} address`, { address })
  return bytes
}
