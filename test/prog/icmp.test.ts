import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram, type Leg, message, quote, segment } from '../helpers/prog-flow.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

interface Family {
  readonly name: 'IPv4' | 'IPv6'
  readonly client: string
  readonly virtual: string
  readonly server: string
  /** Routers on the two sides. */
  readonly near: string
  readonly far: string
  readonly echo: { readonly ask: number; readonly answer: number }
  readonly errors: readonly {
    readonly what: string
    readonly type: number
    readonly code?: number
    readonly rest?: number
  }[]
  wrap(address: string, port: number): string
}

const families: readonly Family[] = [
  {
    name: 'IPv4',
    client: '10.1.0.1',
    virtual: '10.9.0.1',
    server: '10.2.0.11',
    near: '10.1.99.1',
    far: '10.2.99.1',
    echo: { ask: 8, answer: 0 },
    errors: [
      { what: 'port unreachable', type: 3, code: 3 },
      { what: 'fragmentation needed', type: 3, code: 4, rest: 1280 },
      { what: 'time exceeded', type: 11 },
      { what: 'parameter problem', type: 12, rest: 0x14000000 },
    ],
    wrap: (address, port) => `${address}:${port}`,
  },
  {
    name: 'IPv6',
    client: 'fd00:1::1',
    virtual: 'fd00:9::1',
    server: 'fd00:2::11',
    near: 'fd00:1::99:1',
    far: 'fd00:2::99:1',
    echo: { ask: 128, answer: 129 },
    errors: [
      { what: 'port unreachable', type: 1, code: 4 },
      { what: 'packet too big', type: 2, rest: 1280 },
      { what: 'time exceeded', type: 3 },
      { what: 'parameter problem', type: 4, rest: 40 },
    ],
    wrap: (address, port) => `[${address}]:${port}`,
  },
]

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i * 11)

function echo(f: Family): Row[] {
  const o = { code: 0, rest: 0x12345678, payload: bytes(57) }
  const ask = (to: string, more: object = {}) => message({ from: f.client, to, type: f.echo.ask, ...o, ...more })
  const answer = message({ leg: 'to client', from: f.virtual, to: f.client, type: f.echo.answer, ...o })
  const services = [{ at: `tcp ${f.wrap(f.virtual, 80)}`, servers: [f.wrap(f.server, 80)] }]
  const passes = (packet: Uint8Array): Step => ({ at: 'ingress', side: 'clients', packet, expect: { action: 'pass' } })
  return [
    {
      name: `${f.name}: an echo request to a virtual address is answered, whatever was left of its life`,
      services,
      steps: [64, 1].map((ttl) => ({
        at: 'ingress',
        side: 'clients',
        packet: ask(f.virtual, { ttl }),
        expect: { action: 'send', exactly: 'TC_ACT_REDIRECT', packet: answer, verdicts: { ECHO: 1 } },
      })),
    },
    {
      name: `${f.name}: XDP leaves echo requests to tcx`,
      services,
      steps: [{ at: 'xdp', side: 'clients', packet: ask(f.virtual), expect: { action: 'pass' } }],
    },
    {
      name: `${f.name}: an echo request to no virtual address, and a reply from one, are not touched`,
      services,
      steps: [
        passes(ask(f.server)),
        passes(ask(f.virtual.replace(/1$/, '2'))),
        passes(message({ from: f.client, to: f.virtual, type: f.echo.answer, ...o })),
        passes(ask(f.virtual, { code: 1 })),
      ],
    },
    {
      name: `${f.name}: an address whose last service went answers no echo request any more`,
      services,
      steps: [
        {
          ...passes(ask(f.virtual)),
          before: ({ table }) => {
            table.clear()
          },
        },
      ],
    },
  ]
}

interface Quoted {
  readonly what: string
  readonly protocol: 'tcp' | 'udp'
  /** Bytes of transport header and payload that the error quotes. */
  readonly transport: number
}

const quotes: readonly Quoted[] = [
  { what: 'a whole segment', protocol: 'tcp', transport: 20 + 41 },
  { what: 'eight bytes of a segment', protocol: 'tcp', transport: 8 },
  { what: 'a whole datagram', protocol: 'udp', transport: 8 + 41 },
  { what: 'eight bytes of a datagram', protocol: 'udp', transport: 8 },
]

/** A packet of the flow, quoted; of another, whose transport checksum it keeps: nobody adjusts that in a quote. */
function quoted(f: Family, q: Quoted, from: string, to: string, like?: { from: string; to: string }): Uint8Array {
  const size = f.name === 'IPv4' ? 20 : 40
  const make = (ends: { from: string; to: string }, checksum?: number) => {
    const o = { ...ends, ttl: 63, payload: bytes(41), ...(checksum === undefined ? {} : { checksum }) }
    return q.protocol === 'tcp' ? segment({ ...o, flags: 'PA', ack: 5 }) : datagram(o)
  }
  const at = 14 + size + (q.protocol === 'tcp' ? 16 : 6)
  const checksum = like === undefined ? undefined : new DataView(make(like).buffer).getUint16(at)
  return quote(make({ from, to }, checksum), size + q.transport)
}

