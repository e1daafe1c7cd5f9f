/** Packets of flows, as they look at each of the four places of their way, for prog.ts's network. */
import {
  build,
  ether,
  icmp,
  icmp6,
  type IcmpOptions,
  ipv4,
  type Ipv4Options,
  ipv6,
  type Ipv6Options,
  type Layer,
  sctp,
  type SctpOptions,
  tcp,
  type TcpOptions,
  udp,
  type UdpOptions,
} from './packet.ts'
import { macs } from './prog.ts'

/** Which leg of its way a packet is on, and so its MAC addresses. */
export type Leg = 'from client' | 'to server' | 'from server' | 'to client' | 'marked'

const legs: Readonly<Record<Leg, { readonly from: string; readonly to: string }>> = {
  'from client': { from: macs.client, to: macs.cl0 },
  'to server': { from: macs.sv0, to: macs.server },
  'from server': { from: macs.server, to: macs.sv0 },
  'to client': { from: macs.cl0, to: macs.client },
  marked: { from: macs.marked, to: macs.marked },
}

/** An address and a port. */
export interface End {
  readonly address: string
  readonly port: number
}

/** "10.9.0.1:80" or "[fd00:9::1]:80". */
export function end(text: string): End {
  const [, six, four, port] = /^(?:\[(.+)\]|([\d.]+)):(\d+)$/.exec(text) ?? []
  const address = six ?? four
  if (address === undefined) throw new Error(`${text} is no address and port`)
  return { address, port: Number(port) }
}

export interface FlowOptions {
  readonly leg?: Leg
  readonly from: string
  readonly to: string
  /** 64 unless given. */
  readonly ttl?: number
  readonly payload?: Uint8Array
  readonly ether?: Parameters<typeof ether>[0]
  readonly ipv4?: Partial<Ipv4Options>
  readonly ipv6?: Partial<Ipv6Options>
  /** IPv6 extension headers between IP and transport header. */
  readonly extensions?: readonly Layer[]
}

function network(o: FlowOptions, from: string, to: string): Layer {
  if (from.includes(':')) return ipv6({ from, to, hopLimit: o.ttl ?? 64, ...o.ipv6 })
  return ipv4({ from, to, ttl: o.ttl ?? 64, ...o.ipv4 })
}

function frame(o: FlowOptions, from: string, to: string, transport: Layer): Uint8Array {
  const link = ether({ ...legs[o.leg ?? 'from client'], ...o.ether })
  return build(link, network(o, from, to), ...(o.extensions ?? []), transport, o.payload ?? new Uint8Array(0))
}

export type SegmentOptions = FlowOptions & Omit<Partial<TcpOptions>, 'sport' | 'dport'>

/** A TCP segment. */
export function segment(o: SegmentOptions): Uint8Array {
  const [from, to] = [end(o.from), end(o.to)]
  return frame(o, from.address, to.address, tcp({ ...o, sport: from.port, dport: to.port }))
}

export type DatagramOptions = FlowOptions & Omit<Partial<UdpOptions>, 'sport' | 'dport'>

/** A UDP datagram. */
export function datagram(o: DatagramOptions): Uint8Array {
  const [from, to] = [end(o.from), end(o.to)]
  return frame(o, from.address, to.address, udp({ ...o, sport: from.port, dport: to.port }))
}

export type AssociationOptions = FlowOptions & Omit<Partial<SctpOptions>, 'sport' | 'dport'>

/** An SCTP packet; its chunks are the payload. */
export function association(o: AssociationOptions): Uint8Array {
  const [from, to] = [end(o.from), end(o.to)]
  return frame(o, from.address, to.address, sctp({ ...o, sport: from.port, dport: to.port }))
}

export type IcmpFlowOptions = FlowOptions & IcmpOptions

/** An ICMP or ICMPv6 message between addresses. */
export function message(o: IcmpFlowOptions): Uint8Array {
  return frame(o, o.from, o.to, o.from.includes(':') ? icmp6(o) : icmp(o))
}

/** What an error quotes of a frame: its IP packet, or the first bytes of it. */
export function quote(packet: Uint8Array, bytes = packet.length - 14): Uint8Array {
  return packet.slice(14, 14 + bytes)
}
