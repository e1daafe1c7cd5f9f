import { isIPv6, SocketAddress } from 'node:net'
import t from 'tap'
import { formatAddress, parseIPv6, parseLooseIPv4 } from '../../src/cli/address.ts'
import { random } from '../helpers/random.ts'

t.test('IPv4 text is read as inet_aton reads it', async (t) => {
  const rows: readonly (readonly [string, string | undefined])[] = [
    ['10.9.0.1', '10.9.0.1'],
    ['10.9.1', '10.9.0.1'],
    ['10.9', '10.0.0.9'],
    ['10.65536', '10.1.0.0'],
    ['167837697', '10.1.0.1'],
    ['0x0a.9.0.1', '10.9.0.1'],
    ['012.9.0.1', '10.9.0.1'],
    ['10.9.0.1 x', '10.9.0.1'],
    ['4294967295', '255.255.255.255'],
    ['4294967296', undefined],
    ['10.9.0.256', undefined],
    ['10.9.65536', undefined],
    ['256.1', undefined],
    ['10.9.0.08', undefined],
    ['10..0.1', undefined],
    ['10.9.0.1.', undefined],
    ['1.2.3.4.5', undefined],
    ['10.9.0.1x', undefined],
    ['', undefined],
  ]
  for (const [text, address] of rows) t.equal(parseLooseIPv4(text), address, text)
})

t.test('IPv6 text is read and written as the system does it', async (t) => {
  const next = random(1)
  const letters = ['::', ':', '0', '1', 'ffff', 'fd00', 'A', '10.9.0.1', '01.2.3.4', 'g', '%lo', '00a1']
  let good = 0
  for (let round = 0; round < 20_000; round++) {
    const text = Array.from({ length: 1 + next(15) }, () => letters[next(round % 2 === 0 ? letters.length : 8)]).join(
      '',
    )
    const expected =
      isIPv6(text) && !text.includes('%') ? new SocketAddress({ address: text, family: 'ipv6' }).address : undefined
    const bytes = parseIPv6(text)
    if (bytes !== undefined) good++
    const found = bytes === undefined ? undefined : formatAddress(bytes)
    if (found !== expected) t.equal(found, expected, text)
  }
  t.ok(good > 100, `${good} of the texts were addresses`)
})

t.test('IPv6 bytes are written as the system writes them', async (t) => {
  const next = random(2)
  for (let round = 0; round < 5_000; round++) {
    const bytes = Uint8Array.from({ length: 16 }, () => (next(3) === 0 ? next(256) : 0))
    if (round % 7 === 0) bytes.fill(0, 0, 12)
    if (round % 14 === 0) bytes.fill(255, 10, 12)
    const groups = Array.from({ length: 8 }, (_, i) =>
      ((bytes[2 * i] ?? 0) * 256 + (bytes[2 * i + 1] ?? 0)).toString(16),
    )
    const expected = new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address
    if (formatAddress(bytes) !== expected) t.equal(formatAddress(bytes), expected, groups.join(':'))
  }
  t.pass('all were the same')
})
