/** The ranges that cluster IPs are from, where nobody tells: the smallest prefixes that hold all that were seen. */
import type { Family, Prefix } from '../model/types.ts'
import { type IpAddress, isWithin, parsePrefix } from './address.ts'
import type { KubeVirtualService } from './virtual-services.ts'

export class SeenRanges {
  readonly #seen = new Map<Family, Prefix>()

  get prefixes(): readonly Prefix[] {
    return [...this.#seen.values()]
  }

  /** Takes note of cluster IPs; true if that changed the prefixes, which never become smaller. */
  note(services: Iterable<KubeVirtualService>): boolean {
    let changed = false
    for (const { role, service } of services) {
      if (role !== 'clusterIP' || service.key.kind !== 'address') continue
      const { family, address } = service.key
      const before = this.#seen.get(family)
      const after = widened(before, { family, address })
      if (after === before || after === undefined) continue
      this.#seen.set(family, after)
      changed = true
    }
    return changed
  }
}

/** The longest prefix that holds an address and all that a prefix did. */
function widened(before: Prefix | undefined, ip: IpAddress): Prefix | undefined {
  let prefix = before ?? parsePrefix(`${ip.address}/${ip.family === 4 ? 32 : 128}`)
  while (prefix !== undefined && !isWithin(ip, prefix)) prefix = parsePrefix(`${prefix.address}/${prefix.length - 1}`)
  return prefix
}
