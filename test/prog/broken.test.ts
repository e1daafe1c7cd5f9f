/** What is not ours passes without a byte changed; what is addressed to us but broken is dropped, and never forwarded. */
import t from 'tap'
import { build, concat, ether, ipv4, type Ipv4Options, ipv6, tcp, udp, words } from '../helpers/packet.ts'
import { Datapath, macs, type Place } from '../helpers/prog.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { type GivenService, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const services: GivenService[] = [
  { at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:8080'] },
  { at: 'udp 10.9.0.1:80', servers: ['10.2.0.11:8080'] },
  { at: 'tcp [fd00:9::1]:80', servers: ['[fd00:2::11]:8080'] },
  { at: 'udp [fd00:9::1]:80', servers: ['[fd00:2::11]:8080'] },
]

const four = { from: '10.1.0.1:1000', to: '10.9.0.1:80' } as const
const six = { from: '[fd00:1::1]:1000', to: '[fd00:9::1]:80' } as const
const payload = Uint8Array.from({ length: 24 }, (_, i) => i)
const both: readonly Place[] = ['xdp', 'ingress']

/** One packet at several hooks, as from the clients: what it is, and what becomes of it (nothing may change). */
interface Case {
  readonly name: string
  readonly packet: Uint8Array
  readonly at?: readonly Place[]
}

function row({ name, packet, at = both }: Case, expect: Pick<Step['expect'], 'action' | 'verdicts'>): Row {
  return { name, services, steps: at.map((place) => ({ at: place, side: 'clients', packet, expect })) }
}

/** Bytes of a good packet with some replaced. */
function patch(packet: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = packet.slice()
  copy.set(values, at)
  return copy
}

const syn4 = segment({ ...four, flags: 'S', payload })
const syn6 = segment({ ...six, flags: 'S', payload })
const ask4 = datagram({ ...four, payload })
const ask6 = datagram({ ...six, payload })

const malformed: Case[] = [
  { name: 'a wrong IPv4 header checksum', packet: segment({ ...four, flags: 'S', ipv4: { checksum: 0x1234 } }) },
  { name: 'an IPv4 header checksum of 0', packet: datagram({ ...four, ipv4: { checksum: 0 } }) },
  { name: 'an IPv4 length beyond the frame', packet: datagram({ ...four, payload, ipv4: { length: 53 } }) },
  { name: 'an IPv4 length of 65535', packet: segment({ ...four, flags: 'S', ipv4: { length: 65535 } }) },
  { name: 'an IPv4 length shorter than its header', packet: segment({ ...four, flags: 'S', ipv4: { length: 19 } }) },
  { name: 'an IPv4 length of 0', packet: segment({ ...four, flags: 'S', ipv4: { length: 0 } }) },
  { name: 'an IPv4 length that cuts the TCP header', packet: segment({ ...four, flags: 'S', ipv4: { length: 39 } }) },
  { name: 'an IPv4 length that cuts the UDP header', packet: datagram({ ...four, ipv4: { length: 27 } }) },
  { name: 'an IPv6 length beyond the frame', packet: datagram({ ...six, payload, ipv6: { length: 33 } }) },
  { name: 'an IPv6 length that cuts the TCP header', packet: segment({ ...six, flags: 'S', ipv6: { length: 19 } }) },
  { name: 'an IPv6 length of 0', packet: datagram({ ...six, ipv6: { length: 0 } }) },
  ...(
    [
      ['IPv4', four],
      ['IPv6', six],
    ] as const
  ).flatMap(([family, ends]): Case[] => [
    { name: `${family}: a TCP header of four words`, packet: segment({ ...ends, flags: 'S', offset: 4 }) },
    { name: `${family}: a TCP header of no words`, packet: segment({ ...ends, flags: 'S', offset: 0 }) },
    { name: `${family}: a TCP header longer than the packet`, packet: segment({ ...ends, flags: 'S', offset: 6 }) },
    { name: `${family}: a UDP length below 8`, packet: datagram({ ...ends, length: 7, checksum: 0x4444 }) },
    { name: `${family}: a UDP length of 0`, packet: datagram({ ...ends, length: 0, checksum: 0x4444 }) },
    { name: `${family}: a UDP length beyond the packet`, packet: datagram({ ...ends, length: 9, checksum: 0x4444 }) },
  ]),
]

