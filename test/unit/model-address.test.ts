import t from 'tap'
import { formatAddress, writeAddress } from '../../src/model/address.ts'
import type { Family } from '../../src/model/types.ts'

function canonical(text: string, family: Family): string | undefined {
  const bytes = new Uint8Array(20).fill(0xee)
  return writeAddress(bytes, 2, text, family) ? formatAddress(bytes, 2, family) : undefined
}

t.test('an IPv4 address is four decimal numbers in network order, and zeros after it', async (t) => {
  const bytes = new Uint8Array(16).fill(0xee)
  t.ok(writeAddress(bytes, 0, '10.9.0.255', 4))
  t.same([...bytes], [10, 9, 0, 255, ...new Array<number>(12).fill(0)])
  t.equal(canonical('255.0.0.1', 4), '255.0.0.1')
})

t.test('what is no IPv4 address is refused', async (t) => {
  for (const text of [
    '',
    '10.9.0',
    '10.9.0.1.2',
    '256.1.1.1',
    '1.2.3.',
    '.1.2.3',
    '1..2.3',
    '01.2.3.4',
    '1.2.3.4 ',
    'a.b.c.d',
  ]) {
    t.equal(canonical(text, 4), undefined, JSON.stringify(text))
  }
})

t.test('IPv6 text comes out as inet_ntop() writes it', async (t) => {
  const rows = [
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:9::0:1', 'fd00:9::1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:0:2:3:4:5:6:7', '1:0:2:3:4:5:6:7'],
    ['1:0:0:4:5:0:0:8', '1::4:5:0:0:8'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['1:2:3:4:5:6::', '1:2:3:4:5:6::'],
    ['::ffff:10.1.2.3', '::ffff:10.1.2.3'],
    ['::10.1.2.3', '::10.1.2.3'],
    ['64:ff9b::10.1.2.3', '64:ff9b::a01:203'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['fe80::1', 'fe80::1'],
  ] as const
  for (const [text, due] of rows) t.equal(canonical(text, 6), due, text)
})

t.test('what is no IPv6 address is refused', async (t) => {
  const rows = [
    '',
    ':',
    ':::',
    '1',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7',
    '::1.2.3',
    '1.2.3.4',
    '1:2:3:4:5:6:7:1.2.3.4',
    'fe80::1%eth0',
    ':1::2',
    '1.2.3.4::',
  ]
  for (const text of rows) t.equal(canonical(text, 6), undefined, JSON.stringify(text))
})
