/** Interfaces of the calling thread's network namespace. */
import { Socket } from 'node:net'
import { littleEndian } from '../abi/codec.ts'
import { bind, check, errno, type Signature } from './library.ts'

/** One interface, as rtnetlink describes it. */
export interface NetworkInterface {
  readonly ifindex: number
  readonly name: string
  /** "veth", "bridge", "vlan", ...; "" for a device of its own, such as a NIC or lo. */
  readonly kind: string
  readonly up: boolean
  readonly loopback: boolean
  /** Six bytes; zeroes where there is no Ethernet address. */
  readonly mac: Uint8Array
  readonly mtu: number
  /** ifindex of the bridge or bond that it belongs to; 0: none. */
  readonly master: number
  /** ifindex of its peer or lower interface; 0: none. */
  readonly link: number
  /** Its peer or lower interface is in another namespace. */
  readonly peerElsewhere: boolean
  /** It is one of a bond's or team's, which all its packets pass too. */
  readonly aggregated: boolean
  /** What its packets begin with: an Ethernet header, the IP header (tunnels, WireGuard, tun, ppp), or something else. */
  readonly header: 'ethernet' | 'ip' | 'other'
}

interface Functions {
  bpvs_link_delete(ifindex: number): number
  bpvs_interfaces(out: Uint8Array, room: number): number
  bpvs_watch(): number
}

const c = bind<Functions>({
  bpvs_link_delete: ['int', 'int'],
  bpvs_interfaces: ['int', 'void *', 'uint32'],
  bpvs_watch: ['int'],
} satisfies Record<keyof Functions, Signature>)

const RECORD = 64 /* struct bpvs_interface */
const IFF_UP = 1
const IFF_LOOPBACK = 8

function text(bytes: Buffer): string {
  return bytes.toString('utf8', 0, bytes.indexOf(0))
}

function readInterface(record: Buffer): NetworkInterface {
  const word = (n: number): number => new DataView(record.buffer, record.byteOffset).getInt32(n * 4, littleEndian)
  const flags = word(1)
  return {
    ifindex: word(0),
    name: text(record.subarray(32, 48)),
    kind: text(record.subarray(48, 64)),
    up: (flags & IFF_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    mac: Uint8Array.from(record.subarray(24, 30)),
    mtu: word(2),
    master: word(3),
    link: word(4),
    peerElsewhere: (word(5) & 1) !== 0,
    aggregated: (word(5) & 8) !== 0,
    header: (word(5) & 2) === 0 ? 'ethernet' : (word(5) & 4) !== 0 ? 'ip' : 'other',
  }
}

/** Removes an interface; one that is gone already is fine. NATIVE, PERMISSION. */
export function deleteLink({ ifindex, name }: Pick<NetworkInterface, 'ifindex' | 'name'>): void {
  const result = c.bpvs_link_delete(ifindex)
  if (result !== -errno.ENODEV) check(result, 'RTM_DELLINK', name)
}

/** Lists the interfaces, by ifindex. */
export function listInterfaces(): NetworkInterface[] {
  for (let room = 64; ; room *= 4) {
    const out = Buffer.alloc(room * RECORD)
    const count = check(c.bpvs_interfaces(out, room), 'RTM_GETLINK')
    if (count > room) continue
    return Array.from({ length: count }, (_, i) => readInterface(out.subarray(i * RECORD, (i + 1) * RECORD)))
  }
}

/**
 * Calls `onChange` soon after an interface or address of the calling thread's namespace has changed; many changes may
 * make one call, so the listener lists anew. The watch keeps the process alive until it is closed.
 */
export function watchInterfaces(onChange: () => void, onError: (error: Error) => void): { close(): void } {
  const socket = new Socket({ fd: check(c.bpvs_watch(), 'socket(NETLINK_ROUTE)'), readable: true, writable: false })
  socket.on('data', onChange)
  socket.on('error', onError)
  return {
    close: () => {
      socket.destroy()
    },
  }
}
