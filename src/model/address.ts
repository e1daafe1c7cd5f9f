/** Addresses between text and the 16 bytes of union lb_addr: network order, an IPv4 address in the first four. */
import type { Family } from './types.ts'

export const ADDRESS_BYTES = 16

/**
 * Writes an address of `family` at `at` (all 16 bytes). False, and nothing promised about them, if the text is none.
 */
export function writeAddress(target: Uint8Array, at: number, text: string, family: Family): boolean {
  target.fill(0, at, at + ADDRESS_BYTES)
  return family === 4 ? writeIpv4(target, at, text) : writeIpv6(target, at, text)
}

/** The canonical text of the address at `at`; IPv6 as inet_ntop(), which ipvsadm prints with. */
export function formatAddress(bytes: Uint8Array, at: number, family: Family): string {
  return family === 4 ? formatIpv4(bytes, at) : formatIpv6(bytes, at)
}

function formatIpv4(bytes: Uint8Array, at: number): string {
  return `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`
}

/** Exactly four decimal numbers up to 255 without leading zeros. */
function writeIpv4(target: Uint8Array, at: number, text: string): boolean {
  let value = -1
  let part = 0
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : 46
    if (c === 46) {
      if (value < 0 || part > 3) return false
      target[at + part++] = value
      value = -1
    } else {
      if (c < 48 || c > 57 || value === 0) return false
      value = (value < 0 ? 0 : value * 10) + c - 48
      if (value > 255) return false
    }
  }
  return part === 4
}

function writeIpv6(target: Uint8Array, at: number, text: string): boolean {
  const halves = text.split('::')
  if (halves.length > 2) return false
  const head = writeGroups(target, at, halves[0] ?? '', halves.length === 1)
  if (head < 0) return false
  if (halves.length === 1) return head === ADDRESS_BYTES
  const tail = new Uint8Array(ADDRESS_BYTES)
  const count = writeGroups(tail, 0, halves[1] ?? '', true)
  // "::" stands for at least one group.
  if (count < 0 || head + count > ADDRESS_BYTES - 2) return false
  target.set(tail.subarray(0, count), at + ADDRESS_BYTES - count)
  return true
}

/**
 * Writes groups parted by ":"; the last may be an IPv4 address if `ipv4` allows it. Bytes written; -1: no such text.
 */
function writeGroups(target: Uint8Array, at: number, text: string, ipv4: boolean): number {
  if (text === '') return 0
  const groups = text.split(':')
  let bytes = 0
  for (const [i, group] of groups.entries()) {
    if (ipv4 && i === groups.length - 1 && group.includes('.')) {
      if (bytes > ADDRESS_BYTES - 4 || !writeIpv4(target, at + bytes, group)) return -1
      return bytes + 4
    }
    if (bytes >= ADDRESS_BYTES || !/^[0-9a-fA-F]{1,4}$/.test(group)) return -1
    const value = Number.parseInt(group, 16)
    target[at + bytes++] = value >> 8
    target[at + bytes++] = value & 255
  }
  return bytes
}

/** The first longest run of two or more zero groups; empty if there is none. */
function longestZeros(groups: readonly number[]): { readonly start: number; readonly length: number } {
  let best = { start: 0, length: 0 }
  for (let i = 0; i < groups.length; i++) {
    let end = i
    while (groups[end] === 0) end++
    if (end - i > best.length) best = { start: i, length: end - i }
    if (end > i) i = end
  }
  return best.length > 1 ? best : { start: 0, length: 0 }
}

function formatIpv6(bytes: Uint8Array, at: number): string {
  const groups: number[] = []
  for (let i = 0; i < ADDRESS_BYTES; i += 2) groups.push(((bytes[at + i] ?? 0) << 8) | (bytes[at + i + 1] ?? 0))
  const zeros = longestZeros(groups)
  if (zeros.start === 0 && (zeros.length === 6 || (zeros.length === 5 && groups[5] === 0xffff))) {
    return `${zeros.length === 6 ? '::' : '::ffff:'}${formatIpv4(bytes, at + 12)}`
  }
  const hex = groups.map((group) => group.toString(16))
  if (zeros.length === 0) return hex.join(':')
  return `${hex.slice(0, zeros.start).join(':')}::${hex.slice(zeros.start + zeros.length).join(':')}`
}
