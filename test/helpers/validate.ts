/** A strict judge of frames: what a careful receiver accepts as a whole TCP, UDP or ICMP packet. */
import { crc32c, etherTypes, extensions, onesSum, protocols, pseudoHeader } from './packet.ts'

interface Carried {
  readonly family: 4 | 6
  readonly protocol: number
  readonly from: Uint8Array
  readonly to: Uint8Array
  readonly at: number
  readonly end: number
  /** Of a datagram that was cut: there is no more of the transport than that. */
  readonly fragment?: 'first' | 'later'
}

function fragmentOf(offset: number, more: boolean): Pick<Carried, 'fragment'> {
  if (offset > 0) return { fragment: 'later' }
  return more ? { fragment: 'first' } : {}
}

const extensionTypes: ReadonlySet<number> = new Set(Object.values(extensions))

function readIpv4(bytes: Uint8Array, view: DataView): Carried | string {
  const room = bytes.length - 14
  if (room < 20) return 'too short for an IPv4 header'
  const first = view.getUint8(14)
  const [size, length] = [(first & 15) * 4, view.getUint16(16)]
  if (first >> 4 !== 4) return 'IPv4 version'
  if (size < 20 || size > room) return 'IPv4 header length'
  if (length < size || length > room) return 'IPv4 total length'
  if (onesSum(bytes.subarray(14, 14 + size)) !== 0xffff) return 'IPv4 header checksum'
  const [from, to] = [bytes.subarray(26, 30), bytes.subarray(30, 34)]
  const word = view.getUint16(20)
  const fragment = fragmentOf(word & 0x1fff, (word & 0x2000) !== 0)
  return { family: 4, protocol: view.getUint8(23), from, to, at: 14 + size, end: 14 + length, ...fragment }
}

function readIpv6(bytes: Uint8Array, view: DataView): Carried | string {
  const room = bytes.length - 14
  if (room < 40) return 'too short for an IPv6 header'
  if (view.getUint8(14) >> 4 !== 6) return 'IPv6 version'
  const length = view.getUint16(18)
  if (length > room - 40) return 'IPv6 payload length'
  const [from, to] = [bytes.subarray(22, 38), bytes.subarray(38, 54)]
  const carried = { family: 6, from, to, end: 54 + length } as const
  let [protocol, at] = [view.getUint8(20), 54]
  while (extensionTypes.has(protocol)) {
    if (at + 8 > bytes.length) return 'an extension header that ends early'
    const fragment = protocol === extensions.fragment ? view.getUint16(at + 2) : 0
    const words = view.getUint8(at + 1)
    const next = view.getUint8(at)
    if (protocol === extensions.fragment) at += 8
    else at += protocol === extensions.authentication ? (words + 2) * 4 : (words + 1) * 8
    protocol = next
    if (fragment !== 0) return { ...carried, protocol, at, ...fragmentOf(fragment >> 3, (fragment & 1) !== 0) }
  }
  return { ...carried, protocol, at }
}

function badTcp(view: DataView, { at, end }: Carried): string | undefined {
  if (end - at < 20) return 'too short for a TCP header'
  const size = (view.getUint8(at + 12) >> 4) * 4
  return size < 20 || size > end - at ? 'TCP header length' : undefined
}

function badUdp(view: DataView, { at, end, fragment }: Carried): string | undefined {
  if (end - at < 8) return 'too short for a UDP header'
  const length = view.getUint16(at + 4)
  return length < 8 || (length > end - at && fragment === undefined) ? 'UDP length' : undefined
}

function readNetwork(bytes: Uint8Array): Carried | string {
  if (bytes.length < 14) return 'too short for Ethernet'
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const type = view.getUint16(12)
  if (type === etherTypes.ipv4) return readIpv4(bytes, view)
  return type === etherTypes.ipv6 ? readIpv6(bytes, view) : 'no IP'
}

/**
 * Why a frame is no valid packet that a balancer may forward; undefined for one that is. Lengths, versions and the IPv4
 * header checksum count; of a fragment what is there of it; transport checksums are the receiver's business, and that of transportChecksumHolds().
 */
export function invalid(bytes: Uint8Array): string | undefined {
  const ip = readNetwork(bytes)
  if (typeof ip === 'string') return ip
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  if (ip.fragment === 'later') return ip.end < ip.at ? 'too short for its headers' : undefined
  if (ip.protocol === protocols.tcp) return badTcp(view, ip)
  if (ip.protocol === protocols.udp) return badUdp(view, ip)
  if (ip.protocol === protocols.sctp) return ip.end - ip.at < 12 ? 'too short for an SCTP header' : undefined
  if (ip.protocol === (ip.family === 4 ? protocols.icmp : protocols.icmp6)) {
    return ip.end - ip.at < 8 ? 'too short for an ICMP header' : undefined
  }
  return `protocol ${ip.protocol}`
}

/** The same of a frame in a tunnel, whose own transport is none of invalid()'s. */
export function invalidTunnel(bytes: Uint8Array): string | undefined {
  const ip = readNetwork(bytes)
  return typeof ip === 'string' ? ip : undefined
}

/** Whether the transport checksum of a valid frame is right, or absent where it may be. */
export function transportChecksumHolds(bytes: Uint8Array): boolean {
  const ip = readNetwork(bytes)
  if (typeof ip === 'string' || ip.fragment !== undefined) return false
  const { family, protocol, at } = ip
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let end = ip.end
  if (protocol === protocols.udp) {
    if (view.getUint16(at + 6) === 0) return family === 4
    end = at + view.getUint16(at + 4)
  }
  const body = bytes.subarray(at, end)
  if (protocol === protocols.sctp) {
    const zeroed = body.slice()
    zeroed.fill(0, 8, 12)
    return crc32c(zeroed) === view.getUint32(at + 8, true)
  }
  if (protocol === protocols.icmp) return onesSum(body) === 0xffff
  return onesSum(pseudoHeader(ip.from, ip.to, protocol, body.length), body) === 0xffff
}
