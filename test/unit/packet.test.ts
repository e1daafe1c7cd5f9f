/** The packet builder and its readers, against packets that a Linux kernel sent. */
import t from 'tap'
import { decode, describe } from '../helpers/decode.ts'
import { Mutator, runnable } from '../helpers/fuzz.ts'
import { build, ether, icmp, icmp6, ipv4, ipv6, onesSum, tcp, udp } from '../helpers/packet.ts'
import { invalid, transportChecksumHolds } from '../helpers/validate.ts'

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'))
}

const there = ether({ to: '02:00:00:00:00:02', from: '02:00:00:00:00:01' })
const back = ether({ to: '02:00:00:00:00:01', from: '02:00:00:00:00:02' })
const four = { from: '192.0.2.1', to: '192.0.2.2' }
const six = { from: '2001:db8::1', to: '2001:db8::2' }
const synOptions4 = bytes('020405b4 0402080a d60b7cf9 00000000 0103030a')
const synOptions6 = bytes('020405a0 0402080a 356b14e4 00000000 0103030a')

const sent = [
  {
    what: 'UDP over IPv4',
    packet: build(there, ipv4({ ...four, id: 0x76db }), udp({ sport: 4000, dport: 53 }), Buffer.from('bpvs!')),
    kernel: `020000000002020000000001080045000021 76db40004011 3fed c0000201c0000202
      0fa00035000d 7217 6270767321`,
  },
  {
    what: 'UDP of odd length over IPv6',
    packet: build(there, ipv6({ ...six, flowLabel: 0x956e2 }), udp({ sport: 4001, dport: 53 }), Buffer.from('odd')),
    kernel: `02000000000202000000000186dd600956e2000b1140
      20010db8000000000000000000000001 20010db8000000000000000000000002 0fa10035000b c128 6f6464`,
  },
  {
    what: 'a SYN with options over IPv4',
    packet: build(
      there,
      ipv4({ ...four, id: 0xb46f }),
      tcp({ sport: 4002, dport: 80, flags: 'S', seq: 0x6371d4f6, window: 64240, options: synOptions4 }),
    ),
    kernel: `02000000000202000000000108004500003cb46f40004006 0249 c0000201c0000202
      0fa200506371d4f600000000a002faf0 2da9 0000 020405b40402080ad60b7cf9000000000103030a`,
  },
  {
    what: 'a SYN with options over IPv6',
    packet: build(
      there,
      ipv6({ ...six, flowLabel: 0xc8f37 }),
      tcp({ sport: 4002, dport: 80, flags: 'S', seq: 0x52deb695, window: 64800, options: synOptions6 }),
    ),
    kernel: `02000000000202000000000186dd600c8f3700280640
      20010db8000000000000000000000001 20010db8000000000000000000000002
      0fa2005052deb69500000000a002fd20 8bc6 0000 020405a00402080a356b14e4000000000103030a`,
  },
  {
    what: 'a reset over IPv4',
    packet: build(
      back,
      ipv4({ from: four.to, to: four.from }),
      tcp({ sport: 80, dport: 4002, flags: 'RA', seq: 0, ack: 0x6371d4f7, window: 0 }),
    ),
    kernel: `0200000000010200000000020800450000280000400040 06 b6cc c0000202c0000201
      00500fa2000000006371d4f750140000 e371 0000`,
  },
  {
    what: 'an echo request of odd length',
    packet: build(there, ipv4({ ...four, id: 0x4f67 }), icmp({ type: 8, rest: 0x39e50001 }), Uint8Array.of(0, 1, 2)),
    kernel: `0200000000020200000000010800 4500001f4f6740004001 6773 c0000201c0000202 0800 bc18 39e50001 000102`,
  },
  {
    what: 'a router solicitation',
    packet: build(
      ether({ to: '33:33:00:00:00:02', from: '02:00:00:00:00:02' }),
      ipv6({ from: 'fe80::ff:fe00:2', to: 'ff02::2', hopLimit: 255 }),
      icmp6({ type: 133 }),
      bytes('0101020000000002'),
    ),
    kernel: `33330000000202000000000286dd6000000000103aff fe8000000000000000 0000fffe000002
      ff020000000000000000000000000002 8500 7b2a 00000000 0101020000000002`,
  },
]

for (const { what, packet, kernel } of sent) {
  t.test(`${what} is built as the kernel sends it`, async (t) => {
    t.equal(Buffer.from(packet).toString('hex'), Buffer.from(bytes(kernel)).toString('hex'))
    t.equal(invalid(packet), undefined, 'it is valid')
    t.ok(transportChecksumHolds(packet), 'its checksum holds')
    t.notMatch(describe(packet), /WRONG/)
  })
}

