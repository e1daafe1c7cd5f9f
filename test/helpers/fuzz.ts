/** Random packets: valid ones of the flows that a table knows, then flipped, cut, stretched and overwritten. */
import { concat, etherTypes, onesSum, setWord, words } from './packet.ts'
import type { Place, Side } from './prog.ts'
import { oddSeeds } from './fuzz-odd.ts'
import { datagram, message, quote, segment } from './prog-flow.ts'
import { random } from './random.ts'

export interface FuzzPacket {
  readonly side: Side
  readonly packet: Uint8Array
}

/** The last part of addresses whose servers NAT does not reach: direct routing, and tunnels. */
export const untranslated = [1, 2, 3, 4] as const

/** What the seeds are made of: everything that the table knows, and a little that it does not. */
const worlds = [
  {
    client: ['10.1.0.1:1000', '10.1.0.2:1001'],
    virtual: ['10.9.0.1:80', '10.9.0.2:81', '10.10.0.1:80', '10.9.9.9:9', ...untranslated.map((n) => `10.9.1.${n}:80`)],
    server: ['10.2.0.11:8080', '10.2.0.12:80', '10.1.0.50:80'],
    echo: { type: 8 },
    errors: [
      { type: 3, code: 3 },
      { type: 3, code: 4, rest: 1280 },
      { type: 11, code: 0 },
    ],
  },
  {
    client: ['[fd00:1::1]:1000', '[fd00:1::2]:1001'],
    virtual: [
      '[fd00:9::1]:80',
      '[fd00:9::2]:81',
      '[fd00:10::1]:80',
      '[fd00:9::9]:9',
      ...untranslated.map((n) => `[fd00:9::1:${n}]:80`),
    ],
    server: ['[fd00:2::11]:8080', '[fd00:2::12]:80', '[fd00:1::50]:80'],
    echo: { type: 128 },
    errors: [
      { type: 1, code: 4 },
      { type: 2, rest: 1280 },
      { type: 3, code: 0 },
    ],
  },
] as const

/** The address of "address:port". */
function host(endpoint: string): string {
  return endpoint.replace(/^\[(.*)\]:\d+$/, '$1').replace(/^([\d.]+):\d+$/, '$1')
}

const flags = ['S', 'SA', 'A', 'PA', 'FA', 'R', 'RA', '', 'SF', 'FPU']
const payloads = [0, 1, 2, 26, 100, 700].map((length) => Uint8Array.from({ length }, (_, i) => i * 37))

/** Valid packets of every kind: both directions, both families, TCP, UDP, echo, errors; and all that is not plain. */
export function seedPackets(): FuzzPacket[] {
  const seeds: FuzzPacket[] = []
  for (const world of worlds) {
    const pairs = [
      ...world.client.flatMap((from) => world.virtual.map((to) => ({ from, to, leg: 'from client' as const }))),
      ...world.server.flatMap((from) => world.client.map((to) => ({ from, to, leg: 'from server' as const }))),
    ]
    for (const pair of pairs) {
      const side = pair.leg === 'from client' ? 'clients' : 'servers'
      const transports = [
        ...flags.map((each, i) => {
          const options = new Uint8Array((i % 3) * 4).fill(1)
          return segment({ ...pair, flags: each, payload: payloads[i % payloads.length] ?? new Uint8Array(0), options })
        }),
        ...payloads.map((payload) => datagram({ ...pair, payload })),
        datagram({ ...pair, ttl: 1 }),
        ...(side === 'clients' ? [datagram({ ...pair, ipv4: { options: Uint8Array.of(7, 7, 4, 0) } })] : []),
      ]
      seeds.push(...transports.map((packet) => ({ side, packet }) as const))
      const [from, to] = [host(pair.from), host(pair.to)]
      const { leg } = pair
      seeds.push({
        side,
        packet: message({ leg, from, to, ...world.echo, rest: 1, payload: payloads[3] ?? new Uint8Array(0) }),
      })
      const back = { from: pair.to, to: pair.from }
      const quoted = [datagram({ ...back, payload: new Uint8Array(9) }), segment({ ...back, flags: 'PA' })]
      for (const [i, error] of world.errors.entries()) {
        const payload = quote(quoted[i % 2] ?? new Uint8Array(14))
        seeds.push({ side, packet: message({ leg, from, to, ...error, payload }) })
      }
      seeds.push(...oddSeeds(pair, { from, to }, world.errors[0]))
    }
  }
  return seeds
}

