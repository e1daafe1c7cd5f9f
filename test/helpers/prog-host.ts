/**
 * A host around the programs under BPF_PROG_RUN: a packet comes in, meets XDP and tcx ingress, goes through a stack that
 * forwards, and meets tcx egress, as far as it gets. TCP and UDP clients and servers speak through it in segments.
 */
import { LbTemplate } from '../../src/abi/generated.ts'
import { decode } from './decode.ts'
import { concat, mac, onesSum, setWord } from './packet.ts'
import type { Datapath, Place, Side } from './prog.ts'
import { macs } from './prog.ts'
import { datagram, end, message, quote, segment } from './prog-flow.ts'

/** Where a packet ended up, and what it was then. */
export interface Arrival {
  /** "nobody": dropped, or for the host's own stack. */
  readonly at: 'client' | 'server' | 'nobody'
  /** The last hook that did something to it; "stack" if none did. */
  readonly by: Place | 'stack'
  readonly packet: Uint8Array
}

/** Hooks that a packet meets on the way in. */
export interface HostOptions {
  /** XDP is on the interfaces too. */
  readonly xdp: boolean
  /** When packets get their marks: before tcx ingress, as a rule, or from netfilter, which comes after that. */
  readonly marked?: 'before' | 'by netfilter'
}

/** The side that an address is on; undefined: neither. */
function sideOf(address: string): Side | undefined {
  if (/^10\.1\.|^fd00:1:/.test(address)) return 'clients'
  return /^10\.2\.|^fd00:2:/.test(address) ? 'servers' : undefined
}

const whoBy = { clients: 'client', servers: 'server' } as const

/** IP and MAC addresses of a frame. */
export function endsOf(packet: Uint8Array): { from: string; to: string; macTo: string } {
  const fields = decode(packet)
  return {
    from: String(fields['ip.from'] ?? fields['ip6.from']),
    to: String(fields['ip.to'] ?? fields['ip6.to']),
    macTo: String(fields['ether.to']),
  }
}

/** The frame as the stack forwards it to the veth for marked packets. */
function toVeth(packet: Uint8Array): Uint8Array {
  return aged(concat(mac(macs.marked), mac(macs.marked), packet.subarray(12)))
}

/** The frame as a router forwards it: with less of its life left. */
function aged(packet: Uint8Array): Uint8Array {
  const frame = packet.slice()
  const isIpv4 = (frame[14] ?? 0) >> 4 === 4
  frame[isIpv4 ? 22 : 21]!--
  if (!isIpv4) return frame
  const header = frame.subarray(14, 14 + ((frame[14] ?? 0) & 15) * 4)
  setWord(header, 10, 0)
  setWord(header, 10, 0xffff - onesSum(header))
  return frame
}

/** Whose MAC address a frame has; where the kernel is to write that (bpf_redirect_neigh), it is still the director's. */
function receiver(packet: Uint8Array): Arrival['at'] {
  const { to, macTo } = endsOf(packet)
  if (macTo === macs.client) return 'client'
  if (macTo === macs.server) return 'server'
  const side = sideOf(to)
  return side === undefined ? 'nobody' : whoBy[side]
}

/** Who was seen with a packet, and what they did. */
export type Witness = 'client sends' | 'client receives' | 'backend sends' | 'backend receives'

/** Sees what passes the interfaces of clients and servers. */
export interface Watch {
  note(witness: Witness, packet: Uint8Array): void
}

export class Host {
  readonly datapath: Datapath
  watch: Watch | undefined
  /** Seconds that connections were aged by. */
  agedS = 0
  /** The firewall mark that packets to an address get. */
  markOf: (to: string) => number = () => 0
  readonly #options: HostOptions

  constructor(datapath: Datapath, options: HostOptions) {
    this.datapath = datapath
    this.#options = options
  }

  /** Lets a packet come in on one side. */
  travel(side: Side, packet: Uint8Array): Arrival {
    this.watch?.note(side === 'clients' ? 'client sends' : 'backend sends', packet)
    const arrival = this.#pass(side, packet)
    if (arrival.at !== 'nobody') {
      this.watch?.note(arrival.at === 'client' ? 'client receives' : 'backend receives', arrival.packet)
    }
    return arrival
  }

