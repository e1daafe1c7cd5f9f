/** Direct routing: what a packet becomes, and what becomes of one that can't go on. */
import t from 'tap'
import { must } from '../../src/lab/command.ts'
import { Datapath } from '../helpers/prog.ts'
import { datagram, message, quote, segment } from '../helpers/prog-flow.ts'
import { keyOf, methodOf, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'
import { real } from '../helpers/director.ts'

interface Family {
  readonly name: 'IPv4' | 'IPv6'
  readonly client: string
  readonly virtual: string
  readonly address: string
  readonly host: string
  readonly server: string
  /** Servers that routes of their own lead to: with an MTU of 1400, none at all, one that is the director itself. */
  readonly narrow: string
  readonly lost: string
  readonly local: string
  /** A server on the link whose neighbour is not known. */
  readonly silent: string
  readonly errors: { readonly tooBig: Error; readonly old: Error; readonly noRoute: Error }
}

interface Error {
  readonly type: number
  readonly code: number
  readonly rest?: number
}

const families: readonly Family[] = [
  {
    name: 'IPv4',
    client: '10.1.0.1:1000',
    virtual: '10.9.0.1:80',
    address: '10.9.0.1',
    host: '10.1.0.1',
    server: '10.2.0.11:80',
    narrow: '10.2.14.11:80',
    lost: '10.2.66.11:80',
    local: '10.10.0.7:80',
    silent: '10.254.3.2:80',
    errors: { tooBig: { type: 3, code: 4, rest: 1400 }, old: { type: 11, code: 0 }, noRoute: { type: 3, code: 1 } },
  },
  {
    name: 'IPv6',
    client: '[fd00:1::1]:1000',
    virtual: '[fd00:9::1]:80',
    address: 'fd00:9::1',
    host: 'fd00:1::1',
    server: '[fd00:2::11]:80',
    narrow: '[fd00:2::14:11]:80',
    lost: '[fd00:2::66:11]:80',
    local: '[fd00:10::7]:80',
    silent: '[fd00:fe:2::77]:80',
    errors: { tooBig: { type: 2, code: 0, rest: 1400 }, old: { type: 3, code: 0 }, noRoute: { type: 1, code: 3 } },
  },
]

const routes = [
  'route add 10.2.14.0/24 via 10.254.2.2 mtu lock 1400',
  'route add fd00:2::14:0/112 via fd00:fe:2::2 mtu lock 1400',
  'route add unreachable 10.2.66.0/24',
  'route add unreachable fd00:2::66:0/112',
  'address add 10.254.3.1/30 dev sv0',
]

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i * 13)

/** Ticks after which a packet of each known hop goes by the kernel's own neighbour code: HOP_KICK. */
const KICK = 16

/** A neighbour that went silent would never be noticed if XDP sent everything. */
function doubted(f: Family, method: 'droute' | 'ipip'): Row {
  const ack = { flags: 'A' }
  const sent = { action: 'send' as const, ...(method === 'ipip' ? { anyPacket: true } : { packet: arrives(f, ack) }) }
  const xdp = { at: 'xdp', side: 'clients', packet: asks(f, ack) } as const
  return {
    name: `${f.name}, ${method}: once a second XDP leaves a packet to tcx, which has the kernel send it and so look after the neighbour`,
    services: [{ at: `tcp ${f.virtual}`, servers: [`${f.server} 1 ${method}`] }],
    steps: [
      { at: 'ingress', side: 'clients', packet: asks(f), expect: { action: 'send', anyPacket: true } },
      { ...xdp, expect: sent },
      { ...xdp, seenTicksAgo: KICK, expect: { action: 'pass' } },
      { ...xdp, at: 'ingress', seenTicksAgo: KICK, expect: { action: 'send', anyPacket: true } },
      { ...xdp, expect: sent },
    ],
  }
}

/** What is done to the packet on its way: a hop less to live, the MAC addresses of the next. */
function arrives(f: Family, o: object = {}): Uint8Array {
  return segment({ leg: 'to server', from: f.client, to: f.virtual, ttl: 63, flags: 'S', ...o })
}

function asks(f: Family, o: object = {}): Uint8Array {
  return segment({ from: f.client, to: f.virtual, flags: 'S', ...o })
}

/** The error that answers a packet, quoting it as it was when it failed. */
function answers(f: Family, error: Error, failed: Uint8Array): Uint8Array {
  const most = f.name === 'IPv4' ? 548 : 1232
  const o = { leg: 'to client', from: f.address, to: f.host, payload: quote(failed).subarray(0, most) } as const
  return message({ ...o, ...error, ipv4: { tos: 0xc0, df: false } })
}

