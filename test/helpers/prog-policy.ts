/** Services with policies under BPF_PROG_RUN: addresses, what is programmed, packets. */
import { isIPv6 } from 'node:net'
import { LbConfigArray, LbPods } from '../../src/abi/generated.ts'
import { writeAddress } from '../../src/model/address.ts'
import type { ServicePolicy } from '../../src/model/types.ts'
import { real, service, virtual } from './director.ts'
import { datagram, segment, type SegmentOptions } from './prog-flow.ts'
import type { Step } from './prog-rows.ts'

interface Addresses {
  readonly client: string
  readonly pod: string
  readonly virtual: string
  readonly second: string
  readonly server: string
  readonly insider: string
  /** The director's own, towards the servers and towards the clients. */
  readonly own: string
  readonly outer: string
}

export const families = {
  IPv4: {
    client: '10.1.0.1',
    pod: '10.1.128.1',
    virtual: '10.9.0.1',
    second: '10.9.0.2',
    server: '10.2.0.11',
    insider: '10.2.0.12',
    own: '10.254.2.1',
    outer: '10.254.1.1',
  },
  IPv6: {
    client: 'fd00:1::1',
    pod: 'fd00:1::8000:1',
    virtual: 'fd00:9::1',
    second: 'fd00:9::2',
    server: 'fd00:2::11',
    insider: 'fd00:2::12',
    own: 'fd00:fe:2::1',
    outer: 'fd00:fe:1::1',
  },
} as const satisfies Record<string, Addresses>
export type Family = keyof typeof families
export const both = Object.keys(families) as Family[]

export const nobody = { pods: false, node: false, others: false }
export const everybody = { pods: true, node: true, others: true }
const plain: ServicePolicy = { masquerade: nobody, whenEmpty: 'refuse', nodePort: false, foreign: false }

export const wrap = (address: string, port: number): string =>
  isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`

/** The ports that masqueraded connections come from. */
export const FIRST = 20_000

/** Settings as bpvsd makes them, and one service with what is asked of it. */
export function given(
  family: Family,
  policy: Partial<ServicePolicy>,
  more: { servers?: readonly string[]; insiders?: readonly string[]; ports?: number; persistent?: boolean } = {},
): NonNullable<Step['before']> {
  return (datapath) => {
    const { virtual: vip, server } = families[family]
    const { config } = datapath.maps
    config.setMasqueradeFirst(0, FIRST)
    config.setMasqueradeCount(0, more.ports ?? 1)
    config.setPodsKnown(0, LbPods.PODS_NET4 | LbPods.PODS_NET6)
    const { at } = LbConfigArray
    writeAddress(config.u8, at.pods4, '10.1.128.0', 4)
    writeAddress(config.u8, at.pods4Mask, '255.255.128.0', 4)
    writeAddress(config.u8, at.pods6, 'fd00:1::8000:0', 6)
    writeAddress(config.u8, at.pods6Mask, 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:0', 6)
    const specs = (addresses: readonly string[]) => addresses.map((address) => real(address, 8080))
    const persistence = { timeoutS: 300, mask: family === 'IPv4' ? '255.255.255.255' : 128 }
    const desired = (['tcp', 'udp'] as const).map((protocol) => ({
      service: {
        ...service(virtual(vip, 80, protocol), 'rr'),
        ...(more.persistent === true ? { persistence } : {}),
        policy: { ...plain, ...policy },
      },
      servers: specs(more.servers ?? [server]),
      ...(more.insiders === undefined ? {} : { insiders: specs(more.insiders) }),
    }))
    const { failed } = datapath.table.apply('kubernetes', desired)
    if (failed.length > 0) throw failed[0]?.error
  }
}

/** A packet of a connection: the same for every protocol but for its flags. */
export function packet(protocol: 'tcp' | 'udp', o: SegmentOptions): Uint8Array {
  const payload = Uint8Array.from({ length: 9 }, (_, i) => i)
  return protocol === 'tcp' ? segment({ ...o, payload }) : datagram({ ...o, payload })
}

export const server = (family: Family): string => wrap(families[family].server, 8080)
export const vip = (family: Family, port = 80): string => wrap(families[family].virtual, port)
export const own = (family: Family, port = FIRST): string => wrap(families[family].own, port)

export const send = { action: 'send' } as const
export const pass = { action: 'pass' } as const
