/** Addresses as the C library reads and writes them: inet_aton, inet_pton and inet_ntop. Bytes are in network order. */
import type { Family } from '../model/types.ts'

/** An address with its family, in canonical text. */
export interface Address {
  readonly family: Family
  readonly address: string
}

/**
 * Reads IPv4 text as inet_aton does: one to four parts, each decimal, octal (0...) or hexadecimal (0x...), the last
 * filling all bytes that are left (10.9 is 10.0.0.9); white space ends the text. Undefined when it is none.
 */
export function parseLooseIPv4(text: string): string | undefined {
  const parts = text.replace(/[ \t-\r].*$/s, '').split('.')
  if (parts.length > 4) return undefined
  const numbers = parts.map(parseCNumber)
  const last = numbers.pop()
  if (last === undefined || last >= 256 ** (4 - numbers.length)) return undefined
  let value = last
  for (const [index, part] of numbers.entries()) {
    if (part === undefined || part > 255) return undefined
    value += part * 256 ** (3 - index)
  }
  return formatIPv4(value)
}

function parseCNumber(text: string): number | undefined {
  if (/^0[xX][0-9a-fA-F]+$/.test(text)) return parseInt(text.slice(2), 16)
  if (/^0[0-7]*$/.test(text)) return parseInt(text, 8)
  return /^[1-9][0-9]*$/.test(text) ? parseInt(text, 10) : undefined
}

/** An IPv4 address of a 32-bit number in host order. */
export function formatIPv4(value: number): string {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join('.')
}

/** The 16 bytes of IPv6 text (no zone, no brackets), or undefined when it is none. */
export function parseIPv6(text: string): Uint8Array | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const head = parseGroups(halves[0] ?? '', halves.length === 1)
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? '', true) : []
  if (head === undefined || tail === undefined) return undefined
  const count = head.length + tail.length
  if (halves.length === 1 ? count !== 8 : count > 7) return undefined
  const groups = [...head, ...new Array<number>(8 - count).fill(0), ...tail]
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255]))
}

/** Groups of 16 bits; the last may be dotted IPv4 where `dotted`. */
function parseGroups(text: string, dotted: boolean): number[] | undefined {
  if (text === '') return []
  const words = text.split(':')
  const groups: number[] = []
  for (const [index, word] of words.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(word)) {
      groups.push(parseInt(word, 16))
      continue
    }
    const bytes = dotted && index === words.length - 1 ? parseIPv4(word) : undefined
    if (bytes === undefined) return undefined
    groups.push((bytes[0] ?? 0) * 256 + (bytes[1] ?? 0), (bytes[2] ?? 0) * 256 + (bytes[3] ?? 0))
  }
  return groups
}

/** The bytes of four decimal numbers without leading zeros, as inet_pton takes them, or undefined. */
export function parseIPv4(text: string): Uint8Array | undefined {
  const parts = text.split('.')
  const good = parts.length === 4 && parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255)
  return good ? Uint8Array.from(parts, Number) : undefined
}

/** Canonical text of 4 or 16 bytes. */
export function formatAddress(bytes: Uint8Array): string {
  return bytes.length === 4 ? bytes.join('.') : formatIPv6(bytes)
}

/** IPv6 text as inet_ntop writes it: the first longest run of two or more zero groups is `::`. */
export function formatIPv6(bytes: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, index) => (bytes[index * 2] ?? 0) * 256 + (bytes[index * 2 + 1] ?? 0))
  const run = longestZeroRun(groups)
  const dotted = [...bytes.subarray(12)].join('.')
  if (run.start === 0 && run.length === 6) return `::${dotted}`
  if (run.start === 0 && run.length === 5 && groups[5] === 0xffff) return `::ffff:${dotted}`
  const hex = groups.map((group) => group.toString(16))
  if (run.length < 2) return hex.join(':')
  return `${hex.slice(0, run.start).join(':')}::${hex.slice(run.start + run.length).join(':')}`
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: -1, length: 0 }
  let start = 0
  for (let index = 0; index <= groups.length; index++) {
    if (groups[index] === 0) continue
    if (index - start > best.length) best = { start, length: index - start }
    start = index + 1
  }
  return best
}

/** The address as 32-bit words in host order: one of IPv4, four of IPv6. Throws RangeError on text that is no address. */
export function addressWords(address: Address): number[] {
  if (address.family === 4) return [dottedNumber(address.address)]
  const bytes = parseIPv6(address.address)
  if (bytes === undefined) throw new RangeError(`not an IPv6 address: ${address.address}`)
  const view = new DataView(bytes.buffer)
  return [0, 4, 8, 12].map((offset) => view.getUint32(offset))
}

/** The number of canonical IPv4 text, in host order. */
export function dottedNumber(text: string): number {
  let value = 0
  let part = 0
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i)
    if (character !== 46) {
      part = part * 10 + character - 48
      continue
    }
    value = value * 256 + part
    part = 0
  }
  return value * 256 + part
}

/** 224.0.0.0/4, ff00::/8. */
export function isMulticast(address: Address): boolean {
  const [first = 0] = addressWords(address)
  return address.family === 6 ? first >>> 24 === 0xff : first >>> 28 === 14
}
