/** Packets read field by field, for messages and comparisons, and judged by the letter of their standards. */
import { formatAddress } from '../../src/model/address.ts'
import { crc32c, etherTypes, onesSum, protocols, pseudoHeader } from './packet.ts'

/** Fields by "layer.name", in the order of the packet; checksums say whether they are right. */
export type Fields = Record<string, string | number>

interface Reader {
  readonly fields: Fields
  readonly view: DataView
  readonly bytes: Uint8Array
}

function macText(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 6), (byte) => byte.toString(16).padStart(2, '0')).join(':')
}

function addressText(bytes: Uint8Array, at: number, family: 4 | 6): string {
  const padded = new Uint8Array(16)
  padded.set(bytes.subarray(at, at + (family === 4 ? 4 : 16)))
  return formatAddress(padded, 0, family)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

function word(value: number): string {
  return `0x${value.toString(16).padStart(4, '0')}`
}

function judged(value: number, right: boolean): string {
  return `${word(value)} ${right ? 'right' : 'WRONG'}`
}

interface Pseudo {
  readonly from: Uint8Array
  readonly to: Uint8Array
}

/** Whether the sum over pseudo header and transport comes out; needs the whole of it. */
function sumHolds(pseudo: Pseudo, protocol: number, bytes: Uint8Array): boolean {
  return onesSum(pseudoHeader(pseudo.from, pseudo.to, protocol, bytes.length), bytes) === 0xffff
}

const flagLetters = 'FSRPAUEC'

function decodeTcp({ fields, view, bytes }: Reader, at: number, end: number, pseudo: Pseudo, prefix: string): void {
  const put = (name: string, value: string | number) => {
    fields[`${prefix}tcp.${name}`] = value
  }
  const flags = view.getUint8(at + 13)
  put('sport', view.getUint16(at))
  put('dport', view.getUint16(at + 2))
  put('seq', view.getUint32(at + 4))
  put('ack', view.getUint32(at + 8))
  put('header', (view.getUint8(at + 12) >> 4) * 4)
  put('flags', [...flagLetters].filter((_, bit) => (flags & (1 << bit)) !== 0).join(''))
  put('window', view.getUint16(at + 14))
  put('checksum', judged(view.getUint16(at + 16), sumHolds(pseudo, protocols.tcp, bytes.subarray(at, end))))
  put('urgent', view.getUint16(at + 18))
  put('rest', hex(bytes.subarray(at + 20, end)))
}

function decodeUdp({ fields, view, bytes }: Reader, at: number, end: number, pseudo: Pseudo, prefix: string): void {
  const checksum = view.getUint16(at + 6)
  fields[`${prefix}udp.sport`] = view.getUint16(at)
  fields[`${prefix}udp.dport`] = view.getUint16(at + 2)
  fields[`${prefix}udp.length`] = view.getUint16(at + 4)
  fields[`${prefix}udp.checksum`] =
    checksum === 0 ? 'none' : judged(checksum, sumHolds(pseudo, protocols.udp, bytes.subarray(at, end)))
  fields[`${prefix}udp.payload`] = hex(bytes.subarray(at + 8, end))
}

function decodeIcmp(reader: Reader, at: number, end: number, pseudo: Pseudo, family: 4 | 6, prefix: string): void {
  const { fields, view, bytes } = reader
  const body = bytes.subarray(at, end)
  const right = family === 4 ? onesSum(body) === 0xffff : sumHolds(pseudo, protocols.icmp6, body)
  const type = view.getUint8(at)
  fields[`${prefix}icmp.type`] = type
  fields[`${prefix}icmp.code`] = view.getUint8(at + 1)
  fields[`${prefix}icmp.checksum`] = judged(view.getUint16(at + 2), right)
  fields[`${prefix}icmp.rest`] = word(view.getUint32(at + 4))
  const isError = family === 4 ? [3, 4, 11, 12].includes(type) : type < 128
  if (isError && prefix === '') decodeNetwork(reader, at + 8, end, family, 'quoted ')
  else fields[`${prefix}icmp.payload`] = hex(bytes.subarray(at + 8, end))
}

function decodeSctp({ fields, view, bytes }: Reader, at: number, end: number, prefix: string): void {
  const packet = bytes.slice(at, end)
  packet.fill(0, 8, 12)
  const check = view.getUint32(at + 8, true)
  fields[`${prefix}sctp.sport`] = view.getUint16(at)
  fields[`${prefix}sctp.dport`] = view.getUint16(at + 2)
  fields[`${prefix}sctp.tag`] = view.getUint32(at + 4)
  fields[`${prefix}sctp.checksum`] = judged(check, crc32c(packet) === check)
  fields[`${prefix}sctp.chunks`] = hex(bytes.subarray(at + 12, end))
}

function decodeTransport(
  reader: Reader,
  at: number,
  end: number,
  ip: Pseudo & { family: 4 | 6; protocol: number; prefix: string },
): void {
  const { protocol, prefix, family } = ip
  const room = end - at
  if (protocol === protocols.tcp && room >= 20) decodeTcp(reader, at, end, ip, prefix)
  else if (protocol === protocols.udp && room >= 8) decodeUdp(reader, at, end, ip, prefix)
  else if (protocol === (family === 4 ? protocols.icmp : protocols.icmp6) && room >= 8)
    decodeIcmp(reader, at, end, ip, family, prefix)
  else if (protocol === protocols.sctp && room >= 12) decodeSctp(reader, at, end, prefix)
  else reader.fields[`${prefix}payload`] = hex(reader.bytes.subarray(at, end))
}

function decodeIpv4(reader: Reader, at: number, limit: number, prefix: string): void {
  const { fields, view, bytes } = reader
  const put = (name: string, value: string | number) => {
    fields[`${prefix}ip.${name}`] = value
  }
  const size = (view.getUint8(at) & 15) * 4
  const length = view.getUint16(at + 2)
  put('version', view.getUint8(at) >> 4)
  put('header', size)
  put('tos', view.getUint8(at + 1))
  put('length', length)
  put('id', view.getUint16(at + 4))
  put('fragment', word(view.getUint16(at + 6)))
  put('ttl', view.getUint8(at + 8))
  put('protocol', view.getUint8(at + 9))
  put('checksum', judged(view.getUint16(at + 10), onesSum(bytes.subarray(at, at + size)) === 0xffff))
  put('from', addressText(bytes, at + 12, 4))
  put('to', addressText(bytes, at + 16, 4))
  if (size > 20) put('options', hex(bytes.subarray(at + 20, at + size)))
  const [from, to] = [bytes.subarray(at + 12, at + 16), bytes.subarray(at + 16, at + 20)]
  const end = Math.max(at + size, Math.min(limit, at + length))
  decodeTransport(reader, at + size, end, { from, to, family: 4, protocol: view.getUint8(at + 9), prefix })
  if (end < limit) put('behind', hex(bytes.subarray(end, limit)))
}

function decodeIpv6(reader: Reader, at: number, limit: number, prefix: string): void {
  const { fields, view, bytes } = reader
  const put = (name: string, value: string | number) => {
    fields[`${prefix}ip6.${name}`] = value
  }
  const length = view.getUint16(at + 4)
  put('first', view.getUint32(at).toString(16))
  put('length', length)
  put('next', view.getUint8(at + 6))
  put('hops', view.getUint8(at + 7))
  put('from', addressText(bytes, at + 8, 6))
  put('to', addressText(bytes, at + 24, 6))
  const [from, to] = [bytes.subarray(at + 8, at + 24), bytes.subarray(at + 24, at + 40)]
  const end = Math.min(limit, at + 40 + length)
  decodeTransport(reader, at + 40, end, { from, to, family: 6, protocol: view.getUint8(at + 6), prefix })
  if (end < limit) put('behind', hex(bytes.subarray(end, limit)))
}

function decodeNetwork(reader: Reader, at: number, limit: number, family: 4 | 6, prefix: string): void {
  if (limit - at < (family === 4 ? 20 : 40)) reader.fields[`${prefix}payload`] = hex(reader.bytes.subarray(at, limit))
  else if (family === 4) decodeIpv4(reader, at, limit, prefix)
  else decodeIpv6(reader, at, limit, prefix)
}

/** All of a frame by fields. */
export function decode(bytes: Uint8Array): Fields {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const fields: Fields = { bytes: bytes.length }
  const reader: Reader = { fields, view, bytes }
  if (bytes.length < 14) return { ...fields, payload: hex(bytes) }
  fields['ether.to'] = macText(bytes, 0)
  fields['ether.from'] = macText(bytes, 6)
  let [type, at] = [view.getUint16(12), 14]
  if (type === etherTypes.vlan && bytes.length >= 18) {
    fields['ether.vlan'] = view.getUint16(14)
    type = view.getUint16(16)
    at = 18
  }
  fields['ether.type'] = word(type)
  if (type === etherTypes.ipv4) decodeNetwork(reader, at, bytes.length, 4, '')
  else if (type === etherTypes.ipv6) decodeNetwork(reader, at, bytes.length, 6, '')
  else fields.payload = hex(bytes.subarray(at))
  return fields
}

/** The same as text, a field a line. */
export function describe(bytes: Uint8Array): string {
  return Object.entries(decode(bytes))
    .map(([name, value]) => `${name} ${value}\n`)
    .join('')
}
