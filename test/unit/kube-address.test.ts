import t from 'tap'
import { parseIp, unusableIp } from '../../src/kube/address.ts'

t.test('addresses are read into the one text that the table uses', async (t) => {
  const rows: readonly (readonly [string, 4 | 6, string])[] = [
    ['10.96.0.1', 4, '10.96.0.1'],
    ['FD00:0:0::0:1', 6, 'fd00::1'],
    ['2001:db8:0:0:1:0:0:1', 6, '2001:db8::1:0:0:1'],
  ]
  for (const [text, family, address] of rows) t.same(parseIp(text), { family, address }, text)
})

t.test('what is no plain address is refused', async (t) => {
  for (const text of [
    '',
    '10.96.0',
    '010.96.0.1',
    '10.96.0.1/32',
    'fe80::1%eth0',
    '[fd00::1]',
    'localhost',
    '1.2.3.4 ',
  ]) {
    t.equal(parseIp(text), undefined, JSON.stringify(text))
  }
})

t.test('addresses that nobody can be reached at are told from the others', async (t) => {
  const rows: Readonly<Record<string, string | undefined>> = {
    '10.0.0.1': undefined,
    'fd00::1': undefined,
    '0.0.0.0': 'unspecified',
    '::': 'unspecified',
    '127.1.2.3': 'a loopback address',
    '::1': 'a loopback address',
    '169.254.1.1': 'a link-local address',
    'fe80::1': 'a link-local address',
    'febf::1': 'a link-local address',
    'fec0::1': undefined,
    '224.0.0.1': 'a multicast or reserved address',
    'ff02::1': 'a multicast address',
    '::ffff:10.0.0.1': 'an IPv4-mapped address',
  }
  for (const [text, reason] of Object.entries(rows)) {
    const ip = parseIp(text)
    t.ok(ip, text)
    if (ip !== undefined) t.equal(unusableIp(ip), reason, text)
  }
})