/** IPv4 around a SYN to the service, in a frame. */
function around(o: Partial<Ipv4Options>): Uint8Array {
  const link = ether({ from: macs.client, to: macs.cl0 })
  return build(link, ipv4({ from: '10.1.0.1', to: '10.9.0.1', ...o }), tcp({ sport: 1000, dport: 80, flags: 'S' }))
}

/** IPv6 with an extension header of eight bytes between it and a SYN. */
function extended(protocol: number): Uint8Array {
  const inner = build(
    ipv6({ from: 'fd00:1::1', to: 'fd00:9::1' }),
    tcp({ sport: 1000, dport: 80, flags: 'S' }),
  ).subarray(40)
  const header = concat(words((6 << 8) | 0), new Uint8Array(6).fill(1))
  const link = ether({ from: macs.client, to: macs.cl0 })
  return build(link, ipv6({ from: 'fd00:1::1', to: 'fd00:9::1', protocol }), concat(header, inner))
}

const tagged = { from: macs.client, to: macs.cl0, vlan: 5 }

const foreign: Case[] = [
  { name: 'another port of the virtual address', packet: segment({ ...four, to: '10.9.0.1:81', flags: 'S' }) },
  { name: 'another address', packet: segment({ ...four, to: '10.9.0.2:80', flags: 'S' }) },
  { name: 'a server by its own address', packet: segment({ ...four, to: '10.2.0.11:8080', flags: 'S' }) },
  { name: 'another protocol', packet: around({ protocol: 132 }) },
  { name: 'ESP', packet: around({ protocol: 50 }) },
  { name: 'a first fragment', packet: around({ mf: true }), at: ['xdp'] },
  { name: 'a later fragment', packet: around({ offset: 24 }), at: ['xdp'] },
  { name: 'a middle fragment', packet: around({ offset: 24, mf: true }), at: ['xdp'] },
  { name: 'an IPv4 version of 5', packet: around({ version: 5 }) },
  { name: 'an IPv4 header of four words', packet: around({ ihl: 4 }) },
  { name: 'an IPv6 version of 4', packet: datagram({ ...six, ipv6: { version: 4 } }) },
  { name: 'IPv6 under the type of IPv4', packet: patch(syn6, 12, 0x08, 0x00) },
  { name: 'IPv4 under the type of IPv6', packet: patch(syn4, 12, 0x86, 0xdd) },
  { name: 'ARP', packet: patch(syn4, 12, 0x08, 0x06) },
  { name: 'an unknown type', packet: patch(syn4, 12, 0x12, 0x34) },
  { name: 'a VLAN tag in the frame', packet: segment({ ...four, flags: 'S', ether: tagged }) },
  { name: 'a hop-by-hop header', packet: extended(0), at: ['xdp'] },
  { name: 'a destination options header', packet: extended(60), at: ['xdp'] },
  { name: 'an IPv6 fragment header', packet: extended(44), at: ['xdp'] },
  // BPF_PROG_RUN makes no skb of these.
  { name: 'a frame of an Ethernet header', packet: syn4.slice(0, 14), at: ['xdp'] },
  { name: 'an IPv4 header that ends early', packet: syn4.slice(0, 33), at: ['xdp'] },
  { name: 'an IPv6 header that ends early', packet: syn6.slice(0, 53), at: ['xdp'] },
  { name: 'IPv4 without a transport header', packet: syn4.slice(0, 34) },
  { name: 'IPv6 without a transport header', packet: syn6.slice(0, 54) },
  { name: 'a TCP header that ends early', packet: syn4.slice(0, 14 + 20 + 19) },
  { name: 'a TCP header that ends early, in IPv6', packet: syn6.slice(0, 14 + 40 + 19) },
  { name: 'a UDP header that ends early', packet: ask4.slice(0, 14 + 20 + 7) },
  { name: 'a UDP header that ends early, in IPv6', packet: ask6.slice(0, 14 + 40 + 7) },
  { name: 'IPv4 options that end early', packet: patch(syn4, 14, 0x4f).slice(0, 14 + 56) },
  {
    name: 'a frame for another host, as an interface in promiscuous mode shows it',
    packet: segment({ ...four, flags: 'S', ether: { to: '02:00:00:00:09:09' } }),
    at: ['xdp', 'ingress'],
  },
  {
    name: 'a broadcast frame',
    packet: segment({ ...four, flags: 'S', ether: { to: 'ff:ff:ff:ff:ff:ff' } }),
    at: ['xdp', 'ingress'],
  },
]

