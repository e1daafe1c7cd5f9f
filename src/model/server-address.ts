/** Which addresses a server may have. Pure. */
import type { Family } from './types.ts'

/** How a packet to an address would be routed; undefined: not at all, or in no way that matters here. */
export type RouteType = 'unicast' | 'local' | 'broadcast' | 'multicast' | undefined

/**
 * Whether an address is one host's, whatever the routes are: not unspecified, not a group's. `bytes`, 4 or 16 by family, are
 * asked for only where the first does not tell.
 */
export function isUnicast(family: Family, first: number, bytes: () => Uint8Array): boolean {
  if (first === 0) return bytes().some((byte) => byte !== 0)
  if (first === 255) return family === 4 && bytes().some((byte) => byte !== 255)
  return family === 6 || first >> 4 !== 14
}

/**
 * As ip_vs_new_dest() decides: no broadcast address of one of the host's networks, no group; over IPv6 none that is
 * link-local or an IPv4 address, unless it is the host's own. `route` is asked only where it matters.
 */
export function canBeServer(family: Family, bytes: Uint8Array, route: () => RouteType): boolean {
  const [first = 0, second = 0] = bytes
  if (!isUnicast(family, first, () => bytes)) return false
  if (family === 4) {
    const type = route()
    return type !== 'broadcast' && type !== 'multicast'
  }
  const isLinkLocal = first === 0xfe && second >> 6 === 2
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255
  return !(isLinkLocal || isMapped) || route() === 'local'
}
