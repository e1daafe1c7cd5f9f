import { Buffer } from 'node:buffer'
import t from 'tap'
import { LbLimit } from '../../src/abi/generated.ts'
import { intervalsOf, packIntervals, prefixesOf, unpackIntervals } from '../../src/maps/intervals.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Family, Prefix } from '../../src/model/types.ts'
import { seeded } from '../helpers/table-specs.ts'

function prefix(text: string): Prefix {
  const [address = '', length] = text.split('/')
  return { family: address.includes(':') ? 6 : 4, address, length: Number(length) }
}

/** What the prefixes come to, as prefixes again. */
function merged(texts: readonly string[]): string[] {
  const prefixes = texts.map(prefix)
  const family = prefixes[0]?.family ?? 4
  return prefixesOf(intervalsOf(prefixes, family), family).map(({ address, length }) => `${address}/${length}`)
}

t.test('prefixes become intervals in order that neither overlap nor touch', async (t) => {
  const rows: readonly (readonly [what: string, given: readonly string[], expect: readonly string[]])[] = [
    ['one', ['10.1.0.0/16'], ['10.1.0.0/16']],
    ['bits that do not count', ['10.1.2.3/16'], ['10.1.0.0/16']],
    ['the same twice', ['10.1.0.0/16', '10.1.0.0/16'], ['10.1.0.0/16']],
    ['one within another', ['10.1.2.0/24', '10.0.0.0/8', '10.255.255.255/32'], ['10.0.0.0/8']],
    ['neighbours', ['10.0.1.0/24', '10.0.0.0/24'], ['10.0.0.0/23']],
    ['neighbours that are no prefix together', ['10.0.1.0/24', '10.0.2.0/24'], ['10.0.1.0/24', '10.0.2.0/24']],
    ['apart, and not in order', ['192.0.2.0/24', '10.0.0.1/32'], ['10.0.0.1/32', '192.0.2.0/24']],
    ['everything', ['0.0.0.0/0', '10.0.0.0/8'], ['0.0.0.0/0']],
    ['halves of everything', ['128.0.0.0/1', '0.0.0.0/1'], ['0.0.0.0/0']],
    ['the last address', ['255.255.255.255/32', '255.255.255.254/32'], ['255.255.255.254/31']],
    ['IPv6', ['fd00:2::/64', 'fd00:1::1/128', 'fd00:1::/128'], ['fd00:1::/127', 'fd00:2::/64']],
    ['all of IPv6', ['::/0', 'fd00::/8'], ['::/0']],
  ]
  for (const [what, given, expect] of rows) t.same(merged(given), expect, what)
  const { length } = intervalsOf([prefix('10.0.1.0/24'), prefix('10.0.2.0/24')], 4)
  t.equal(length, 1, 'neighbours are one interval though two prefixes')
})

t.test('intervals are in the table as addresses of packets are', async (t) => {
  const packed = packIntervals(intervalsOf([prefix('10.1.0.0/16'), prefix('192.0.2.1/32')], 4), 4)
  const zeros = '00'.repeat(12)
  t.equal(
    Buffer.from(packed, 'latin1').toString('hex'),
    `0a010000${zeros}0a01ffff${zeros}c0000201${zeros}c0000201${zeros}`,
  )
  const six = packIntervals(intervalsOf([prefix('fd00:1::/32')], 6), 6)
  t.equal(Buffer.from(six, 'latin1').toString('hex'), `fd000001${'00'.repeat(12)}fd000001${'ff'.repeat(12)}`)
})

t.test('an address is in the intervals if it is in a prefix', async (t) => {
  const random = seeded(9)
  for (const family of [4, 6] as const) {
    const bits = family === 4 ? 32 : 128
    const text = (n: number) => (family === 4 ? `10.0.${n >> 8}.${n & 255}` : `fd00::${n.toString(16)}`)
    for (let round = 0; round < 50; round++) {
      const prefixes = Array.from({ length: 1 + random(12) }, (): Prefix => {
        return { family, address: text(random(4096)), length: bits - random(9) }
      })
      const intervals = intervalsOf(prefixes, family)
      t.same(unpackIntervals(packIntervals(intervals, family), family), intervals)
      t.same(intervalsOf(prefixesOf(intervals, family), family), intervals)
      const isIn = (n: number, among: readonly Prefix[]) =>
        among.some((each) => {
          const [one, whole] = [each, { ...each, address: text(n) }].map((p) => intervalsOf([p], family)[0])
          return one?.first === whole?.first
        })
      const { first = 0n } = intervalsOf([{ family, address: text(0), length: bits }], family)[0] ?? {}
      for (const n of [0, 1, 4095, random(4096), random(4096), random(4096)]) {
        const found = intervals.some((each) => each.first <= first + BigInt(n) && first + BigInt(n) <= each.last)
        t.equal(found, isIn(n, prefixes))
      }
    }
  }
})

t.test('what is no prefix of the family is named, and so is how many are too many', async (t) => {
  const rows: readonly (readonly [Prefix, Family])[] = [
    [{ family: 4, address: '10.0.0.0', length: 33 }, 4],
    [{ family: 4, address: '10.0.0', length: 8 }, 4],
    [{ family: 6, address: 'fd00::', length: 8 }, 4],
    [{ family: 6, address: 'fd00::', length: 129 }, 6],
  ]
  for (const [wrong, family] of rows) {
    const value = `${wrong.address}/${wrong.length}`
    t.throws(() => intervalsOf([wrong], family), { code: 'INVALID', detail: { what: `IPv${family} prefix`, value } })
  }
  const many = Array.from({ length: LbLimit.MAX_INTERVALS + 1 }, (_, i) => ({
    first: BigInt(2 * i),
    last: BigInt(2 * i),
  }))
  t.throws(() => packIntervals(many, 4), LbError)
  t.throws(() => packIntervals(many, 4), {
    code: 'INVALID',
    message: '65537 separate ranges of source addresses are more than 65536',
  })
  t.equal(packIntervals(many.slice(1), 4).length, 32 * LbLimit.MAX_INTERVALS)
})
