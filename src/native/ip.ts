/** Addresses as system calls take them. */
import { ADDRESS_BYTES, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'

/** 4 or 16 bytes in network order. INVALID if it is no address (or has a zone). */
export function parseAddress(text: string): { family: 4 | 6; bytes: Uint8Array } {
  const family = text.includes(':') ? 6 : 4
  const bytes = new Uint8Array(ADDRESS_BYTES)
  if (!writeAddress(bytes, 0, text, family)) throw new LbError('INVALID', `${text} is no IP address`, { address: text })
  return { family, bytes: family === 4 ? bytes.subarray(0, 4) : bytes }
}