  #pass(side: Side, packet: Uint8Array): Arrival {
    const late = this.#options.marked === 'by netfilter'
    const mark = late ? 0 : this.markOf(endsOf(packet).to)
    for (const at of this.#options.xdp ? (['xdp', 'ingress'] as const) : (['ingress'] as const)) {
      const out = this.datapath.run({ at, side, packet, mark })
      if (out.action === 'drop') return { at: 'nobody', by: at, packet: out.packet }
      if (out.action === 'send') return { at: receiver(out.packet), by: at, packet: out.packet }
      packet = out.packet
    }
    return late && this.markOf(endsOf(packet).to) !== 0 ? this.#steer(side, packet) : this.#forward(packet)
  }

  /** Policy routing sends the packet out of the veth for marked ones. */
  #steer(side: Side, packet: Uint8Array): Arrival {
    const mark = this.markOf(endsOf(packet).to)
    const out = this.datapath.run({ at: 'marked', side, packet: toVeth(packet), mark })
    if (out.action === 'drop') return { at: 'nobody', by: 'marked', packet: out.packet }
    if (out.action === 'pass') return this.#forward(out.packet)
    if (endsOf(out.packet).macTo !== macs.marked) return { at: receiver(out.packet), by: 'marked', packet: out.packet }
    const again = this.datapath.run({ at: 'ingress', side, packet: out.packet })
    if (again.action !== 'pass') throw new Error(`what begins anew is the stack's, not to be ${again.exactly}`)
    return this.#forward(again.packet)
  }

  #forward(packet: Uint8Array): Arrival {
    const side = sideOf(endsOf(packet).to)
    if (side === undefined) return { at: 'nobody', by: 'stack', packet }
    const forwarded = aged(packet)
    const out = this.datapath.run({ at: 'egress', side, packet: forwarded })
    if (out.action === 'drop') return { at: 'nobody', by: 'egress', packet: out.packet }
    const changed = Buffer.compare(out.packet, forwarded) !== 0
    return { at: whoBy[side], by: changed ? 'egress' : 'stack', packet: out.packet }
  }

  /** "c:SA": a segment from the client with these flags; "s:...": from the server to the client. */
  tcp(
    event: string,
    flow: { readonly client: string; readonly virtual: string; readonly server: string },
    more: { readonly options?: Uint8Array; readonly payload?: Uint8Array } = {},
  ): Arrival {
    const [who, flags = ''] = event.split(':')
    const o = { flags, seq: 1000, ack: flags.includes('A') ? 2000 : 0, ...more }
    if (who === 's') {
      return this.travel('servers', segment({ leg: 'from server', from: flow.server, to: flow.client, ...o }))
    }
    return this.travel('clients', segment({ from: flow.client, to: flow.virtual, ...o }))
  }

  /** A datagram from a client, of one byte unless told otherwise. */
  udp(from: string, to: string, payload = Uint8Array.of(0x78)): Arrival {
    return this.travel('clients', datagram({ from, to, payload }))
  }

  /** What a server says of a request to a port that nobody listens on. */
  refuse(
    protocol: 'tcp' | 'udp',
    flow: { readonly client: string; readonly virtual: string; readonly server: string },
  ): Arrival {
    if (protocol === 'tcp') return this.tcp('s:RA', flow)
    const to = end(flow.client)
    /* Linux tells so from the address asked for, but of one that no interface has, over IPv6, from the interface's. */
    const from = flow.server.startsWith('[') ? 'fd00:fe:2::2' : end(flow.server).address
    const asked = quote(
      datagram({ leg: 'to server', from: flow.client, to: flow.server, payload: Uint8Array.of(0x78) }),
    )
    const six = from.includes(':')
    const error = { type: six ? 1 : 3, code: six ? 4 : 3, payload: asked }
    return this.travel('servers', message({ leg: 'from server', from, to: to.address, ...error }))
  }

  /** A server that is not the one meant sends a client's SYN back, with so much of its life left. */
  goesBack(client: string, virtual: string, ttl: number): Arrival {
    const options = new Uint8Array(20).fill(1)
    const packet = segment({ from: client, to: virtual, flags: 'S', seq: 1000, options, ttl })
    return this.travel('servers', concat(mac(macs.sv0), mac(macs.server), packet.subarray(12)))
  }

  /** Somebody on the servers' side tells a client that its SYN did not live long enough. */
  diesAt(who: string, client: string, virtual: string): Arrival {
    const options = new Uint8Array(20).fill(1)
    const lost = quote(segment({ from: client, to: virtual, flags: 'S', seq: 1000, options, ttl: 1 }))
    const error = { type: 11, code: 0, payload: lost }
    return this.travel('servers', message({ leg: 'from server', from: who, to: end(client).address, ...error }))
  }

  /** An echo request. */
  ping(from: string, to: string): Arrival {
    return this.travel('clients', message({ from, to, type: 8, code: 0, rest: 0x10001 }))
  }

  /** A segment that the host's own stack sends to a client. */
  own(flags: string, from: string, to: string): void {
    const packet = segment({ leg: 'to client', from, to, flags, seq: 0, ack: 1001 })
    this.datapath.run({ at: 'egress', side: 'clients', packet })
  }

  /** A datagram of one byte from a server to a client. */
  answer(from: string, to: string): Arrival {
    return this.travel('servers', datagram({ leg: 'from server', from, to, payload: Uint8Array.of(0x79) }))
  }

  /** The server that an arrived packet is for, as "address:port"; undefined if it did not get to one. */
  static server({ at, packet }: Arrival): string | undefined {
    if (at !== 'server') return undefined
    const fields = decode(packet)
    const { to } = endsOf(packet)
    const port = fields['tcp.dport'] ?? fields['udp.dport']
    return to.includes(':') ? `[${to}]:${port}` : `${to}:${port}`
  }

  /**
   * Lets time pass for connections: entries are that much nearer their end, and those beyond it are swept. Templates ask
   * whether their connections ended before them, so with them it passes by the second, as sweeps do.
   */
  age(seconds: number): void {
    const { maps, handles } = this.datapath
    this.agedS += seconds
    const all = Math.round((seconds * handles.rodata.hz) / 2 ** handles.rodata.tickShift)
    const templates = this.datapath.entries().some((i) => (maps.conns.proto(i) & LbTemplate.TEMPLATE) !== 0)
    const step = templates ? Math.ceil(handles.rodata.hz / 2 ** handles.rodata.tickShift) : all
    let left = all
    do {
      const ticks = Math.min(left, step)
      for (const i of this.datapath.entries()) maps.conns.setExpires(i, (maps.conns.expires(i) - ticks) >>> 0)
      handles.sweep()
      left -= ticks
    } while (left > 0)
  }
}

/** Whether "address:port" names the same end, however its address is written. */
export function sameEnd(a: string | undefined, b: string | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  const [x, y] = [end(a), end(b)]
  return x.address === y.address && x.port === y.port
}
