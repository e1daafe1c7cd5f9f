/** Recorded packets of forwarding methods, and what of them no two runs have in common. */
import { etherTypes, mac, onesSum, protocols, pseudoHeader, setWord, words } from './packet.ts'
import { macs, type Side } from './prog.ts'

/** A packet as it was recorded: from the IP header on. */
export interface WirePacket {
  readonly at: 'client' | 'backend'
  readonly dir: 'sent' | 'received'
  readonly dmac: string
  readonly hex: string
}

export interface WireStep {
  readonly do: 'wire'
  readonly kind: 'udp' | 'tcp'
  readonly packets: readonly WirePacket[]
}

const senders: Readonly<Record<string, string>> = {
  [macs.cl0]: macs.client,
  [macs.client]: macs.cl0,
  [macs.sv0]: macs.server,
  [macs.server]: macs.sv0,
}

/** The side of the director that a recorded packet is on. */
export function sideOf({ at }: WirePacket): Side {
  return at === 'client' ? 'clients' : 'servers'
}

/** The whole frame, as the test's network has it. */
export function frameOf({ hex, dmac }: WirePacket): Uint8Array {
  const ip = Buffer.from(hex, 'hex')
  const type = (ip[0] ?? 0) >> 4 === 6 ? etherTypes.ipv6 : etherTypes.ipv4
  return Uint8Array.from([...mac(dmac), ...mac(senders[dmac] ?? ''), ...words(type), ...ip])
}

interface Transport {
  readonly protocol: number
  readonly at: number
  readonly pseudo: Uint8Array
}

/** What follows the header of the IP packet at `at`, and the pseudo header of its checksum; lengths as the header says. */
export function transport(packet: Uint8Array, at: number): Transport {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
  if (view.getUint8(at) >> 4 === 6) {
    const protocol = view.getUint8(at + 6)
    const [from, to] = [packet.subarray(at + 8, at + 24), packet.subarray(at + 24, at + 40)]
    return { protocol, at: at + 40, pseudo: pseudoHeader(from, to, protocol, view.getUint16(at + 4)) }
  }
  const header = (view.getUint8(at) & 15) * 4
  const protocol = view.getUint8(at + 9)
  const [from, to] = [packet.subarray(at + 12, at + 16), packet.subarray(at + 16, at + 20)]
  return {
    protocol,
    at: at + header,
    pseudo: pseudoHeader(from, to, protocol, view.getUint16(at + 2) - header),
  }
}

/**
 * The frame with its TCP or UDP checksum computed: the recorded senders left that to their device. `at`: where the IP
 * packet is. What is no TCP or UDP stays.
 */
export function completed(frame: Uint8Array, at = 14): Uint8Array {
  const packet = frame.slice()
  const { protocol, at: l4, pseudo } = transport(packet, at)
  if (protocol !== protocols.tcp && protocol !== protocols.udp) return packet
  const check = l4 + (protocol === protocols.tcp ? 16 : 6)
  setWord(packet, check, 0)
  setWord(packet, check, ~onesSum(pseudo, packet.subarray(l4)) & 0xffff)
  return packet
}

/** Where the original packet is in a frame; 14 if it is in no tunnel, undefined if it is no packet of a flow. */
export function innerOffset(frame: Uint8Array): number | undefined {
  const { protocol, at } = transport(frame, 14)
  switch (protocol) {
    case protocols.tcp:
      return 14
    case 4:
    case 41:
      return at
    case 47:
      return at + ((frame[at] ?? 0) & 0x80 ? 8 : 4)
    case protocols.udp:
      return isGue(frame, at) ? at + 12 + ((frame[at + 8] ?? 0) & 31) * 4 : 14
    default:
      return undefined
  }
}

const GUE_PORT = 6080

function isGue(frame: Uint8Array, udp: number): boolean {
  return frame[udp + 2] === GUE_PORT >> 8 && frame[udp + 3] === (GUE_PORT & 0xff)
}

/**
 * A frame without what is random: the IPv4 identification of what was made by the director without "don't fragment", and
 * the source port of GUE, which is a hash of the flow. Checksums are those that the packet then has to have.
 */
export function withoutChance(frame: Uint8Array): Uint8Array {
  const packet = frame.slice()
  const made = innerOffset(packet) !== 14
  if (made && (packet[14] ?? 0) >> 4 === 4 && ((packet[20] ?? 0) & 0x40) === 0) replace(packet, 18, 0, 24)
  const { protocol, at } = transport(packet, 14)
  if (protocol === protocols.udp && isGue(packet, at)) {
    const [high = 0, low = 0] = packet.subarray(at, at + 2)
    if (high << 8 < 32768 || ((high << 8) | low) > 60999) throw new Error(`${(high << 8) | low}: no port of a tunnel`)
    replace(packet, at, 0, at + 6)
  }
  return packet
}

/** Replaces a word that the checksum at `check` covers, unless that is 0. */
function replace(packet: Uint8Array, at: number, value: number, check: number): void {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength)
  const [was, sum] = [view.getUint16(at), view.getUint16(check)]
  view.setUint16(at, value)
  if (sum !== 0) view.setUint16(check, ~onesSum(words(~sum & 0xffff, ~was & 0xffff, value)) & 0xffff)
}
