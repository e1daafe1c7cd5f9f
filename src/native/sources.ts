/** What this host sends from to servers in tunnels (lb_sources), where the kernel does not tell the programs: before 6.7. */
import { Buffer } from 'node:buffer'
import { join } from 'node:path'
import { bind, type Signature } from './library.ts'
import { PinnedHash } from './pinned-hash.ts'
import { mapPin } from './pins.ts'

interface Functions {
  bpvs_source(family: number, to: Uint8Array, out: Uint8Array): number
}
const c = bind<Functions>({
  bpvs_source: ['int', 'uint32', 'void *', 'void *'],
} satisfies Record<keyof Functions, Signature>)

/** An address: 4 or 16 bytes in network order, by its family. */
export interface TunnelEnd {
  readonly family: 4 | 6
  readonly address: Uint8Array
}

const KEY = 16
const MAPPED = 12 /* an IPv4 address is mapped into IPv6: the last four bytes */

export class Sources {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_sources')), KEY)
  }

  /** Notes what the calling thread's namespace sends from to each, as its routes are now. NATIVE: E2BIG if there are too many. */
  tell(ends: readonly TunnelEnd[]): void {
    for (const end of ends) {
      const source = sourceOf(end)
      if (source === undefined) this.#map.delete(keyOf(end))
      else this.#map.set(keyOf(end), source, 'a source of tunnels')
    }
  }

  /** The same, and forgets all others. */
  tellOnly(ends: readonly TunnelEnd[]): void {
    const keep = new Set(ends.map((end) => keyText(keyOf(end))))
    for (const key of this.#map.keys()) if (!keep.has(keyText(key))) this.#map.delete(key)
    this.tell(ends)
  }

  /** What was noted for one; undefined: nothing. */
  get(end: TunnelEnd): Uint8Array | undefined {
    const value = new Uint8Array(KEY)
    return this.#map.get(keyOf(end), value) ? value : undefined
  }
}

/** 16 bytes; undefined: there is no way there, or nothing to send from. */
function sourceOf({ family, address }: TunnelEnd): Uint8Array | undefined {
  const source = new Uint8Array(KEY)
  return c.bpvs_source(family, Uint8Array.from(address), source) < 0 || source.every((byte) => byte === 0)
    ? undefined
    : source
}

function keyOf({ family, address }: TunnelEnd): Uint8Array {
  if (family === 6) return Uint8Array.from(address)
  const key = new Uint8Array(KEY).fill(0xff, MAPPED - 2, MAPPED)
  key.set(address, MAPPED)
  return key
}

function keyText(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1')
}
