/** IP addresses in Kubernetes objects: checked, and brought to the one text form that the table uses. */
import { isIPv4, isIPv6, SocketAddress } from 'node:net'
import type { Family } from '../model/types.ts'

/** An address with its family. The text is canonical: dotted quad, or RFC 5952 as inet_ntop writes it. */
export interface IpAddress {
  readonly family: Family
  readonly address: string
}

/** Reads an IPv4 or IPv6 address; undefined for anything else, zones (fe80::1%eth0) and leading zeros included. */
export function parseIp(text: string): IpAddress | undefined {
  if (isIPv4(text)) return { family: 4, address: text }
  if (!isIPv6(text) || text.includes('%')) return undefined
  return { family: 6, address: new SocketAddress({ address: text, family: 'ipv6' }).address }
}

/**
 * Why an address can't be that of an endpoint or a service, as the API server says it; undefined when it can.
 * (An IPv4-mapped IPv6 address is neither family's.)
 */
export function unusableIp(ip: IpAddress): string | undefined {
  if (ip.family === 4) {
    const first = Number.parseInt(ip.address, 10)
    if (ip.address === '0.0.0.0') return 'unspecified'
    if (first === 127) return 'a loopback address'
    if (ip.address.startsWith('169.254.')) return 'a link-local address'
    return first >= 224 ? 'a multicast or reserved address' : undefined
  }
  if (ip.address === '::') return 'unspecified'
  if (ip.address === '::1') return 'a loopback address'
  if (ip.address.startsWith('::ffff:') && ip.address.includes('.')) return 'an IPv4-mapped address'
  const first = Number.parseInt(ip.address, 16)
  if ((first & 0xffc0) === 0xfe80) return 'a link-local address'
  return (first & 0xff00) === 0xff00 ? 'a multicast address' : undefined
}