const options = Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0)

/** IP options are the stack's to obey: tcx translates, and nothing passes by the stack. */
const withOptions: Row[] = [
  {
    name: 'a request with IP options is translated and left to the stack to forward',
    services,
    steps: [
      {
        at: 'xdp',
        side: 'clients',
        packet: segment({ ...four, flags: 'S', ipv4: { options } }),
        expect: { action: 'pass' },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet: segment({ ...four, flags: 'S', ipv4: { options } }),
        expect: {
          action: 'pass',
          packet: segment({ from: four.from, to: '10.2.0.11:8080', flags: 'S', ipv4: { options } }),
        },
      },
    ],
  },
  {
    name: 'a reply with IP options goes through the stack, and is translated as it leaves',
    services,
    steps: [
      {
        at: 'xdp',
        side: 'clients',
        packet: segment({ ...four, flags: 'S' }),
        expect: {
          action: 'send',
          packet: segment({ leg: 'to server', from: four.from, to: '10.2.0.11:8080', flags: 'S', ttl: 63 }),
        },
      },
      ...both.map(
        (at): Step => ({
          at,
          side: 'servers',
          packet: segment({
            leg: 'from server',
            from: '10.2.0.11:8080',
            to: four.from,
            flags: 'SA',
            ipv4: { options },
          }),
          expect: { action: 'pass' },
        }),
      ),
      {
        at: 'egress',
        side: 'clients',
        packet: segment({ leg: 'to client', from: '10.2.0.11:8080', to: four.from, flags: 'SA', ipv4: { options } }),
        expect: {
          action: 'pass',
          packet: segment({ leg: 'to client', from: four.to, to: four.from, flags: 'SA', ipv4: { options } }),
        },
      },
    ],
  },
  row(
    {
      name: 'a wrong header checksum over IP options',
      packet: segment({ ...four, flags: 'S', ipv4: { options, checksum: 0x1234 } }),
      at: ['ingress'],
    },
    { action: 'drop', verdicts: { DROP_MALFORMED: 1 } },
  ),
]

/** Broken replies are not ours to judge: whoever gets them will. */
const brokenReplies: Row = {
  name: 'a broken reply of a server passes unchanged',
  services,
  steps: [
    {
      at: 'xdp',
      side: 'clients',
      packet: datagram(four),
      expect: {
        action: 'send',
        packet: datagram({ leg: 'to server', from: four.from, to: '10.2.0.11:8080', ttl: 63 }),
      },
    },
    ...[{ length: 7 }, { ipv4: { checksum: 5 } }, { ipv4: { length: 27 } }].flatMap((wrong) =>
      (['xdp', 'ingress'] as const).map(
        (at): Step => ({
          at,
          side: 'servers',
          packet: datagram({ leg: 'from server', from: '10.2.0.11:8080', to: four.from, checksum: 0, ...wrong }),
          expect: { action: 'pass' },
        }),
      ),
    ),
  ],
}

t.test('packets that are not ours, and broken ones', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [
    ...malformed.map((each) =>
      row({ ...each, name: `${each.name}: dropped` }, { action: 'drop', verdicts: { DROP_MALFORMED: 1 } }),
    ),
    ...foreign.map((each) => row({ ...each, name: `${each.name}: passes unchanged` }, { action: 'pass' })),
    ...withOptions,
    brokenReplies,
  ])
  const other = build(ether(), ipv4({ from: '192.0.2.1', to: '192.0.2.2' }), udp({ sport: 1, dport: 2 }))
  datapath.clear()
  for (const at of ['xdp', 'ingress', 'egress'] as const) {
    const out = datapath.run({ at, side: 'clients', packet: other })
    t.same(
      [out.action, Buffer.compare(out.packet, other)],
      ['pass', 0],
      `an empty table leaves everything alone at ${at}`,
    )
  }
})