function plain(f: Family): Row[] {
  const services = [{ at: `tcp ${f.virtual}`, servers: [`${f.server} 1 droute`] }]
  const udp = [{ at: `udp ${f.virtual}`, servers: [`${f.server} 1 droute`] }]
  const sent = (at: Step['at'], packet: Uint8Array, becomes: Uint8Array): Step => {
    const exactly = at === 'xdp' ? 'XDP_REDIRECT' : 'TC_ACT_REDIRECT'
    return { at, side: 'clients', packet, expect: { action: 'send', exactly, packet: becomes } }
  }
  const ways = (['ingress', 'xdp'] as const).flatMap((at): Row[] => [
    {
      name: `${f.name}, ${at}: the packet goes out as it came, but for a hop and the MAC addresses`,
      services,
      steps: [
        sent(at, asks(f), arrives(f)),
        sent(at, asks(f, { flags: 'A', payload: bytes(99) }), arrives(f, { flags: 'A', payload: bytes(99) })),
      ],
    },
    {
      name: `${f.name}, ${at}: it does so whether or not NAT would go through the stack`,
      bypass: 'never',
      services,
      steps: [sent(at, asks(f), arrives(f))],
    },
    {
      name: `${f.name}, ${at}: a packet as great as the way takes goes out`,
      services: [{ at: `tcp ${f.virtual}`, servers: [`${f.narrow} 1 droute`] }],
      steps: [
        sent(at, asks(f), arrives(f)),
        sent(
          at,
          asks(f, { flags: 'A', payload: bytes(f.name === 'IPv4' ? 1360 : 1340) }),
          arrives(f, { flags: 'A', payload: bytes(f.name === 'IPv4' ? 1360 : 1340) }),
        ),
      ],
    },
  ])
  return [
    ...ways,
    {
      name: `${f.name}: a datagram scheduled by itself reaches its server, and leaves no connection`,
      services: udp.map((each) => ({ ...each, onePacket: true })),
      steps: [
        {
          at: 'ingress',
          side: 'clients',
          packet: datagram({ from: f.client, to: f.virtual }),
          expect: {
            action: 'send',
            packet: datagram({ leg: 'to server', from: f.client, to: f.virtual, ttl: 63 }),
            connections: [],
          },
        },
      ],
    },
  ]
}

function lives(f: Family): Row[] {
  const at = `tcp ${f.virtual}`
  const pass = (packet: Uint8Array): Step => ({ at: 'ingress', side: 'servers', packet, expect: { action: 'pass' } })
  const sends = (flags: string, ...states: string[]): Step => ({
    at: 'ingress',
    side: 'clients',
    packet: asks(f, { flags }),
    expect: {
      action: 'send',
      packet: arrives(f, { flags }),
      connections: states.map((state) => `${state} ${f.client} ${f.virtual} ${f.server}`),
    },
  })
  /** A server's segment under the virtual address: XDP and tcx ingress leave it to the stack, which lets it out. */
  const replies = (flags: string, before: string, after: string): Step[] => {
    const o = { from: f.virtual, to: f.client, flags }
    const own = (state: string) => [`${state} ${f.client} ${f.virtual} ${f.server}`]
    const packet = segment({ leg: 'from server', ...o })
    return [
      { at: 'xdp', side: 'servers', packet, expect: { action: 'pass', connections: own(before) } },
      { at: 'ingress', side: 'servers', packet, expect: { action: 'pass', connections: own(before) } },
      {
        at: 'egress',
        side: 'clients',
        packet: segment({ leg: 'to client', ...o, ttl: 63 }),
        expect: { action: 'pass', connections: own(after) },
      },
    ]
  }
  return [
    {
      name: `${f.name}: states follow the client alone`,
      services: [{ at, servers: [`${f.server} 1 droute`] }],
      steps: [
        sends('S', 'SYN_RECV 59'),
        sends('A', 'ESTABLISHED 899'),
        sends('FA', 'FIN_WAIT 119'),
        sends('R', 'CLOSE 9'),
      ],
    },
    {
      name: `${f.name}: a reply that passes the director counts, and from then on states follow both directions`,
      services: [{ at, servers: [`${f.server} 1 droute`] }],
      steps: [
        sends('S', 'SYN_RECV 59'),
        ...replies('SA', 'SYN_RECV 59', 'SYN_RECV 59'),
        sends('A', 'ESTABLISHED 899'),
        ...replies('FA', 'ESTABLISHED 899', 'FIN_WAIT 119'),
        sends('FA', 'TIME_WAIT 119'),
      ],
    },
    {
      name: `${f.name}: a connection keeps its method when the server's changes, either way`,
      services: [{ at, servers: [`${f.server} 1 droute`] }],
      steps: [
        sends('S', 'SYN_RECV 59'),
        {
          ...sends('A', 'ESTABLISHED 899'),
          before: ({ table }) => table.editServer(keyOf(at), { ...real(...partsOf(f.server)), ...methodOf('masq') }),
        },
        {
          at: 'ingress',
          side: 'clients',
          packet: segment({ from: f.client.replace(/1000$/, '1001'), to: f.virtual, flags: 'S' }),
          expect: {
            action: 'send',
            packet: segment({
              leg: 'to server',
              from: f.client.replace(/1000$/, '1001'),
              to: f.server,
              flags: 'S',
              ttl: 63,
            }),
          },
        },
      ],
    },
    {
      name: `${f.name}: what the server sends under its own address is no reply of the connection`,
      services: [{ at, servers: [`${f.server} 1 droute`] }],
      steps: [
        sends('S', 'SYN_RECV 59'),
        pass(segment({ leg: 'from server', from: f.server, to: f.client, flags: 'SA' })),
        {
          ...pass(segment({ leg: 'to client', from: f.server, to: f.client, flags: 'SA' })),
          at: 'egress',
          side: 'clients',
        },
      ],
    },
  ]
}

