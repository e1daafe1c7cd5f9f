import t from 'tap'
import { type IpAddress, isWithin, parseIp, parsePrefix, unusableIp } from '../../src/kube/address.ts'
import { decodeNode } from '../../src/kube/decode.ts'
import { nodePortAddresses, primaryAddresses } from '../../src/kube/node-addresses.ts'

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

t.test('a prefix is read with the bits beyond its length cleared', async (t) => {
  const rows = [
    ['10.1.2.3/8', { family: 4, address: '10.0.0.0', length: 8 }],
    ['10.1.2.3/32', { family: 4, address: '10.1.2.3', length: 32 }],
    ['0.0.0.0/0', { family: 4, address: '0.0.0.0', length: 0 }],
    ['fd00:1:2::3/33', { family: 6, address: 'fd00:1::', length: 33 }],
    ['::/0', { family: 6, address: '::', length: 0 }],
  ] as const
  for (const [text, prefix] of rows) t.same(parsePrefix(text), prefix, text)
  for (const text of ['', '10.0.0.0', '10.0.0.0/33', 'fd00::/129', '10.0.0/8', '10.0.0.0/', '10.0.0.0/-1', 'x/8']) {
    t.equal(parsePrefix(text), undefined, text)
  }
})

t.test('an address lies within a prefix of its family whose bits it has', async (t) => {
  const rows: readonly (readonly [string, string, boolean])[] = [
    ['10.255.0.1', '10.0.0.0/8', true],
    ['11.0.0.1', '10.0.0.0/8', false],
    ['192.0.2.7', '192.0.2.6/31', true],
    ['192.0.2.8', '192.0.2.6/31', false],
    ['255.255.255.255', '0.0.0.0/0', true],
    ['fd00::1', '0.0.0.0/0', false],
    ['fd00:0:0:8000::1', 'fd00::/48', true],
    ['fd00:0:1::1', 'fd00::/48', false],
  ]
  for (const [address, text, within] of rows) {
    const [ip, prefix] = [parseIp(address), parsePrefix(text)]
    t.equal(ip !== undefined && prefix !== undefined && isWithin(ip, prefix), within, `${address} in ${text}`)
  }
})

t.test(
  "node ports are served on the host's own addresses that are asked for, never on loopback or link-local ones",
  async (t) => {
    const ips = (...texts: readonly string[]): IpAddress[] => texts.map(parseIp).filter((ip) => ip !== undefined)
    const own = ips('127.0.0.1', '192.0.2.1', '10.0.0.1', '::1', 'fe80::1', 'fd00::1')
    const primaries = ips('10.0.0.1', 'fd00::1')
    const served = (...wanted: readonly string[]): string[] =>
      nodePortAddresses(wanted, own, primaries).map(({ address }) => address)
    t.same(served(), ['192.0.2.1', '10.0.0.1', 'fd00::1'])
    t.same(served('0.0.0.0/0', '::/0'), ['192.0.2.1', '10.0.0.1', 'fd00::1'])
    t.same(served('127.0.0.0/8', '10.0.0.0/8'), ['10.0.0.1', 'fd00::1'], 'a family of which nothing is said has all')
    t.same(served('10.0.0.0/8', 'fd01::/16'), ['10.0.0.1'])
    t.same(served('primary'), ['10.0.0.1', 'fd00::1'])
  },
)

t.test("a Node's primary address of a family is bindAddress, or the first that it has", async (t) => {
  const addresses = [
    { type: 'Hostname', address: 'n' },
    { type: 'ExternalIP', address: '203.0.113.1' },
    { type: 'InternalIP', address: '192.0.2.1' },
    { type: 'InternalIP', address: 'fd00::1' },
  ]
  const node = decodeNode({ metadata: { name: 'n' }, status: { addresses } })
  const of = (bind: string, known: typeof node | undefined = node): string[] =>
    primaryAddresses(parseIp(bind), known).map(({ address }) => address)
  t.same(of('0.0.0.0'), ['192.0.2.1', 'fd00::1'])
  t.same(of('198.51.100.1'), ['198.51.100.1', 'fd00::1'])
  t.same(of('::'), ['192.0.2.1', 'fd00::1'])
  t.same(primaryAddresses(undefined, undefined), [])
})

t.test('a Node that is going, or about to, is not for load balancers; one that is only unschedulable is', async (t) => {
  const eligible = (metadata: object, spec: object): boolean => decodeNode({ metadata, spec }).eligible
  t.equal(eligible({ name: 'n' }, { unschedulable: true }), true)
  t.equal(eligible({ name: 'n', deletionTimestamp: '2026-01-01T00:00:00Z' }, {}), false)
  t.equal(eligible({ name: 'n' }, { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] }), false)
  t.equal(eligible({ name: 'n' }, { taints: [{ key: 'other' }] }), true)
})
