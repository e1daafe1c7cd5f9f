/** The ranges that cluster IPs are from, where nobody tells: the smallest prefixes that hold all that were seen. */
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../model/address.ts'
import type { Family, Prefix } from '../model/types.ts'
import { parsePrefix } from './address.ts'
import type { KubeVirtualService } from './virtual-services.ts'

/** The least and the greatest address of a family, as bytes: what both begin with, all between them do. */
interface Span {
  readonly least: Uint8Array
  readonly greatest: Uint8Array
}

export class SeenRanges {
  readonly #spans = new Map<Family, Span>()
  readonly #seen = new Map<Family, Prefix>()

  get prefixes(): readonly Prefix[] {
    return [...this.#seen.values()]
  }

  /** Takes note of cluster IPs; true if that changed the prefixes, which never become smaller. */
  note(services: Iterable<KubeVirtualService>): boolean {
    const widened = new Set<Family>()
    const bytes = new Uint8Array(ADDRESS_BYTES)
    for (const { role, service } of services) {
      if (role !== 'clusterIP' || service.key.kind !== 'address') continue
      const { family, address } = service.key
      if (writeAddress(bytes, 0, address, family) && this.#widen(family, bytes)) widened.add(family)
    }
    return [...widened].map((family) => this.#update(family)).includes(true)
  }

  /** True if the address is outside of the span. */
  #widen(family: Family, bytes: Uint8Array): boolean {
    const { least = bytes, greatest = bytes } = this.#spans.get(family) ?? {}
    const below = least === bytes || compare(bytes, least) < 0
    const above = greatest === bytes || compare(bytes, greatest) > 0
    if (!below && !above) return false
    this.#spans.set(family, { least: below ? bytes.slice() : least, greatest: above ? bytes.slice() : greatest })
    return true
  }

  /** True if the prefix is another one. */
  #update(family: Family): boolean {
    const span = this.#spans.get(family)
    if (span === undefined) return false
    const length = commonBits(span, family === 4 ? 32 : 128)
    const prefix = parsePrefix(`${formatAddress(span.least, 0, family)}/${length}`)
    if (prefix === undefined || length === this.#seen.get(family)?.length) return false
    this.#seen.set(family, prefix)
    return true
  }
}

function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < ADDRESS_BYTES; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

function commonBits({ least, greatest }: Span, most: number): number {
  for (let i = 0; i * 8 < most; i++) {
    const different = (least[i] ?? 0) ^ (greatest[i] ?? 0)
    if (different !== 0) return i * 8 + Math.clz32(different) - 24
  }
  return most
}