function partsOf(text: string): [string, number] {
  const [, six, four, port] = /^(?:\[(.+)\]|(.+)):(\d+)$/.exec(text) ?? []
  return [six ?? four ?? '', Number(port)]
}

function refused(f: Family): Row[] {
  const big = { flags: 'A', payload: bytes(1400) }
  const service = (server: string) => [{ at: `tcp ${f.virtual}`, servers: [`${server} 1 droute`] }]
  const step = (packet: Uint8Array, answer: Uint8Array, verdict: string): Step[] => [
    { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
    {
      at: 'ingress',
      side: 'clients',
      packet,
      expect: { action: 'send', exactly: 'TC_ACT_REDIRECT', packet: answer, verdicts: { [verdict]: 1 } },
    },
  ]
  const open: Step = { at: 'ingress', side: 'clients', packet: asks(f), expect: { action: 'send', packet: arrives(f) } }
  const fragmentable = (f: Family): Row => {
    const loose = { ...big, ipv4: { df: false } }
    const answer = answers(f, f.errors.tooBig, asks(f, { ...loose, ttl: 63 }))
    return {
      name: `${f.name}: so is one that might be cut on its way`,
      services: service(f.narrow),
      steps: [open, ...step(asks(f, loose), answer, 'REFUSE_TOO_BIG')],
    }
  }
  return [
    {
      name: `${f.name}: a packet that the way to the server does not take is answered with what it takes`,
      services: service(f.narrow),
      steps: [open, ...step(asks(f, big), answers(f, f.errors.tooBig, asks(f, { ...big, ttl: 63 })), 'REFUSE_TOO_BIG')],
    },
    ...(f.name === 'IPv4' ? [fragmentable(f)] : []),
    {
      name: `${f.name}: a packet at the end of its life is answered, and counts`,
      services: service(f.server),
      steps: step(asks(f, { ttl: 1 }), answers(f, f.errors.old, asks(f, { ttl: 1 })), 'REFUSE_TTL'),
    },
    {
      name: `${f.name}: a client learns that there is no way to its server`,
      services: service(f.lost),
      steps: step(asks(f), answers(f, f.errors.noRoute, asks(f)), 'REFUSE_NO_ROUTE'),
    },
  ]
}

function elsewhere(f: Family): Row[] {
  const service = (server: string) => [{ at: `tcp ${f.virtual}`, servers: [`${server} 1 droute`] }]
  const connection = (server: string) => [`SYN_RECV 59 ${f.client} ${f.virtual} ${server}`]
  return [
    {
      name: `${f.name}: a server of the director's own has the packet from the stack, as it came`,
      services: service(f.local),
      steps: [
        { at: 'xdp', side: 'clients', packet: asks(f), expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet: asks(f),
          expect: { action: 'pass', connections: connection(f.local) },
        },
      ],
    },
    {
      name: `${f.name}: where the neighbour is not known the kernel finds it, and keeps the packet meanwhile`,
      services: service(f.silent),
      steps: [
        { at: 'xdp', side: 'clients', packet: asks(f), expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet: asks(f),
          expect: { action: 'send', packet: asks(f, { ttl: 63 }), connections: connection(f.silent) },
        },
      ],
    },
  ]
}

t.test('direct routing', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await must('ip', ['-batch', '-'], { input: `${routes.join('\n')}\n` })
  await testRows(
    t,
    datapath,
    families.flatMap((f) => [
      ...plain(f),
      ...lives(f),
      ...refused(f),
      ...elsewhere(f),
      doubted(f, 'droute'),
      doubted(f, 'ipip'),
    ]),
  )
})
