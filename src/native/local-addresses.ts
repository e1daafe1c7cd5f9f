/** Which addresses are the calling thread's network namespace's own. */
import { littleEndian } from '../abi/codec.ts'
import type { RouteType } from '../model/server-address.ts'
import { bind, check, type Signature } from './library.ts'
import { closeFd, type Fd } from './shim.ts'

interface Functions {
  bpvs_local_routes(family: number, out: Uint8Array, room: number): number
  bpvs_route_type(fd: Fd, family: number, address: Uint8Array): number
  bpvs_rtnl(): number
}

const c = bind<Functions>({
  bpvs_local_routes: ['int', 'uint32', 'void *', 'uint32'],
  bpvs_route_type: ['int', 'int', 'uint32', 'void *'],
  bpvs_rtnl: ['int'],
} satisfies Record<keyof Functions, Signature>)

const RECORD = 20 /* struct bpvs_prefix */

/** By RTN_* */
const routeTypes: readonly RouteType[] = [undefined, 'unicast', 'local', 'broadcast', undefined, 'multicast']

/** Prefixes of one family by length. */
type Prefixes = ReadonlyMap<number, ReadonlySet<number | string>>

/** The bits of a prefix that stands at `at`, as the key of a Set. */
export function prefixKey(bytes: Uint8Array, at: number, length: number): number | string {
  let key: number | string = wordOf(bytes, at, length)
  for (let from = 32; from < length; from += 32) key = `${key}:${wordOf(bytes, at + from / 8, length - from)}`
  return key
}

/** The first `bits` of the four bytes at `at`. */
function wordOf(bytes: Uint8Array, at: number, bits: number): number {
  if (bits <= 0) return 0
  const word =
    ((bytes[at] ?? 0) << 24) | ((bytes[at + 1] ?? 0) << 16) | ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0)
  return bits >= 32 ? word : word & (-1 << (32 - bits))
}

function listLocalRoutes(family: 4 | 6): Prefixes {
  for (let room = 64; ; room *= 4) {
    const out = new Uint8Array(room * RECORD)
    const count = check(c.bpvs_local_routes(family, out, room), 'RTM_GETROUTE')
    if (count > room) continue
    const prefixes = new Map<number, Set<number | string>>()
    const view = new DataView(out.buffer)
    for (let at = 0; at < count * RECORD; at += RECORD) {
      const length = view.getUint32(at + 16, littleEndian)
      const known = prefixes.get(length) ?? new Set()
      prefixes.set(length, known.add(prefixKey(out, at, length)))
    }
    return prefixes
  }
}

/**
 * Answers as the kernel's inet_addr_type() does: by how a packet to the address would be routed. So that very many can
 * be asked about, those that no route of type local covers (as the routes were at the last refresh) are not asked for.
 */
export class LocalAddresses {
  readonly #fd: Fd
  #routes: Readonly<Record<4 | 6, Prefixes>> = { 4: new Map(), 6: new Map() }

  constructor() {
    this.#fd = check(c.bpvs_rtnl(), 'socket(NETLINK_ROUTE)') as Fd
  }

  /** Reads the routes, of the calling thread's namespace. NATIVE. */
  refresh(): void {
    this.#routes = { 4: listLocalRoutes(4), 6: listLocalRoutes(6) }
  }

  /** The address at `at`: 4 or 16 bytes in network order. */
  has(family: 4 | 6, bytes: Uint8Array, at: number): boolean {
    for (const [length, prefixes] of this.#routes[family]) {
      if (prefixes.has(prefixKey(bytes, at, length))) return this.type(family, bytes, at) === 'local'
    }
    return false
  }

  /** Of the address at `at`, whatever was refreshed. NATIVE. */
  type(family: 4 | 6, bytes: Uint8Array, at: number): RouteType {
    const address = bytes.slice(at, at + (family === 4 ? 4 : 16))
    return routeTypes[check(c.bpvs_route_type(this.#fd, family, address), 'RTM_GETROUTE')]
  }

  close(): void {
    closeFd(this.#fd)
  }
}
