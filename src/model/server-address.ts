/** Which addresses a server may have. Pure. */
import type { Family } from './types.ts'

/** How a packet to an address would be routed; undefined: not at all, or in no way that matters here. */
export type RouteType = 'unicast' | 'local' | 'broadcast' | 'multicast' | undefined

/** Whether an address, 4 or 16 bytes by family, is one host's, whatever the routes are: not unspecified, not a group's. */
export function isUnicast(family: Family, bytes: Uint8Array): boolean {
  const [first = 0] = bytes
  if (bytes.every((byte) => byte === 0)) return false
  return family === 4 ? first >> 4 !== 14 && !bytes.every((byte) => byte === 255) : first !== 255
}

/**
 * As ip_vs_new_dest() decides: no broadcast address of one of the host's networks, no group; over IPv6 none that is
 * link-local or an IPv4 address, unless it is the host's own. `route` is asked only where it matters.
 */
export function canBeServer(family: Family, bytes: Uint8Array, route: () => RouteType): boolean {
  if (!isUnicast(family, bytes)) return false
  if (family === 4) {
    const type = route()
    return type !== 'broadcast' && type !== 'multicast'
  }
  const [first = 0, second = 0] = bytes
  const isLinkLocal = first === 0xfe && second >> 6 === 2
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255
  return !(isLinkLocal || isMapped) || route() === 'local'
}
