/** ICMP errors that are not plain: with options or extension headers of their own, or quoting such; and broken ones. */
import t from 'tap'
import { concat, extension, fragments, words } from '../helpers/packet.ts'
import { Datapath } from '../helpers/prog.ts'
import { datagram, type FlowOptions, type Leg, message, quote, segment } from '../helpers/prog-flow.ts'
import { keyOf, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = [
  {
    name: 'IPv4',
    client: '10.1.0.1:1000',
    host: '10.1.0.1',
    virtual: '10.9.0.1:80',
    address: '10.9.0.1',
    server: '10.2.0.11:8080',
    real: '10.2.0.11',
    near: '10.1.99.1',
    far: '10.2.99.1',
    tooBig: { type: 3, code: 4, rest: 1280 },
    echo: 8,
  },
  {
    name: 'IPv6',
    client: '[fd00:1::1]:1000',
    host: 'fd00:1::1',
    virtual: '[fd00:9::1]:80',
    address: 'fd00:9::1',
    server: '[fd00:2::11]:8080',
    real: 'fd00:2::11',
    near: 'fd00:1::99:1',
    far: 'fd00:2::99:1',
    tooBig: { type: 2, code: 0, rest: 1280 },
    echo: 128,
  },
] as const
type Family = (typeof families)[number]
type Shape = Pick<FlowOptions, 'ipv4' | 'extensions'>

const noOperations = Uint8Array.of(1, 1, 1, 1, 1, 1, 1, 0)
const payload = Uint8Array.from({ length: 57 }, (_, i) => i * 11)
const fragmentHeader = (offset: number, more: 0 | 1) => extension('fragment', concat(words(offset | more), words(7, 7)))

/** What a header can have; of a quote also that it is a first fragment's. */
const shapes: Readonly<Record<Family['name'], Readonly<Record<string, Shape>>>> = {
  IPv4: { options: { ipv4: { options: noOperations } } },
  IPv6: {
    'a hop-by-hop header': { extensions: [extension('hopByHop')] },
    'three extension headers': {
      extensions: [extension('hopByHop'), extension('routing', new Uint8Array(22)), extension('destination')],
    },
  },
}
const firsts: Readonly<Record<Family['name'], Shape>> = {
  IPv4: { ipv4: { mf: true, id: 7 } },
  IPv6: { extensions: [extension('destination'), fragmentHeader(0, 1)] },
}
const laters: Readonly<Record<Family['name'], Shape>> = {
  IPv4: { ipv4: { mf: true, id: 7, offset: 64 } },
  IPv6: { extensions: [fragmentHeader(64, 1)] },
}

/** A datagram's IP packet; its UDP checksum is that of the one that was sent, which nobody adjusts in a quote. */
function quoted(o: Shape, from: string, to: string, sent?: { from: string; to: string }): Uint8Array {
  const make = (ends: { from: string; to: string }) => quote(datagram({ ...o, ...ends, payload }))
  const whole = make({ from, to })
  if (sent === undefined) return whole
  const at = whole.length - payload.length - 2
  whole.set(make(sent).subarray(at, at + 2), at)
  return whole
}

/** An error about a client's request, or about a reply, as it is before and after it was translated. */
function errors(f: Family, outer: Shape, inner: Shape) {
  const request = { from: f.client, to: f.virtual }
  const passedOn = { from: f.client, to: f.server }
  const reply = { from: f.virtual, to: f.client }
  const answer = { from: f.server, to: f.client }
  const of = (leg: Leg, from: string, to: string, about: Uint8Array, ttl = 64) =>
    message({ ...outer, ...f.tooBig, leg, from, to, ttl, payload: about })
  return {
    fromServer: (leg: Leg) => of(leg, f.far, f.host, quoted(inner, f.client, f.server)),
    toClient: (ttl = 64) => of('to client', f.address, f.host, quoted(inner, request.from, request.to, passedOn), ttl),
    fromClient: of('from client', f.near, f.address, quoted(inner, reply.from, reply.to)),
    toServer: (leg: Leg, ttl = 64) => of(leg, f.near, f.real, quoted(inner, answer.from, answer.to, reply), ttl),
  }
}

const verdicts = { ICMP_FORWARD: 1 }

function open(f: Family): Step {
  const packet = datagram({ leg: 'to server', from: f.client, to: f.server, ttl: 63 })
  return {
    at: 'ingress',
    side: 'clients',
    packet: datagram({ from: f.client, to: f.virtual }),
    expect: { action: 'send', packet },
  }
}

function outerRows(f: Family): Row[] {
  return Object.entries(shapes[f.name]).map(([what, shape]) => {
    const e = errors(f, shape, {})
    return {
      name: `${f.name}: an error with ${what} is translated both ways, through the stack`,
      services: [{ at: `udp ${f.virtual}`, servers: [f.server] }],
      steps: [
        open(f),
        { at: 'xdp', side: 'clients', packet: e.fromClient, expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet: e.fromClient,
          expect: { action: 'pass', verdicts, packet: e.toServer('from client') },
        },
        { at: 'xdp', side: 'servers', packet: e.fromServer('from server'), expect: { action: 'pass' } },
        { at: 'ingress', side: 'servers', packet: e.fromServer('from server'), expect: { action: 'pass' } },
        {
          at: 'egress',
          side: 'clients',
          packet: e.fromServer('to client'),
          expect: { action: 'pass', verdicts, packet: e.toClient() },
        },
      ],
    }
  })
}

function innerRows(f: Family): Row[] {
  const all = { ...shapes[f.name], 'the headers of a first fragment': firsts[f.name] }
  return Object.entries(all).map(([what, shape]) => {
    const e = errors(f, {}, shape)
    return {
      name: `${f.name}: an error that quotes a packet with ${what} is translated both ways, past the stack`,
      services: [{ at: `udp ${f.virtual}`, servers: [f.server] }],
      steps: [
        open(f),
        {
          at: 'ingress',
          side: 'clients',
          packet: e.fromClient,
          expect: { action: 'send', verdicts, packet: e.toServer('to server', 63) },
        },
        {
          at: 'ingress',
          side: 'servers',
          packet: e.fromServer('from server'),
          expect: { action: 'send', verdicts, packet: e.toClient(63) },
        },
      ],
    }
  })
}

/** What quotes no ports, or is itself none of the messages that may be errors. */
function untouched(f: Family): Row {
  const later = errors(f, {}, laters[f.name])
  const whole = errors(f, {}, {})
  const pieces = fragments(whole.fromClient, 9, 64)
  const packets = [later.fromClient, ...pieces.slice(0, 1)]
  return {
    name: `${f.name}: an error about a later fragment, or one that is a fragment itself, is not touched`,
    services: [{ at: `udp ${f.virtual}`, servers: [f.server] }],
    steps: [
      open(f),
      ...packets.map((packet): Step => ({ at: 'ingress', side: 'clients', packet, expect: { action: 'pass' } })),
      { at: 'ingress', side: 'servers', packet: later.fromServer('from server'), expect: { action: 'pass' } },
    ],
  }
}

function echoRow(f: Family): Row {
  const o = { rest: 0x12345678, payload }
  const answer = message({ ...o, leg: 'to client', from: f.address, to: f.host, type: f.echo === 8 ? 0 : 129 })
  return {
    name: `${f.name}: an echo request with options or extension headers is answered without them`,
    services: [{ at: `udp ${f.virtual}`, servers: [f.server] }],
    steps: Object.values(shapes[f.name]).map((shape) => ({
      at: 'ingress',
      side: 'clients',
      packet: message({ ...o, ...shape, from: f.host, to: f.address, type: f.echo }),
      expect: { action: 'send', packet: answer, verdicts: { ECHO: 1 } },
    })),
  }
}

/** The packet with one bit of its last byte, which only the ICMP checksum covers, turned. */
function broken(packet: Uint8Array): Uint8Array {
  const after = packet.slice()
  after[after.length - 1]! ^= 1
  return after
}

function dropped(side: 'clients' | 'servers', packet: Uint8Array): Step {
  return { at: 'ingress', side, packet, expect: { action: 'drop', verdicts: { DROP_MALFORMED: 1 } } }
}

function brokenRows(f: Family): Row[] {
  const e = errors(f, {}, {})
  const odd = errors(f, Object.values(shapes[f.name])[0] ?? {}, {})
  const services = [{ at: `udp ${f.virtual}`, servers: [f.server] }]
  const foreign = message({
    ...f.tooBig,
    from: f.near,
    to: f.address,
    payload: quoted({}, f.virtual, f.client.replace('1000', '1001')),
  })
  return [
    {
      name: `${f.name}: an error with a wrong checksum is dropped by name, if it is about a connection`,
      services,
      steps: [
        open(f),
        dropped('clients', broken(e.fromClient)),
        dropped('clients', broken(odd.fromClient)),
        dropped('servers', broken(e.fromServer('from server'))),
        { at: 'ingress', side: 'clients', packet: broken(foreign), expect: { action: 'pass' } },
        {
          at: 'egress',
          side: 'clients',
          packet: broken(odd.fromServer('to client')),
          expect: { action: 'drop', verdicts: { DROP_MALFORMED: 1 } },
        },
      ],
    },
    ...['droute', 'ipip', 'gue', 'gre'].map(
      (method): Row => ({
        name: `${f.name} ${method}: an error with a wrong checksum does not go on to the server, a right one does`,
        services: [{ at: `udp ${f.virtual}`, servers: [`${f.server.replace('8080', '80')} 1 ${method}`] }],
        steps: [
          {
            at: 'ingress',
            side: 'clients',
            packet: datagram({ from: f.client, to: f.virtual }),
            expect: { action: 'send', anyPacket: true },
          },
          dropped('clients', broken(e.fromClient)),
          ...[e.fromClient, odd.fromClient].map(
            (packet): Step => ({
              at: 'ingress',
              side: 'clients',
              packet,
              expect: { action: 'send', anyPacket: true, verdicts },
            }),
          ),
        ],
      }),
    ),
  ]
}

/** As it comes to the server by direct routing: a hop less to live. */
function routed(f: Family): Row {
  const shape = Object.values(shapes[f.name])[0] ?? {}
  const about = quoted({}, f.virtual, f.client)
  const make = (leg: Leg, ttl: number) =>
    message({ ...shape, ...f.tooBig, leg, from: f.near, to: f.address, ttl, payload: about })
  return {
    name: `${f.name}: an error that is not plain goes on to a server by direct routing as it is`,
    services: [{ at: `udp ${f.virtual}`, servers: [`${f.server.replace('8080', '80')} 1 droute`] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: datagram({ from: f.client, to: f.virtual }),
        expect: { action: 'send', anyPacket: true },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet: make('from client', 64),
        expect: { action: 'send', verdicts, packet: make('to server', 63) },
      },
    ],
  }
}

/** What left in the tunnel. */
let tunnelQuote: Uint8Array | undefined

/** A router on the way of a tunnel, with options in its error. */
const tunneled: Row = {
  name: 'an error with options about a tunnel becomes one about what was in it, without them',
  services: [{ at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:80 1 ipip'] }],
  steps: [
    {
      at: 'ingress',
      side: 'clients',
      packet: segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', flags: 'S', payload }),
      expect: { action: 'send', anyPacket: true },
    },
    ...[{}, { ipv4: { options: noOperations } }].map(
      (shape): Step => ({
        at: 'ingress',
        side: 'servers',
        packet: (previous) =>
          message({
            ...shape,
            leg: 'from server',
            from: '10.2.99.1',
            to: '10.254.2.1',
            type: 3,
            code: 4,
            rest: 1300,
            payload: (tunnelQuote ??= quote(previous)),
          }),
        expect: {
          action: 'send',
          verdicts,
          packet: message({
            leg: 'from server',
            from: '10.9.0.1',
            to: '10.1.0.1',
            type: 3,
            code: 4,
            rest: 1280,
            ipv4: { tos: 0xc0, df: false },
            payload: quote(segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', flags: 'S', payload, ttl: 63 })),
          }),
        },
      }),
    ),
  ],
}
t.test('ICMP errors that are not plain', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [
    ...families.flatMap((f) => [
      ...outerRows(f),
      ...innerRows(f),
      untouched(f),
      echoRow(f),
      ...brokenRows(f),
      routed(f),
    ]),
    tunneled,
  ])
  for (const f of families) {
    await t.test(`${f.name}: a translated error counts for its server, as in IPVS`, async (t) => {
      const e = errors(f, {}, {})
      const row = { services: [{ at: `udp ${f.virtual}`, servers: [f.server] }] }
      await testRows(t, datapath, [
        {
          ...row,
          name: 'errors both ways',
          steps: [
            open(f),
            {
              at: 'ingress',
              side: 'clients',
              packet: e.fromClient,
              expect: { action: 'send', verdicts, anyPacket: true },
            },
            {
              at: 'ingress',
              side: 'servers',
              packet: e.fromServer('from server'),
              expect: { action: 'send', verdicts, anyPacket: true },
            },
          ],
        },
      ])
      const counters = datapath.table.service(keyOf(`udp ${f.virtual}`))?.servers[0]?.counters
      const bytes = e.fromClient.length - 14
      t.match(counters, {
        inPkts: 2n,
        outPkts: 1n,
        inBytes: BigInt(bytes + datagram({ from: f.client, to: f.virtual }).length - 14),
        outBytes: BigInt(e.fromServer('from server').length - 14),
      })
    })
  }
})
