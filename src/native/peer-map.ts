/** The nodes whose tunnels are taken, and this one (lb_peers). */
import { join } from 'node:path'
import { PinnedHash } from './pinned-hash.ts'
import { mapPin } from './pins.ts'

const KEY = 16

/** An entry: an address, IPv4's mapped into IPv6, and what it is (enum lb_peer). */
export interface PeerRecord {
  readonly key: Uint8Array
  readonly kind: number
}

export class PeerMap {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_peers')), KEY)
  }

  /** Makes them these; true if others were before. NATIVE: E2BIG if there are too many. */
  set(records: readonly PeerRecord[]): boolean {
    const before = new Map(this.#map.keys().map((key) => [textOf(key), key]))
    let changed = false
    for (const { key, kind } of records) {
      const found = new Uint8Array(Uint32Array.BYTES_PER_ELEMENT)
      const wanted = new Uint8Array(Uint32Array.of(kind).buffer)
      const isThere = before.delete(textOf(key)) && this.#map.get(key, found)
      if (isThere && found.every((byte, i) => byte === wanted[i])) continue
      this.#map.set(key, wanted, 'an address of a node')
      changed = true
    }
    for (const key of before.values()) this.#map.delete(key)
    return changed || before.size > 0
  }
}

function textOf(key: Uint8Array): string {
  return Buffer.from(key).toString('latin1')
}
