/** Fragments go the way of the first one; nobody puts them together here. */
import t, { type Test } from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import { chunk, concat, extension, fragments, onesSum, setWord } from '../helpers/packet.ts'
import { Datapath, type Place, type Side } from '../helpers/prog.ts'
import { association, datagram, type Leg, segment } from '../helpers/prog-flow.ts'
import { addService, keyOf, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = {
  IPv4: {
    client: '10.1.0.1:1000',
    virtual: '10.9.0.1:80',
    other: '10.9.0.1:81',
    server: '10.2.0.11:8080',
    same: '10.2.0.11:80',
  },
  IPv6: {
    client: '[fd00:1::1]:1000',
    virtual: '[fd00:9::1]:80',
    other: '[fd00:9::1]:81',
    server: '[fd00:2::11]:8080',
    same: '[fd00:2::11]:80',
  },
} as const
type Family = keyof typeof families
const both = ['IPv4', 'IPv6'] as const

const payload = Uint8Array.from({ length: 200 }, (_, i) => i * 7)
const makers = {
  udp: (leg: Leg, from: string, to: string) => datagram({ leg, from, to, payload, ipv4: { df: false } }),
  tcp: (leg: Leg, from: string, to: string) => segment({ leg, from, to, flags: 'S', payload, ipv4: { df: false } }),
  sctp: (leg: Leg, from: string, to: string) =>
    association({ leg, from, to, payload: concat(chunk(1), payload), ipv4: { df: false } }),
} as const
type Protocol = keyof typeof makers

let lastId = 1
const cuts = [40, 80, 160]

/** A step for each fragment: how it comes, and what has to come out. */
function steps(at: Place, side: Side, before: Uint8Array, after: Uint8Array | undefined, id = ++lastId): Step[] {
  const becomes = after === undefined ? undefined : fragments(after, id, ...cuts)
  return fragments(before, id, ...cuts).map((packet, i) => {
    const packetAfter = becomes?.[i]
    return {
      at,
      side,
      packet,
      expect: { action: 'pass', ...(packetAfter === undefined ? {} : { packet: packetAfter }) },
    }
  })
}

function translated(family: Family, protocol: Protocol): Row {
  const { client, virtual, server: mapped, same } = families[family]
  const server = protocol === 'sctp' ? same : mapped
  const make = makers[protocol]
  return {
    name: `${family} ${protocol}: fragments are translated like the datagram, there and back`,
    services: [{ at: `${protocol} ${virtual}`, servers: [server] }],
    steps: [
      ...steps('xdp', 'clients', make('from client', client, virtual), undefined),
      ...steps('ingress', 'clients', make('from client', client, virtual), make('from client', client, server)),
      ...steps('ingress', 'servers', make('from server', server, client), undefined),
      ...steps('egress', 'clients', make('to client', server, client), make('to client', virtual, client)),
    ],
  }
}

function dropped(packet: Uint8Array, verdict = 'DROP_FRAGMENT'): Step {
  return { at: 'ingress', side: 'clients', packet, expect: { action: 'drop', verdicts: { [verdict]: 1 } } }
}

function passes(packet: Uint8Array): Step {
  return { at: 'ingress', side: 'clients', packet, expect: { action: 'pass' } }
}

/** A frame that says that it is shorter than it is. */
function shortened(frame: Uint8Array, bytes: number): Uint8Array {
  const after = frame.slice()
  const six = after[12] === 0x86
  setWord(after, six ? 18 : 16, bytes)
  if (six) return after
  setWord(after, 24, 0)
  setWord(after, 24, ~onesSum(after.subarray(14, 34)) & 0xffff)
  return after
}

function refusals(family: Family): Row[] {
  const { client, virtual, other, server } = families[family]
  const services = [{ at: `udp ${virtual}`, servers: [server] }]
  const whole = makers.udp('from client', client, virtual)
  const cut = (...at: readonly number[]) => fragments(whole, ++lastId, ...at)
  const becomes = (id: number, ...at: readonly number[]) =>
    fragments(makers.udp('from client', client, server), id, ...at)
  const [, early = new Uint8Array(0)] = cut(40)
  const id = ++lastId
  const [first = new Uint8Array(0), second = new Uint8Array(0)] = fragments(whole, id, 80)
  const overlapping = fragments(whole, id, 40)[1] ?? new Uint8Array(0)
  const tiny = fragments(makers.tcp('from client', client, virtual), ++lastId, 16)
  const foreign = fragments(makers.udp('from client', client, other), ++lastId, 40)
  const elsewhere = fragments(makers.udp('from client', client, server), ++lastId, 40)
  const expect = (packet: Uint8Array | undefined) => ({ action: 'pass' as const, packet: packet ?? new Uint8Array(0) })
  return [
    { name: `${family}: a fragment before its first is dropped by name`, services, steps: [dropped(early)] },
    {
      name: `${family}: a fragment that overlaps its first is dropped by name, the right one is not`,
      services,
      steps: [
        { at: 'ingress', side: 'clients', packet: first, expect: expect(becomes(id, 80)[0]) },
        dropped(overlapping),
        { at: 'ingress', side: 'clients', packet: second, expect: expect(becomes(id, 80)[1]) },
      ],
    },
    {
      name: `${family}: a first fragment without the whole TCP header is dropped by name, and so is what follows`,
      services: [{ at: `tcp ${virtual}`, servers: [server] }],
      steps: tiny.map((packet) => dropped(packet)),
    },
    {
      name: `${family}: a first fragment whose UDP header is only in the frame's padding is dropped by name`,
      services,
      steps: [dropped(shortened(first, family === 'IPv4' ? 27 : 15), 'DROP_MALFORMED')],
    },
    {
      name: `${family}: fragments of SCTP to a server of another port are dropped, as its checksum can't be changed`,
      services: [{ at: `sctp ${virtual}`, servers: [server] }],
      steps: fragments(makers.sctp('from client', client, virtual), ++lastId, 40)
        .slice(0, 1)
        .map((packet) => dropped(packet, 'DROP_REWRITE')),
    },
    {
      name: `${family}: fragments for another port of a virtual address are left alone`,
      services,
      steps: foreign.map(passes),
    },
    { name: `${family}: fragments for elsewhere are left alone`, services, steps: elsewhere.map(passes) },
    {
      name: `${family}: fragments of a datagram that was refused are dropped`,
      services: [{ at: `udp ${virtual}`, servers: [`${server} 0`] }],
      steps: cut(40).map((packet, i) =>
        i === 0
          ? {
              at: 'ingress',
              side: 'clients',
              packet,
              expect: { action: 'send', anyPacket: true, verdicts: { REFUSE_NO_SERVER: 1 } },
            }
          : dropped(packet),
      ),
    },
  ]
}

/** A datagram counts once, with its IP header and all that its fragments carry. */
function counts(t: Test, datapath: Datapath, family: Family): void {
  const { client, virtual, server } = families[family]
  const key = `udp ${virtual}`
  datapath.clear()
  datapath.maps.config.setBypass(0, LbBypassMode.BYPASS_ALWAYS)
  addService(datapath, { at: key, servers: [server] })
  const run = (at: Place, side: Side, packet: Uint8Array) => {
    for (const packet_ of fragments(packet, ++lastId, ...cuts)) datapath.run({ at, side, packet: packet_ })
  }
  run('ingress', 'clients', makers.udp('from client', client, virtual))
  run('ingress', 'servers', makers.udp('from server', server, client))
  run('egress', 'clients', makers.udp('to client', server, client))
  const counters = datapath.table.service(keyOf(key))?.servers[0]?.counters
  // IPv6: the first fragment's header counts with it.
  const bytes = BigInt(8 + payload.length + (family === 'IPv4' ? 20 : 48))
  t.match(counters, { conns: 1n, inPkts: 1n, outPkts: 1n, inBytes: bytes, outBytes: bytes })
}

/** Each datagram of one-packet scheduling has a server of its own, its fragments have one. */
function once(t: Test, datapath: Datapath): void {
  const { client, virtual } = families.IPv4
  datapath.clear()
  const servers = ['10.2.0.11:80', '10.2.0.12:80', '10.2.0.13:80']
  addService(datapath, { at: `udp ${virtual}`, servers })
  const id = datapath.table.service(keyOf(`udp ${virtual}`))?.id ?? 0
  const { services } = datapath.maps
  services.setFlags(id, services.flags(id) | 4)
  const reached = Array.from({ length: 6 }, () => {
    const parts = fragments(makers.udp('from client', client, virtual), ++lastId, ...cuts)
    return parts.map((packet) => datapath.run({ at: 'ingress', side: 'clients', packet }).packet[33])
  })
  for (const each of reached) t.equal(new Set(each).size, 1, 'all fragments of a datagram reach one server')
  t.same(new Set(reached.flat()), new Set([11, 12, 13]), 'and datagrams take turns')
}

const bodies = {
  hopByHop: extension('hopByHop', Uint8Array.of(1, 4, 0, 0, 0, 0)),
  routing: extension('routing', Uint8Array.of(4, 0, 0, 0, 0, 0)),
  authentication: extension('authentication', new Uint8Array(22)),
  destination: extension('destination', new Uint8Array(14)),
  atomic: extension('fragment', Uint8Array.of(0, 0, 1, 2, 3, 4)),
} as const

function behindExtensions(): Row[] {
  const { client, virtual, server } = families.IPv6
  const lists = [
    ...Object.entries(bodies).map(([name, header]) => [name, [header]] as const),
    [
      'all of them',
      [bodies.hopByHop, bodies.destination, bodies.routing, bodies.atomic, bodies.authentication],
    ] as const,
  ]
  return lists.flatMap(([name, extensions]) =>
    (['udp', 'tcp', 'sctp'] as const).map((protocol): Row => {
      const make = (leg: Leg, from: string, to: string) => {
        const o = { leg, from, to, extensions }
        if (protocol === 'udp') return datagram({ ...o, payload })
        return protocol === 'tcp'
          ? segment({ ...o, flags: 'S', payload })
          : association({ ...o, payload: concat(chunk(1), payload) })
      }
      const step = (at: Place, side: Side, packet: Uint8Array, after?: Uint8Array): Step => ({
        at,
        side,
        packet,
        expect: { action: 'pass', ...(after === undefined ? {} : { packet: after }) },
      })
      return {
        name: `IPv6 extension headers, ${name}: ${protocol} is translated behind them`,
        services: [{ at: `${protocol} ${virtual}`, servers: [server] }],
        steps: [
          step('xdp', 'clients', make('from client', client, virtual)),
          step('ingress', 'clients', make('from client', client, virtual), make('from client', client, server)),
          step('ingress', 'servers', make('from server', server, client)),
          step('egress', 'clients', make('to client', server, client), make('to client', virtual, client)),
        ],
      }
    }),
  )
}

function oddExtensions(): Row {
  const { client, virtual, server } = families.IPv6
  const many = Array.from({ length: 9 }, () => bodies.destination)
  const make = (extensions: (typeof many)[number][], o: object = {}) =>
    segment({ from: client, to: virtual, flags: 'S', extensions, ...o })
  return {
    name: "IPv6: too many extension headers, ones that end early, and no next header are the stack's",
    services: [{ at: `tcp ${virtual}`, servers: [server] }],
    steps: [
      passes(make(many)),
      passes(make([bodies.hopByHop]).slice(0, 14 + 40 + 5)),
      passes(make([bodies.destination]).slice(0, 14 + 40 + 16 + 3)),
    ],
  }
}

t.test('fragments and extension headers', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [
    ...both.flatMap((family) => [
      ...(['udp', 'tcp', 'sctp'] as const).map((protocol) => translated(family, protocol)),
      ...refusals(family),
    ]),
    ...behindExtensions(),
    oddExtensions(),
  ])
  await t.test('a datagram in fragments counts as one', (t) => {
    for (const family of both) counts(t, datapath, family)
    t.end()
  })
  await t.test('one-packet scheduling picks once for a datagram', (t) => {
    once(t, datapath)
    t.end()
  })
})
