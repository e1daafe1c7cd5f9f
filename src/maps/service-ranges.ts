/** Ranges of addresses that virtual services are given from: what of it no service takes is refused or dropped. */
import { LbLimit, LbServiceRangeArray } from '../abi/generated.ts'
import { formatAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Prefix } from '../model/types.ts'
import { updateFeatures } from './features.ts'
import { prefixBytes, prefixLength } from './prefixes.ts'
import type { TableMaps } from './table-maps.ts'

export interface ServiceRanges {
  readonly prefixes: readonly Prefix[]
  /** They are all services': an address of no service is nobody's. Else only ports of services' addresses are theirs alone. */
  readonly known: boolean
}

/** Those in force. */
export function readServiceRanges(maps: TableMaps): ServiceRanges {
  const records = recordsOf(maps)
  const ids = Array.from({ length: maps.config.ranges(0) }, (_, i) => i)
  const prefixes = ids.map((i): Prefix => {
    const family = records.af(i) === 6 ? 6 : 4
    return { family, address: formatAddress(records.net(i), 0, family), length: prefixLength(records.mask(i)) }
  })
  return { prefixes, known: ids.some((i) => records.unused(i) !== 0) }
}

/** True if that changed anything. TABLE_FULL, INVALID; nothing has changed then. The table's lock is held. */
export function writeServiceRanges(maps: TableMaps, { prefixes, known }: ServiceRanges): boolean {
  if (prefixes.length > LbLimit.MAX_SERVICE_RANGES) {
    throw new LbError('TABLE_FULL', undefined, { map: 'lb_service_ranges', entries: LbLimit.MAX_SERVICE_RANGES })
  }
  const fresh = new LbServiceRangeArray(new ArrayBuffer(LbServiceRangeArray.size * LbLimit.MAX_SERVICE_RANGES))
  for (const [i, prefix] of prefixes.entries()) {
    const { address, mask } = prefixBytes(prefix)
    fresh.setNet(i, address)
    fresh.setMask(i, mask)
    fresh.setAf(i, prefix.family)
    fresh.setUnused(i, known ? 1 : 0)
  }
  const records = recordsOf(maps)
  if (maps.config.ranges(0) === prefixes.length && fresh.u8.every((byte, i) => byte === records.u8[i])) return false
  /* Nobody reads a range that is half written: meanwhile what no service takes passes. */
  maps.config.setRanges(0, 0)
  maps.handles.gracePeriod()
  records.u8.set(fresh.u8)
  writeNear(maps.config, prefixes)
  maps.config.setRanges(0, prefixes.length)
  updateFeatures(maps)
  return true
}

/** What all prefixes of a family have in common in their first 32 bits; of none, that is an address that nobody has. */
function commonBits(prefixes: readonly Prefix[], family: Prefix['family']): { bits: number; mask: number } {
  const parts = prefixes
    .filter((prefix) => prefix.family === family)
    .map((prefix) => {
      const { address, mask } = prefixBytes(prefix)
      return { bits: firstWord(address), mask: firstWord(mask) }
    })
  const [first] = parts
  if (first === undefined) return { bits: 0xffffffff, mask: 0xffffffff }
  const differ = parts.reduce((all, { bits, mask }) => all | (bits ^ first.bits) | ~mask, 0)
  const mask = differ === 0 ? 0xffffffff : ~(0xffffffff >>> Math.clz32(differ)) >>> 0
  return { bits: (first.bits & mask) >>> 0, mask }
}

function firstWord(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)
}

function writeNear(config: TableMaps['config'], prefixes: readonly Prefix[]): void {
  const four = commonBits(prefixes, 4)
  config.setRangeNear4(0, four.bits)
  config.setRangeNear4Mask(0, four.mask)
  const six = commonBits(prefixes, 6)
  config.setRangeNear6(0, six.bits)
  config.setRangeNear6Mask(0, six.mask)
}

function recordsOf(maps: TableMaps): LbServiceRangeArray {
  return new LbServiceRangeArray(maps.handles.buffer('lb_service_ranges'))
}
