/**
 * Packets for tests, layer by layer: `build(ether(), ipv4({ from, to }), tcp({ ... }), payload)`. Lengths and checksums
 * are right unless a layer is told otherwise; every checksum is computed over the whole, never adjusted.
 * Addresses are text, ports and lengths numbers in host order.
 */
import { parseAddress } from '../../src/native/ip.ts'

/** Bytes from an address' text: 4 or 16. */
export function addressBytes(text: string): Uint8Array {
  return parseAddress(text).bytes
}

/** Writes header and payload together; `outer` are the layers around this one, the outermost first. */
export interface Layer {
  readonly kind: string
  encode(payload: Uint8Array, outer: readonly Layer[], inner: Layer | undefined): Uint8Array
}

/** A network layer, as transport checksums need to know it. */
interface IpLayer extends Layer {
  readonly from: Uint8Array
  readonly to: Uint8Array
}

export const etherTypes = { ipv4: 0x0800, ipv6: 0x86dd, arp: 0x0806, vlan: 0x8100 } as const
export const protocols = { icmp: 1, tcp: 6, udp: 17, icmp6: 58, sctp: 132 } as const

/** One's complement sum of 16-bit words in network order, folded; an odd last byte is the high half of a word. */
export function onesSum(...parts: readonly Uint8Array[]): number {
  let sum = 0
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += ((part[i] ?? 0) << 8) | (part[i + 1] ?? 0)
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000)
  return sum
}

/** The pseudo header that transport checksums cover (RFC 9293, RFC 8200 8.1): its sum is what matters. */
export function pseudoHeader(from: Uint8Array, to: Uint8Array, protocol: number, length: number): Uint8Array {
  return concat(from, to, words(length >>> 16, length & 0xffff, 0, protocol))
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/** 16-bit words in network order. */
export function words(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [(value >> 8) & 0xff, value & 0xff]))
}

export function setWord(bytes: Uint8Array, at: number, value: number): void {
  bytes.set(words(value), at)
}

function long(value: number): Uint8Array {
  return words(value >>> 16, value & 0xffff)
}

/** A MAC address as bytes. */
export function mac(text: string): Uint8Array {
  return Uint8Array.from(text.split(':'), (part) => Number.parseInt(part, 16))
}

/** Nests the layers, a payload last. */
export function build(...parts: readonly (Layer | Uint8Array)[]): Uint8Array {
  const payload = parts.at(-1) instanceof Uint8Array ? (parts.at(-1) as Uint8Array) : new Uint8Array(0)
  const layers = parts.filter((part): part is Layer => !(part instanceof Uint8Array))
  return layers.reduceRight((bytes, layer, i) => layer.encode(bytes, layers.slice(0, i), layers[i + 1]), payload)
}

/** Ethernet. The type is that of the next layer unless given; a VLAN tag (802.1Q) if `vlan` is. */
export function ether(
  options: { from?: string; to?: string; type?: keyof typeof etherTypes; vlan?: number } = {},
): Layer {
  return {
    kind: 'ether',
    encode: (payload, _, inner) => {
      const type = etherTypes[options.type ?? (inner?.kind === 'ipv6' ? 'ipv6' : 'ipv4')]
      const tag = options.vlan === undefined ? new Uint8Array(0) : words(etherTypes.vlan, options.vlan)
      const macs = [mac(options.to ?? '02:00:00:00:00:01'), mac(options.from ?? '02:00:00:00:00:02')]
      return concat(...macs, tag, words(type), payload)
    },
  }
}

export interface Ipv4Options {
  readonly from: string
  readonly to: string
  readonly ttl?: number
  readonly tos?: number
  readonly id?: number
  /** Don't fragment (default), more fragments. */
  readonly df?: boolean
  readonly mf?: boolean
  /** Of a fragment, in bytes; a multiple of 8. */
  readonly offset?: number
  /** Padded to a multiple of 4. */
  readonly options?: Uint8Array
  /** Deliberately wrong: version, header length in words, total length, header checksum, protocol. */
  readonly version?: number
  readonly ihl?: number
  readonly length?: number
  readonly checksum?: number
  readonly protocol?: number
}

const protocolOf: Readonly<Record<string, number>> = {
  ...protocols,
  hopByHop: 0,
  routing: 43,
  fragment: 44,
  authentication: 51,
  destination: 60,
}

