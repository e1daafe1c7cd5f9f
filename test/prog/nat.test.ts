import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { chunk, concat } from '../helpers/packet.ts'
import {
  association,
  type AssociationOptions,
  datagram,
  type DatagramOptions,
  type Leg,
  segment,
  type SegmentOptions,
} from '../helpers/prog-flow.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const ends = {
  IPv4: { client: '10.1.0.1:1000', virtual: '10.9.0.1:80', server: '10.2.0.11:8080', same: '10.2.0.11:80' },
  IPv6: {
    client: '[fd00:1::1]:1000',
    virtual: '[fd00:9::1]:80',
    server: '[fd00:2::11]:8080',
    same: '[fd00:2::11]:80',
  },
} as const
type Family = keyof typeof ends

interface Kind {
  readonly name: string
  readonly protocol: 'tcp' | 'udp' | 'sctp'
  readonly family: Family
  /** The packet, given where it is and between which ends. */
  readonly make: (leg: Leg, from: string, to: string, ttl?: number) => Uint8Array
}

const payload = Uint8Array.from({ length: 33 }, (_, i) => i * 7)

/** A payload whose packet, between these ends, has a UDP checksum that comes out as 0, which is written 0xffff. */
function zeroSum(from: string, to: string, leg: Leg): Uint8Array {
  const packet = datagram({ leg, from, to, payload: new Uint8Array(2) })
  const udpChecksum = packet.subarray(-4, -2)
  return udpChecksum.slice()
}

function kinds(family: Family): Kind[] {
  const tcp = (name: string, o: Partial<SegmentOptions>): Kind => ({
    name: `${family} ${name}`,
    protocol: 'tcp',
    family,
    make: (leg, from, to, ttl = 64) => segment({ leg, from, to, ttl, payload, ...o }),
  })
  const udp = (name: string, o: Partial<DatagramOptions>): Kind => ({
    name: `${family} ${name}`,
    protocol: 'udp',
    family,
    make: (leg, from, to, ttl = 64) => datagram({ leg, from, to, ttl, payload, ...o }),
  })
  const sctp = (name: string, o: Partial<AssociationOptions>): Kind => ({
    name: `${family} ${name}`,
    protocol: 'sctp',
    family,
    make: (leg, from, to, ttl = 64) => association({ leg, from, to, ttl, payload: chunk(1), ...o }),
  })
  const { client, virtual, server } = ends[family]
  const all = [
    tcp('TCP', { flags: 'S', seq: 0xfffffff0, options: Uint8Array.of(2, 4, 5, 0xb4, 1, 3, 3, 7) }),
    tcp('TCP without payload', { flags: 'S', payload: new Uint8Array(0) }),
    udp('UDP', {}),
    udp('UDP whose checksum becomes 0xffff', { payload: zeroSum(client, server, 'to server') }),
    udp('UDP whose checksum is 0xffff', { payload: zeroSum(client, virtual, 'from client') }),
    udp('UDP reply whose checksum becomes 0xffff', { payload: zeroSum(virtual, client, 'to client') }),
    udp('UDP without payload', { payload: new Uint8Array(0) }),
    sctp('SCTP', {}),
    sctp('SCTP of 1,411 bytes', { payload: concat(chunk(1), payload, new Uint8Array(1362).fill(0xab)) }),
  ]
  return family === 'IPv6' ? all : [...all, udp('UDP without a checksum', { checksum: 0 })]
}

/** A request and its reply past the stack, by one hook. */
function bypassing(kind: Kind, at: 'ingress' | 'xdp', server: string, port: string): Row {
  const { client, virtual } = ends[kind.family]
  const exactly = at === 'xdp' ? 'XDP_REDIRECT' : 'TC_ACT_REDIRECT'
  const step = (side: Step['side'], packet: Uint8Array, becomes: Uint8Array): Step => ({
    at,
    side,
    packet,
    expect: { action: 'send', exactly, packet: becomes },
  })
  return {
    name: `${kind.name}, ${port}: at ${at} request and reply pass by the stack, one hop older, with their next hop's MACs`,
    services: [{ at: `${kind.protocol} ${virtual}`, servers: [server] }],
    steps: [
      step('clients', kind.make('from client', client, virtual), kind.make('to server', client, server, 63)),
      step('servers', kind.make('from server', server, client), kind.make('to client', virtual, client, 63)),
    ],
  }
}

/** A request and its reply through the stack: translated on the client's interface, both ways. */
function throughStack(kind: Kind): Row {
  const { client, virtual, server } = ends[kind.family]
  const request = kind.make('from client', client, virtual)
  const reply = kind.make('from server', server, client)
  const replyUp = kind.make('to client', server, client, 63)
  return {
    name: `${kind.name}: through the stack only the client's side translates, and nothing ages`,
    services: [{ at: `${kind.protocol} ${virtual}`, servers: [server] }],
    bypass: 'never',
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: request,
        expect: { action: 'pass', packet: kind.make('from client', client, server) },
      },
      { at: 'xdp', side: 'clients', packet: request, expect: { action: 'pass' } },
      { at: 'xdp', side: 'servers', packet: reply, expect: { action: 'pass' } },
      { at: 'ingress', side: 'servers', packet: reply, expect: { action: 'pass' } },
      {
        at: 'egress',
        side: 'clients',
        packet: replyUp,
        expect: { action: 'pass', packet: kind.make('to client', virtual, client, 63) },
      },
    ],
  }
}

