/** Prefixes as the table has them: an address without the bits that do not count, and those that do. Pure. */
import { ADDRESS_BYTES, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Prefix } from '../model/types.ts'

const addressBits = { 4: 32, 6: 128 } as const

/** INVALID. */
export function prefixBytes(prefix: Prefix): { readonly address: Uint8Array; readonly mask: Uint8Array } {
  const address = new Uint8Array(ADDRESS_BYTES)
  const mask = new Uint8Array(ADDRESS_BYTES)
  const { length, family } = prefix
  if (!writeAddress(address, 0, prefix.address, family) || length < 0 || length > addressBits[family]) {
    throw new LbError('INVALID', undefined, { what: 'prefix', value: `${prefix.address}/${length}` })
  }
  for (let i = 0; i < ADDRESS_BYTES; i++) {
    mask[i] = (0xff00 >> Math.min(8, Math.max(0, length - i * 8))) & 0xff
    address[i]! &= mask[i] ?? 0
  }
  return { address, mask }
}

/** Bits that count. */
export function prefixLength(mask: Uint8Array): number {
  return mask.reduce((bits, byte) => bits + byte.toString(2).replaceAll('0', '').length, 0)
}
