/** Bindings of native/sync.c: multicast sockets on an interface, the scan of the connection table, locks that don't wait. */
import { littleEndian } from '../abi/codec.ts'
import type { Family } from '../model/types.ts'
import { bind, check, errno, ffi, type Signature } from './library.ts'
import type { Fd } from './shim.ts'

/** A multicast group as an interface reaches it; the address is 16 bytes, as in lb_addr. */
export interface MulticastGroup {
  readonly family: Family
  readonly address: Uint8Array
  readonly port: number
  readonly ifindex: number
  readonly ttl: number
}

interface Functions {
  bpvs_group_send(group: Uint8Array): number
  bpvs_group_receive(group: Uint8Array): number
  bpvs_send(fd: Fd, message: Uint8Array, size: number): number
  bpvs_try_lock(fd: Fd): number
  bpvs_sync_scan(scan: Uint8Array, due: Uint32Array, room: number): number
}

const c = bind<Functions>({
  bpvs_group_send: ['int', 'void *'],
  bpvs_group_receive: ['int', 'void *'],
  bpvs_send: ['int', 'int', 'void *', 'uint32'],
  bpvs_try_lock: ['int', 'int'],
  bpvs_sync_scan: ['uint32', 'void *', 'void *', 'uint32'],
} satisfies Record<keyof Functions, Signature>)

/** struct bpvs_group */
function packGroup({ family, address, port, ifindex, ttl }: MulticastGroup): Uint8Array {
  const packed = new DataView(new ArrayBuffer(32))
  new Uint8Array(packed.buffer).set(address)
  packed.setUint32(16, family, littleEndian)
  packed.setUint32(20, ifindex, littleEndian)
  packed.setUint16(24, port, littleEndian)
  packed.setUint8(26, ttl)
  return new Uint8Array(packed.buffer)
}

/** A socket whose datagrams go to the group; the caller closes it. NATIVE. */
export function openGroupSender(group: MulticastGroup): Fd {
  return check(c.bpvs_group_send(packGroup(group)), 'socket') as Fd
}

/** A socket that hears the group on its interface; the caller closes it. NATIVE. */
export function openGroupReceiver(group: MulticastGroup): Fd {
  return check(c.bpvs_group_receive(packGroup(group)), 'socket') as Fd
}

/** What became of a datagram: `later` if the socket has no room for it now. */
export function sendDatagram(fd: Fd, message: Uint8Array): 'sent' | 'later' | 'failed' {
  const sent = c.bpvs_send(fd, message, message.length)
  if (sent >= 0) return 'sent'
  return -sent === errno.EAGAIN ? 'later' : 'failed'
}

/** flock without waiting; false: somebody else has the lock. NATIVE. */
export function tryLock(fd: Fd): boolean {
  return check(c.bpvs_try_lock(fd), 'flock') === 1
}

/** What the scan reads; buffers are those of the maps. */
export interface ScanInput {
  readonly conns: ArrayBuffer
  readonly config: ArrayBuffer
  /** Entries of lb_conns. */
  readonly entries: number
  readonly hz: number
  readonly tickShift: number
  /** Seconds after which others are told again of a connection that is in use. */
  readonly refreshS: number
}

const TOLD = 12 /* struct bpvs_told */
const SCAN = {
  size: 48,
  conns: 0,
  config: 1,
  told: 2,
  at: 6,
  end: 7,
  now: 8,
  hz: 9,
  tickShift: 10,
  refresh: 11,
} as const

/** Looks for entries of the connection table that have to be told to others, and remembers what was told of each. */
export class SyncScan {
  readonly #told: Uint8Array<ArrayBuffer>
  readonly #scan = new Uint8Array(SCAN.size)
  readonly #words = new Uint32Array(this.#scan.buffer)
  readonly #due: Uint32Array<ArrayBuffer>

  /** `room`: how many entries run() names at most. */
  constructor(input: ScanInput, room: number) {
    this.#told = new Uint8Array(input.entries * TOLD)
    this.#due = new Uint32Array(room)
    const addresses = new BigUint64Array(this.#scan.buffer, 0, 3)
    addresses.set([ffi().address(input.conns), ffi().address(input.config), ffi().address(this.#told)])
    this.#words[SCAN.hz] = input.hz
    this.#words[SCAN.tickShift] = input.tickShift
    this.#words[SCAN.refresh] = input.refreshS
  }

  /** Looks at the entries from `at` to `end` at tick `now`: indexes of those that are due, and where to go on. */
  run(at: number, end: number, now: number): { readonly due: Uint32Array; readonly next: number } {
    this.#words.set([at, end, now], SCAN.at)
    const count = c.bpvs_sync_scan(this.#scan, this.#due, this.#due.length)
    return { due: this.#due.subarray(0, count), next: this.#words[SCAN.at] ?? end }
  }
}