/** What leaves from the host itself: the egress hook knows connections of both kinds. */
function fromStack(kind: Kind): Row {
  const { client, virtual, server } = ends[kind.family]
  return {
    name: `${kind.name}: a reply that went through the stack is translated at egress also if its request had not`,
    services: [{ at: `${kind.protocol} ${virtual}`, servers: [server] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: kind.make('from client', client, virtual),
        expect: { action: 'send', packet: kind.make('to server', client, server, 63) },
      },
      {
        at: 'egress',
        side: 'clients',
        packet: kind.make('to client', server, client, 63),
        expect: { action: 'pass', packet: kind.make('to client', virtual, client, 63) },
      },
    ],
  }
}

const allKinds = [...kinds('IPv4'), ...kinds('IPv6')]
const rows: Row[] = allKinds.flatMap((kind) => [
  bypassing(kind, 'ingress', ends[kind.family].server, 'another port'),
  bypassing(kind, 'xdp', ends[kind.family].server, 'another port'),
  bypassing(kind, 'ingress', ends[kind.family].same, 'the same port'),
  bypassing(kind, 'xdp', ends[kind.family].same, 'the same port'),
  throughStack(kind),
  fromStack(kind),
])

const oneArm: Row = {
  name: 'a server behind the interface that the client comes from is reached by XDP_TX',
  services: [{ at: 'tcp 10.9.0.1:80', servers: ['10.1.0.50:8080'] }],
  steps: [
    {
      at: 'xdp',
      side: 'clients',
      packet: segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', flags: 'S' }),
      expect: {
        action: 'send',
        exactly: 'XDP_TX',
        packet: segment({ leg: 'to client', from: '10.1.0.1:1000', to: '10.1.0.50:8080', flags: 'S', ttl: 63 }),
      },
    },
  ],
}

const counters: Row = {
  name: 'conns, packets and IP bytes in and out are counted, padding of the frame is not',
  services: [{ at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:5353'] }],
  steps: [
    {
      at: 'ingress',
      side: 'clients',
      packet: (() => {
        const short = datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53', payload: Uint8Array.of(1) })
        const padded = new Uint8Array(60)
        padded.set(short)
        return padded
      })(),
      expect: {
        action: 'send',
        packet: (() => {
          const o = { leg: 'to server', from: '10.1.0.1:1000', to: '10.2.0.11:5353', ttl: 63 } as const
          const padded = new Uint8Array(60)
          padded.set(datagram({ ...o, payload: Uint8Array.of(1) }))
          return padded
        })(),
        counts: ['0/1'],
        connections: ['UDP 299 10.1.0.1:1000 10.9.0.1:53 10.2.0.11:5353'],
      },
    },
    {
      at: 'xdp',
      side: 'servers',
      packet: datagram({ leg: 'from server', from: '10.2.0.11:5353', to: '10.1.0.1:1000', payload }),
      expect: {
        action: 'send',
        packet: datagram({ leg: 'to client', from: '10.9.0.1:53', to: '10.1.0.1:1000', payload, ttl: 63 }),
      },
    },
  ],
}

/** The life of a packet ends where it would for any router. */
const ttl: Row[] = [1, 0].map((left) => ({
  name: `a packet with ${left} hops left goes up the stack, which answers as routers do`,
  services: [{ at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53'] }],
  steps: [
    {
      at: 'xdp',
      side: 'clients',
      packet: datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53', ttl: left }),
      expect: { action: 'pass' },
    },
    {
      at: 'ingress',
      side: 'clients',
      packet: datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53', ttl: left }),
      expect: { action: 'pass', packet: datagram({ from: '10.1.0.1:1000', to: '10.2.0.11:53', ttl: left }) },
    },
  ],
}))

/** Bytes of payload that make IPv4 packets of 1500, and of more. */
const big = (ip: number) => new Uint8Array(ip - 28).fill(0x41)

const sizes: Row[] = [
  {
    name: 'a packet as big as the next link takes passes by the stack',
    services: [{ at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53'] }],
    steps: [
      {
        at: 'xdp',
        side: 'clients',
        packet: datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53', payload: big(1500) }),
        expect: {
          action: 'send',
          packet: datagram({
            leg: 'to server',
            from: '10.1.0.1:1000',
            to: '10.2.0.11:53',
            payload: big(1500),
            ttl: 63,
          }),
        },
      },
    ],
  },
  {
    name: 'a packet too big for the next link goes up the stack translated, which fragments it or answers',
    services: [{ at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53'] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53', payload: big(1501) }),
        expect: {
          action: 'pass',
          packet: datagram({ from: '10.1.0.1:1000', to: '10.2.0.11:53', payload: big(1501) }),
        },
      },
    ],
  },
  ...([1448, 1500] as const).map((size): Row => {
    const fits = size === 1448
    const o = { flags: 'SA', options: new Uint8Array(12).fill(1), payload: new Uint8Array(2 * size).fill(0x42) }
    return {
      name: `many segments in one packet ${fits ? 'pass by the stack if each fits' : 'go up the stack if one does not fit'}`,
      services: [{ at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:80'] }],
      steps: [
        {
          at: 'ingress',
          side: 'clients',
          packet: segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', ...o }),
          gso: { segments: 2, size },
          expect: {
            action: fits ? 'send' : 'pass',
            packet: fits
              ? segment({ leg: 'to server', from: '10.1.0.1:1000', to: '10.2.0.11:80', ttl: 63, ...o })
              : segment({ from: '10.1.0.1:1000', to: '10.2.0.11:80', ...o }),
          },
        },
      ],
    }
  }),
]

t.test('network address translation', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [...rows, oneArm, ...ttl, ...sizes, counters])
  const view = datapath.table.services()[0]
  const counted = { conns: 1n, inPkts: 1n, outPkts: 1n, inBytes: 29n, outBytes: 61n }
  t.same(view?.counters, counted, 'what the last row left in the service')
  t.same(view?.servers[0]?.counters, counted, 'and in its server')
})
