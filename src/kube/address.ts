/** IP addresses in Kubernetes objects: checked, and brought to the one text form that the table uses. */
import { isIPv4, isIPv6, SocketAddress } from 'node:net'
import { formatAddress, writeAddress } from '../model/address.ts'
import type { Family, Prefix } from '../model/types.ts'

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

/** Reads a prefix (`10.0.0.0/8`); bits beyond its length are cleared. Undefined for anything else. */
export function parsePrefix(text: string): Prefix | undefined {
  const [, address = '', bits = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? []
  const ip = parseIp(address)
  const length = Number(bits)
  if (ip === undefined || length > (ip.family === 4 ? 32 : 128)) return undefined
  return { family: ip.family, address: formatBits(bitsOf(ip) & maskOf(ip.family, length), ip.family), length }
}

/** Whether an address lies within a prefix. */
export function isWithin(ip: IpAddress, prefix: Prefix): boolean {
  if (ip.family !== prefix.family) return false
  return (bitsOf(ip) & maskOf(ip.family, prefix.length)) === bitsOf(prefix)
}

function maskOf(family: Family, length: number): bigint {
  const width = family === 4 ? 32n : 128n
  return ((1n << BigInt(length)) - 1n) << (width - BigInt(length))
}

function bitsOf({ family, address }: IpAddress): bigint {
  const bytes = new Uint8Array(16)
  writeAddress(bytes, 0, address, family)
  return BigInt(`0x${Buffer.from(bytes.subarray(0, family === 4 ? 4 : 16)).toString('hex')}`)
}

function formatBits(bits: bigint, family: Family): string {
  const bytes = Buffer.from(bits.toString(16).padStart(family === 4 ? 8 : 32, '0'), 'hex')
  return formatAddress(Uint8Array.from(bytes), 0, family)
}