t.test('a sum is that of RFC 1071', async (t) => {
  t.equal(onesSum(bytes('0001f203f4f5f6f7')), 0xddf2)
  t.equal(onesSum(bytes('ff')), 0xff00, 'an odd byte is the high half of a word')
})

t.test('fields are read back as they were given', async (t) => {
  const quoted = build(ipv4(four), udp({ sport: 7, dport: 8 }))
  const packet = build(
    ether({ vlan: 5 }),
    ipv4({ from: '10.0.0.1', to: '10.0.0.2', ttl: 9, tos: 4 }),
    icmp({ type: 3, code: 1 }),
    quoted,
  )
  t.match(decode(packet), {
    'ether.vlan': 5,
    'ip.ttl': 9,
    'ip.tos': 4,
    'ip.from': '10.0.0.1',
    'ip.checksum': /right$/,
    'icmp.type': 3,
    'icmp.checksum': /right$/,
    'quoted ip.from': four.from,
    'quoted udp.dport': 8,
    'quoted udp.checksum': /right$/,
  })
  t.match(decode(build(there, ipv6(six), tcp({ sport: 1, dport: 2, flags: 'FSRPAUEC' }))), { 'tcp.flags': 'FSRPAUEC' })
  t.match(decode(build(there, ipv4(four), udp({ sport: 1, dport: 2, checksum: 0 }))), { 'udp.checksum': 'none' })
  t.match(decode(build(there, ipv4(four), udp({ sport: 1, dport: 2, checksum: 9 }))), {
    'udp.checksum': '0x0009 WRONG',
  })
})

t.test('a UDP checksum that comes out as 0 is written as 0xffff', async (t) => {
  const sum = build(there, ipv4(four), udp({ sport: 1, dport: 2 }), new Uint8Array(2)).subarray(-4, -2)
  t.match(decode(build(there, ipv4(four), udp({ sport: 1, dport: 2 }), sum)), { 'udp.checksum': '0xffff right' })
})

t.test('what is wrong with a packet is told', async (t) => {
  const datagram = (ip: object, transport: object = {}) =>
    build(there, ipv4({ ...four, ...ip }), udp({ sport: 1, dport: 2, ...transport }))
  const wrong: readonly (readonly [Uint8Array, string])[] = [
    [new Uint8Array(13), 'too short for Ethernet'],
    [build(ether({ type: 'arp' }), ipv4(four)), 'no IP'],
    [datagram({}).slice(0, 30), 'too short for an IPv4 header'],
    [datagram({ version: 5 }), 'IPv4 version'],
    [datagram({ ihl: 4 }), 'IPv4 header length'],
    [datagram({ length: 29 }), 'IPv4 total length'],
    [datagram({ checksum: 1 }), 'IPv4 header checksum'],
    [datagram({ length: 27 }), 'too short for a UDP header'],
    [datagram({}, { length: 9 }), 'UDP length'],
    [build(there, ipv4(four), tcp({ sport: 1, dport: 2, offset: 4 })), 'TCP header length'],
    [build(there, ipv4(four), tcp({ sport: 1, dport: 2, offset: 6 })), 'TCP header length'],
    [build(there, ipv6({ ...six, length: 9 }), udp({ sport: 1, dport: 2 })), 'IPv6 payload length'],
    [build(there, ipv6({ ...six, version: 4 }), udp({ sport: 1, dport: 2 })), 'IPv6 version'],
    [build(there, ipv6(six), icmp6({ type: 128 })).slice(0, 60), 'IPv6 payload length'],
    [build(there, ipv4({ ...four, protocol: 50 })), 'protocol 50'],
  ]
  for (const [packet, why] of wrong) t.equal(invalid(packet), why, why)
})

t.test('random packets are the same for the same seed, and some are valid, some are not', async (t) => {
  const take = (seed: number) => {
    const mutator = new Mutator(seed)
    return Array.from({ length: 2000 }, () => mutator.next())
  }
  const text = (seed: number) =>
    take(seed)
      .map(({ packet }) => Buffer.from(packet).toString('hex'))
      .join(' ')
  const [first, again, other] = [text(7), text(7), text(8)]
  t.ok(first === again, 'the same seed')
  t.ok(first !== other, 'another one')
  const packets = take(7)
  const valid = packets.filter(({ packet }) => invalid(packet) === undefined).length
  t.ok(valid > 400 && valid < 1600, `${valid} of 2000 are valid`)
  t.ok(packets.filter(({ packet }) => runnable('ingress', packet)).length > 1500)
})