/** Bytes in which headers are; most of what is changed is there. */
const headerBytes = 14 + 60

export class Mutator {
  readonly #random: (below: number) => number
  readonly #seeds: readonly FuzzPacket[]

  constructor(seed: number, seeds: readonly FuzzPacket[] = seedPackets()) {
    this.#random = random(seed)
    this.#seeds = seeds
  }

  /** The next packet. One in eight is valid as it is; of the others many have a right IPv4 checksum all the same. */
  next(): FuzzPacket {
    const seed = this.#seeds[this.#random(this.#seeds.length)]
    if (seed === undefined) throw new Error('no packets to begin with')
    let packet: Uint8Array = seed.packet.slice()
    const changes = this.#random(8) === 0 ? 0 : 1 + this.#random(3)
    for (let i = 0; i < changes; i++) packet = this.#change(packet)
    if (this.#random(2) === 0) repairChecksum(packet)
    return { side: seed.side, packet }
  }

  #change(packet: Uint8Array): Uint8Array {
    const at = this.#random(Math.min(packet.length, headerBytes))
    switch (this.#random(7)) {
      case 0:
        return packet.slice(0, 14 + this.#random(Math.max(1, packet.length - 13)))
      case 1:
        return concat(packet, this.#bytes(1 + this.#random(40)))
      case 2:
        packet.set(words(this.#edge()).subarray(0, packet.length - at), at)
        return packet
      case 3:
        packet[at] = this.#random(256)
        return packet
      case 4:
        return this.#lengths(packet)
      case 5:
        packet.set(this.#bytes(1 + this.#random(8)).subarray(0, packet.length - at), at)
        return packet
      default:
        packet[at] = (packet[at] ?? 0) ^ (1 << this.#random(8))
        return packet
    }
  }

  /** Another value in one of the fields that say how long something is. */
  #lengths(packet: Uint8Array): Uint8Array {
    const six = packet[12] === 0x86
    const transport = six ? 54 : 34
    const [at, bits] = (
      [
        [six ? 18 : 16, 16],
        [transport + 4, 16],
        [transport + 12, 8],
        [14, 8],
      ] as const
    )[this.#random(4)] ?? [14, 8]
    if (at + bits / 8 > packet.length) return packet
    if (bits === 16) setWord(packet, at, this.#random(2) === 0 ? this.#edge() : this.#random(packet.length + 20))
    else packet[at] = at === 14 && !six ? 0x40 | this.#random(16) : this.#random(16) << 4
    return packet
  }

  #edge(): number {
    return [0, 1, 7, 8, 19, 20, 21, 39, 40, 0x7fff, 0x8000, 0xfffe, 0xffff][this.#random(13)] ?? 0
  }

  #bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#random(256))
  }
}

/** Makes the IPv4 header's checksum right again if there is a header. */
function repairChecksum(packet: Uint8Array): void {
  const size = ((packet[14] ?? 0) & 15) * 4
  if (packet[12] !== 0x08 || packet[13] !== 0 || size < 20 || packet.length < 14 + size) return
  setWord(packet, 24, 0)
  setWord(packet, 24, ~onesSum(packet.subarray(14, 14 + size)) & 0xffff)
}

/** A packet that has one hop more to live: what becomes of any that is marked. An IPv4 header's checksum follows, right or wrong. */
export function renewed(packet: Uint8Array): Uint8Array {
  const after = packet.slice()
  const view = new DataView(after.buffer)
  const type = after.length < 14 ? 0 : view.getUint16(12)
  if (type === etherTypes.ipv6 && after.length >= 54) view.setUint8(21, view.getUint8(21) + 1)
  if (type !== etherTypes.ipv4 || after.length < 34) return after
  const before = view.getUint8(22)
  view.setUint8(22, before + 1)
  const sum = (~view.getUint16(24) & 0xffff) + (~(before << 8) & 0xffff) + (((before + 1) << 8) & 0xffff)
  setWord(after, 24, ~onesSum(words(sum & 0xffff, sum >> 16)) & 0xffff)
  return after
}

/** Whether BPF_PROG_RUN takes the packet: it makes no skb of an IP packet without an IP header's length. */
export function runnable(at: Place, packet: Uint8Array): boolean {
  if (packet.length < 14) return false
  if (at === 'xdp') return true
  const type = ((packet[12] ?? 0) << 8) | (packet[13] ?? 0)
  return packet.length >= (type === 0x86dd ? 54 : type === 0x0800 ? 34 : 15)
}