/** The protocol of what a network layer carries; one for experiments when it can't be told. */
function carried(layer: Layer | undefined, given: number | undefined): number {
  return given ?? protocolOf[layer?.kind ?? ''] ?? 253
}

export function ipv4(o: Ipv4Options): IpLayer {
  const [from, to] = [addressBytes(o.from), addressBytes(o.to)]
  return {
    kind: 'ipv4',
    from,
    to,
    encode: (payload, _, inner) => {
      const extra = new Uint8Array(Math.ceil((o.options?.length ?? 0) / 4) * 4)
      extra.set(o.options ?? [])
      const size = 20 + extra.length
      const flags = ((o.df ?? (o.mf !== true && o.offset === undefined)) ? 0x4000 : 0) | (o.mf === true ? 0x2000 : 0)
      const header = concat(
        words(((o.version ?? 4) << 12) | ((o.ihl ?? size / 4) << 8) | (o.tos ?? 0), o.length ?? size + payload.length),
        words(o.id ?? 0, flags | ((o.offset ?? 0) >> 3), ((o.ttl ?? 64) << 8) | carried(inner, o.protocol), 0),
        from,
        to,
        extra,
      )
      setWord(header, 10, o.checksum ?? ~onesSum(header) & 0xffff)
      return concat(header, payload)
    },
  }
}

export interface Ipv6Options {
  readonly from: string
  readonly to: string
  readonly hopLimit?: number
  readonly trafficClass?: number
  readonly flowLabel?: number
  /** Deliberately wrong: version, payload length; or another next header. */
  readonly version?: number
  readonly length?: number
  readonly protocol?: number
}

export function ipv6(o: Ipv6Options): IpLayer {
  const [from, to] = [addressBytes(o.from), addressBytes(o.to)]
  return {
    kind: 'ipv6',
    from,
    to,
    encode: (payload, _, inner) => {
      const first = (((o.version ?? 6) << 28) | ((o.trafficClass ?? 0) << 20) | (o.flowLabel ?? 0)) >>> 0
      const rest = words(o.length ?? payload.length, (carried(inner, o.protocol) << 8) | (o.hopLimit ?? 64))
      return concat(long(first), rest, from, to, payload)
    },
  }
}

function transportChecksum(bytes: Uint8Array, outer: readonly Layer[], protocol: number): number {
  const ip = outer.findLast((layer): layer is IpLayer => 'from' in layer)
  if (ip === undefined) throw new Error('a transport layer needs a network layer around it')
  return ~onesSum(pseudoHeader(ip.from, ip.to, protocol, bytes.length), bytes) & 0xffff
}

/** Types of IPv6 extension headers. */
export const extensions = { hopByHop: 0, routing: 43, fragment: 44, authentication: 51, destination: 60 } as const

/**
 * An IPv6 extension header; its body is everything behind the two bytes of type and length, and so long that the header
 * is a multiple of 8 bytes (authentication: of 4).
 */
export function extension(kind: keyof typeof extensions, body: Uint8Array = new Uint8Array(6)): Layer {
  return {
    kind,
    encode: (payload, _, inner) => {
      const size = 2 + body.length
      const length = kind === 'fragment' ? 0 : kind === 'authentication' ? size / 4 - 2 : size / 8 - 1
      return concat(Uint8Array.of(carried(inner, undefined), length), body, payload)
    },
  }
}

/**
 * A frame without IPv6 extension headers, cut into fragments: at these bytes behind the IP header, which are multiples
 * of 8. `id` is the datagram's.
 */
export function fragments(frame: Uint8Array, id: number, ...cuts: readonly number[]): Uint8Array[] {
  const six = frame[12] === 0x86
  const header = 14 + (six ? 40 : ((frame[14] ?? 0) & 15) * 4)
  const body = frame.subarray(header)
  return [0, ...cuts].map((from, i) => {
    const more = i < cuts.length
    const part = body.subarray(from, cuts[i])
    const head = frame.slice(0, header)
    if (six) {
      const extra = concat(Uint8Array.of(head[20] ?? 0, 0), words(from | (more ? 1 : 0)), long(id))
      head[20] = extensions.fragment
      setWord(head, 18, extra.length + part.length)
      return concat(head, extra, part)
    }
    setWord(head, 16, header - 14 + part.length)
    setWord(head, 18, id)
    setWord(head, 20, (from >> 3) | (more ? 0x2000 : 0))
    setWord(head, 24, 0)
    setWord(head, 24, ~onesSum(head.subarray(14)) & 0xffff)
    return concat(head, part)
  })
}

