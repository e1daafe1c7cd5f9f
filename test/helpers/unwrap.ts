/** Packets in tunnels, unwrapped again: ipip (of both families), gre, gue. */
import { etherTypes, words } from './packet.ts'

const protocolsInside: ReadonlyMap<number, number> = new Map([
  [4, etherTypes.ipv4],
  [41, etherTypes.ipv6],
])
const GRE = 47
const UDP = 17
const GUE_PORT = 6080

/** Bytes of the tunnel's header at `at`, and the ether type of what follows; undefined: there is none. */
function header(view: DataView, protocol: number, at: number): [size: number, type: number] | undefined {
  const plain = protocolsInside.get(protocol)
  if (plain !== undefined) return [0, plain]
  if (protocol === GRE) return [(view.getUint8(at) & 0x80) === 0 ? 4 : 8, view.getUint16(at + 2)]
  if (protocol !== UDP || view.getUint16(at + 2) !== GUE_PORT) return undefined
  const type = protocolsInside.get(view.getUint8(at + 9))
  return type === undefined ? undefined : [12 + (view.getUint8(at + 8) & 31) * 4, type]
}

/** The frame with what is in the tunnel instead of the tunnel; undefined if it is in none. */
export function unwrapped(frame: Uint8Array): Uint8Array | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
  const six = view.getUint16(12) === etherTypes.ipv6
  const at = six ? 54 : 14 + (view.getUint8(14) & 15) * 4
  const found = at + 12 > frame.length ? undefined : header(view, view.getUint8(six ? 20 : 23), at)
  if (found === undefined) return undefined
  const [size, type] = found
  return Uint8Array.from([...frame.subarray(0, 12), ...words(type), ...frame.subarray(at + size)])
}
