/** Valid packets that are not plain, for fuzz.ts to begin with: fragments, extension headers, options, SCTP, odd ICMP. */
import { chunk, concat, extension, fragments, type Layer, words } from './packet.ts'
import type { FuzzPacket } from './fuzz.ts'
import { association, datagram, type FlowOptions, type Leg, message, quote, segment } from './prog-flow.ts'

/** Two ends, and which way packets go between them. */
export interface Pair {
  readonly from: string
  readonly to: string
  readonly leg: Leg
}

type Shape = Pick<FlowOptions, 'ipv4' | 'ipv6' | 'extensions'>

const some = Uint8Array.from({ length: 90 }, (_, i) => i * 29)
const fragmentHeader = (offset: number, more: 0 | 1): Layer =>
  extension('fragment', concat(words(offset | more), words(3, offset)))

/** Headers that IPv4 may have. */
const shapes4: readonly Shape[] = [
  { ipv4: { options: Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0) } },
  { ipv4: { options: new Uint8Array(40).fill(1) } },
  { ipv4: { mf: true, id: 3 } },
  { ipv4: { offset: 64, id: 3 } },
]

/** Headers that IPv6 may have. */
const shapes6: readonly Shape[] = [
  { extensions: [extension('hopByHop')] },
  { extensions: [extension('destination', new Uint8Array(14)), extension('routing', new Uint8Array(22))] },
  { extensions: [extension('authentication', new Uint8Array(22))] },
  { extensions: Array.from({ length: 8 }, () => extension('destination')) },
  { extensions: [fragmentHeader(0, 0)] },
  { extensions: [extension('hopByHop'), fragmentHeader(0, 1)] },
  { extensions: [fragmentHeader(64, 1)] },
]

/** Chunks whose types mean something, and one that does not. */
const chunks = [1, 2, 6, 7, 10, 14, 0].map((type) => chunk(type, some.subarray(0, type * 3)))

function transports(pair: Pair, shape: Shape): Uint8Array[] {
  return [
    segment({ ...pair, ...shape, flags: 'S', payload: some }),
    segment({ ...pair, ...shape, flags: 'A' }),
    datagram({ ...pair, ...shape, payload: some }),
    association({ ...pair, ...shape, payload: chunk(1, some) }),
  ]
}

/** An error from the one to the other, which quotes what came the other way. */
function errors(pair: Pair, hosts: { from: string; to: string }, error: { type: number }, shapes: readonly Shape[]) {
  const back = { from: pair.to, to: pair.from }
  const { leg } = pair
  return shapes.flatMap((shape) => [
    message({ ...shape, ...hosts, leg, ...error, payload: quote(datagram({ ...back, payload: some })) }),
    message({ ...hosts, leg, ...error, payload: quote(datagram({ ...shape, ...back, payload: some })) }),
    message({ ...hosts, leg, ...error, payload: quote(association({ ...back, payload: chunk(0, some) })) }),
  ])
}

/** What is not plain of one pair's; `error` is any type that may be one. */
export function oddSeeds(pair: Pair, hosts: { from: string; to: string }, error: { type: number }): FuzzPacket[] {
  const side = pair.leg === 'from client' ? 'clients' : 'servers'
  const shapes = pair.from.includes('[') ? shapes6 : shapes4
  const whole = datagram({ ...pair, payload: some, ipv4: { df: false } })
  const packets = [
    ...shapes.flatMap((shape) => transports(pair, shape)),
    ...fragments(whole, 5, 16, 48),
    ...fragments(segment({ ...pair, flags: 'S', payload: some, ipv4: { df: false } }), 6, 40),
    ...chunks.map((payload) => association({ ...pair, payload })),
    association({ ...pair, payload: concat(chunk(10, some), chunk(6)) }),
    ...errors(pair, hosts, error, shapes),
  ]
  return packets.map((packet) => ({ side, packet }))
}