const flagBits: Readonly<Record<string, number>> = { F: 1, S: 2, R: 4, P: 8, A: 16, U: 32, E: 64, C: 128 }

/** "SA" as the byte in the header. */
export function tcpFlags(text: string): number {
  return [...text].reduce((sum, letter) => {
    const bit = flagBits[letter]
    if (bit === undefined) throw new Error(`no TCP flag ${letter}`)
    return sum | bit
  }, 0)
}

export interface TcpOptions {
  readonly sport: number
  readonly dport: number
  /** Letters of FSRPAUEC. */
  readonly flags?: string
  readonly seq?: number
  readonly ack?: number
  readonly window?: number
  readonly options?: Uint8Array
  /** Deliberately wrong: header length in words, checksum. */
  readonly offset?: number
  readonly checksum?: number
}

export function tcp(o: TcpOptions): Layer {
  return {
    kind: 'tcp',
    encode: (payload, outer) => {
      const extra = new Uint8Array(Math.ceil((o.options?.length ?? 0) / 4) * 4)
      extra.set(o.options ?? [])
      const bytes = concat(
        words(o.sport, o.dport),
        long(o.seq ?? 1000),
        long(o.ack ?? 0),
        words(((o.offset ?? 5 + extra.length / 4) << 12) | tcpFlags(o.flags ?? ''), o.window ?? 8192, 0, 0),
        extra,
        payload,
      )
      setWord(bytes, 16, o.checksum ?? transportChecksum(bytes, outer, protocols.tcp))
      return bytes
    },
  }
}

export interface UdpOptions {
  readonly sport: number
  readonly dport: number
  /** 0: none (IPv4). */
  readonly checksum?: number
  /** Deliberately wrong. */
  readonly length?: number
}

export function udp(o: UdpOptions): Layer {
  return {
    kind: 'udp',
    encode: (payload, outer) => {
      const bytes = concat(words(o.sport, o.dport, o.length ?? 8 + payload.length, 0), payload)
      setWord(bytes, 6, o.checksum ?? (transportChecksum(bytes, outer, protocols.udp) || 0xffff))
      return bytes
    },
  }
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  return crc
})

/** CRC32c (RFC 9260, appendix A), byte by byte. */
export function crc32c(bytes: Uint8Array): number {
  const crc = bytes.reduce((sum, byte) => (crcTable[(sum ^ byte) & 0xff] ?? 0) ^ (sum >>> 8), 0xffffffff)
  return ~crc >>> 0
}

export interface SctpOptions {
  readonly sport: number
  readonly dport: number
  readonly tag?: number
  /** Deliberately wrong, or 0: left to the device. */
  readonly checksum?: number
}

/** SCTP's common header; the chunks are its payload. */
export function sctp(o: SctpOptions): Layer {
  return {
    kind: 'sctp',
    encode: (payload) => {
      const bytes = concat(words(o.sport, o.dport), long(o.tag ?? 1), long(0), payload)
      new DataView(bytes.buffer).setUint32(8, o.checksum ?? crc32c(bytes), true)
      return bytes
    },
  }
}

/** One SCTP chunk, padded to a multiple of four; its length can be told wrongly. */
export function chunk(type: number, value: Uint8Array = new Uint8Array(0), length = 4 + value.length): Uint8Array {
  return concat(words(type << 8, length), value, new Uint8Array(-value.length & 3))
}

export interface IcmpOptions {
  readonly type: number
  readonly code?: number
  /** The 32 bits after the checksum: identifier and sequence number, or an MTU. */
  readonly rest?: number
  readonly checksum?: number
}

export function icmp(o: IcmpOptions): Layer {
  return {
    kind: 'icmp',
    encode: (payload) => {
      const bytes = concat(words((o.type << 8) | (o.code ?? 0), 0), long(o.rest ?? 0), payload)
      setWord(bytes, 2, o.checksum ?? ~onesSum(bytes) & 0xffff)
      return bytes
    },
  }
}

export function icmp6(o: IcmpOptions): Layer {
  return {
    kind: 'icmp6',
    encode: (payload, outer) => {
      const bytes = concat(words((o.type << 8) | (o.code ?? 0), 0), long(o.rest ?? 0), payload)
      setWord(bytes, 2, o.checksum ?? transportChecksum(bytes, outer, protocols.icmp6))
      return bytes
    },
  }
}