/** The error at each place of its way. */
function errorRows(f: Family, q: Quoted, error: Family['errors'][number]): Row[] {
  const [client, virtual, server] = [f.wrap(f.client, 1000), f.wrap(f.virtual, 80), f.wrap(f.server, 8080)]
  const services = [{ at: `${q.protocol} ${virtual}`, servers: [server] }]
  const { what, ...kind } = error
  const at = (leg: Leg, from: string, to: string, payload: Uint8Array, ttl = 64) =>
    message({ leg, from, to, payload, ttl, ...kind })
  const open = (bypass: boolean): Step => {
    const make = (leg: Leg, to: string, ttl = 64) =>
      q.protocol === 'tcp'
        ? segment({ leg, from: client, to, flags: 'S', ttl })
        : datagram({ leg, from: client, to, ttl })
    const packet = bypass ? make('to server', server, 63) : make('from client', server)
    const expect = { action: bypass ? ('send' as const) : ('pass' as const), packet }
    return { at: 'ingress', side: 'clients', packet: make('from client', virtual), expect }
  }
  const request = quoted(f, q, client, server)
  const requestAsSent = quoted(f, q, client, virtual, { from: client, to: server })
  const reply = quoted(f, q, virtual, client)
  const replyAsSent = quoted(f, q, server, client, { from: virtual, to: client })
  const verdicts = { ICMP_FORWARD: 1 }
  const fromServer = at('from server', f.far, f.client, request)
  const fromClient = at('from client', f.near, f.virtual, reply)
  const name = `${f.name}: ${what} that quotes ${q.what}`
  return [
    {
      name: `${name} of the client reaches it as from the virtual service, past the stack`,
      services,
      steps: [
        open(true),
        { at: 'xdp', side: 'servers', packet: fromServer, expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'servers',
          packet: fromServer,
          expect: { action: 'send', verdicts, packet: at('to client', f.virtual, f.client, requestAsSent, 63) },
        },
      ],
    },
    {
      name: `${name} of the client is translated as it leaves the stack`,
      services,
      bypass: 'never',
      steps: [
        open(false),
        { at: 'ingress', side: 'servers', packet: fromServer, expect: { action: 'pass' } },
        {
          at: 'egress',
          side: 'clients',
          packet: at('to client', f.far, f.client, request, 63),
          expect: { action: 'pass', verdicts, packet: at('to client', f.virtual, f.client, requestAsSent, 63) },
        },
      ],
    },
    {
      name: `${name} of the server reaches it as about its own packet`,
      services,
      steps: [
        open(true),
        { at: 'xdp', side: 'clients', packet: fromClient, expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet: fromClient,
          expect: { action: 'send', verdicts, packet: at('to server', f.near, f.server, replyAsSent, 63) },
        },
      ],
    },
    {
      name: `${name} of the server goes on through the stack`,
      services,
      bypass: 'never',
      steps: [
        open(false),
        {
          at: 'ingress',
          side: 'clients',
          packet: fromClient,
          expect: { action: 'pass', verdicts, packet: at('from client', f.near, f.server, replyAsSent) },
        },
      ],
    },
  ]
}

/** Errors that are none of ours, or can't be read. */
function foreign(f: Family): Row {
  const [client, virtual, server] = [f.wrap(f.client, 1000), f.wrap(f.virtual, 80), f.wrap(f.server, 80)]
  const { what: _, ...kind } = f.errors[0] ?? { what: '', type: 0 }
  const whole: Quoted = { what: '', protocol: 'udp', transport: 30 }
  const error = (payload: Uint8Array, more: object = {}) =>
    message({ from: f.near, to: f.virtual, payload, ...kind, ...more })
  const good = quoted(f, whole, virtual, client)
  const packets = [
    error(quoted(f, whole, virtual, f.wrap(f.client, 1001))),
    error(good.slice(0, good.length - 27)),
    error(new Uint8Array(0)),
    error(good.map((byte, i) => (i === 0 ? byte ^ 0x70 : byte))),
    error(good, { [f.name === 'IPv4' ? 'ipv4' : 'ipv6']: { length: 4000 } }),
  ]
  return {
    name: `${f.name}: an error about another flow, or one that can't be read, is not touched`,
    services: [{ at: `udp ${virtual}`, servers: [server] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: datagram({ from: client, to: virtual }),
        expect: { action: 'send', packet: datagram({ leg: 'to server', from: client, to: server, ttl: 63 }) },
      },
      ...packets.map((packet): Step => ({ at: 'ingress', side: 'clients', packet, expect: { action: 'pass' } })),
      {
        at: 'ingress',
        side: 'clients',
        packet: error(good),
        before: (datapath) => datapath.expire(-1),
        expect: { action: 'pass' },
      },
    ],
  }
}

t.test('ICMP', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const errors = families.flatMap((f) => quotes.flatMap((q) => f.errors.flatMap((error) => errorRows(f, q, error))))
  await testRows(t, datapath, [...families.flatMap(echo), ...errors, ...families.map(foreign)])
})
