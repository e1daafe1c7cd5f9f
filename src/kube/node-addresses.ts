/** On which of the node's addresses node ports are served. Pure. */
import { type IpAddress, isWithin, parsePrefix } from './address.ts'
import type { KubeNode } from './objects.ts'

/** The word that stands for the node's primary addresses (kube-proxy's nodePortAddresses). */
export const primary = 'primary'

const loopback = parsePrefix('127.0.0.0/8')
const linkLocal = parsePrefix('fe80::/10')

/**
 * One of each family: `bindAddress`, if it is one, else the first of the Node's. A Node that has none, or is not known:
 * none.
 */
export function primaryAddresses(bindAddress: IpAddress | undefined, node: KubeNode | undefined): IpAddress[] {
  const families = [4, 6] as const
  return families.flatMap((family) => {
    const bound = bindAddress?.family === family && !/^(0\.0\.0\.0|::)$/.test(bindAddress.address)
    const found = bound ? bindAddress : node?.addresses.find((ip) => ip.family === family)
    return found === undefined ? [] : [found]
  })
}

/**
 * Of the host's own addresses those that `wanted` names: prefixes, or `primary`; empty: all. Never loopback addresses,
 * nor link-local ones of IPv6.
 */
export function nodePortAddresses(
  wanted: readonly string[],
  own: readonly IpAddress[],
  primaries: readonly IpAddress[],
): readonly IpAddress[] {
  if (wanted.includes(primary)) return primaries
  const prefixes = wanted.map(parsePrefix).filter((prefix) => prefix !== undefined)
  return own.filter((ip) => {
    if (loopback !== undefined && isWithin(ip, loopback)) return false
    if (ip.address === '::1' || (linkLocal !== undefined && isWithin(ip, linkLocal))) return false
    const inFamily = prefixes.filter(({ family }) => family === ip.family)
    return wanted.length === 0 || inFamily.length === 0 ? true : inFamily.some((prefix) => isWithin(ip, prefix))
  })
}
