/** Addresses as system calls take them. */
import { isIP } from 'node:net'
import { LbError } from '../model/errors.ts'

function parseV6(text: string): Uint8Array {
  const plain = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...quad: string[]) => {
    const [a = 0, b = 0, c = 0, d = 0] = quad.slice(0, 4).map(Number)
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
  })
  const [head = [], tail = []] = plain.split('::').map((half) => half.split(':').filter((group) => group !== ''))
  const groups = [...head, ...Array<string>(8 - head.length - tail.length).fill('0'), ...tail]
  return Uint8Array.from(
    groups.flatMap((group) => {
      const value = Number.parseInt(group, 16)
      return [value >> 8, value & 0xff]
    }),
  )
}

/** 4 or 16 bytes in network order. INVALID if it is no address (or has a zone). */
export function parseAddress(text: string): { family: 4 | 6; bytes: Uint8Array } {
  const version = text.includes('%') ? 0 : isIP(text)
  if (version === 4) return { family: 4, bytes: Uint8Array.from(text.split('.').map(Number)) }
  if (version === 6) return { family: 6, bytes: parseV6(text) }
  throw new LbError('INVALID', `${text} is no IP address`, { address: text })
}
