/** Tunnels: what is around a packet beyond the recordings, what can't go, and what comes back about it. */
import t, { type Test } from 'tap'
import { must } from '../../src/lab/command.ts'
import { build, concat, ether, icmp, ipv4, ipv6, onesSum, protocols, words } from '../helpers/packet.ts'
import { Datapath, macs } from '../helpers/prog.ts'
import { datagram, type Leg, message, quote, segment } from '../helpers/prog-flow.ts'
import { addService, type GivenService, type Row, samePacket, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'
import { transport } from '../helpers/wire.ts'

const families = ['IPv4', 'IPv6'] as const
type Family = (typeof families)[number]

const ends = {
  IPv4: { client: '10.1.0.1:1000', virtual: '10.9.0.1:80', address: '10.9.0.1', host: '10.1.0.1' },
  IPv6: { client: '[fd00:1::1]:1000', virtual: '[fd00:9::1]:80', address: 'fd00:9::1', host: 'fd00:1::1' },
} as const

/** Servers: plain ones, behind routes with an MTU of 1400, and of less than IPv6 asks for. */
const servers = {
  IPv4: { plain: '10.2.0.11', narrow: '10.2.14.11', small: '10.2.12.11', lost: '10.2.66.11', silent: '10.254.3.2' },
  IPv6: {
    plain: 'fd00:2::11',
    narrow: 'fd00:2::14:11',
    small: 'fd00:2::12:11',
    lost: 'fd00:2::66:11',
    silent: 'fd00:fe:2::77',
  },
} as const

/** Where the director sends from, to most servers and to the silent one. */
const director = { IPv4: '10.254.2.1', IPv6: 'fd00:fe:2::1' } as const
const nearby = { IPv4: '10.254.3.1', IPv6: 'fd00:fe:2::1' } as const
const hooks = ['ingress', 'xdp'] as const

const routes = [
  'route add 10.2.14.0/24 via 10.254.2.2 mtu lock 1400',
  'route add fd00:2::14:0/112 via fd00:fe:2::2 mtu lock 1400',
  'route add 10.2.12.0/24 via 10.254.2.2 mtu lock 1299',
  'route add fd00:2::12:0/112 via fd00:fe:2::2 mtu lock 1299',
  'route add unreachable 10.2.66.0/24',
  'route add unreachable fd00:2::66:0/112',
  'address add 10.254.3.1/30 dev sv0',
]

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i * 17)
const ip = (frame: Uint8Array) => frame.subarray(14)
const where = (address: string) => (address.includes(':') ? `[${address}]:80` : `${address}:80`)

interface Envelope {
  readonly inner: Family
  readonly outer: Family
  readonly to: string
  readonly ttl?: number
  readonly tos?: number
  readonly from?: string
  /** MAC addresses, if they are not those of the way to most servers. */
  readonly link?: { readonly from: string; readonly to: string }
}

/** The frame that has a packet in a plain tunnel. */
function wrapped(packet: Uint8Array, e: Envelope): Uint8Array {
  const protocol = e.inner === 'IPv4' ? 4 : 41
  const { ttl = 63, tos = 0, to, from = director[e.outer], link = { from: macs.sv0, to: macs.server } } = e
  if (e.outer === 'IPv6') {
    return build(ether(link), ipv6({ from, to, hopLimit: ttl, trafficClass: tos, protocol }), ip(packet))
  }
  return build(ether(link), ipv4({ from, to, ttl, tos, protocol, df: e.inner === 'IPv4' }), ip(packet))
}

function asks(f: Family, o: object = {}): Uint8Array {
  return segment({ from: ends[f].client, to: ends[f].virtual, flags: 'S', ...o })
}

function given(f: Family, server: string, method = 'ipip'): GivenService[] {
  return [{ at: `tcp ${ends[f].virtual}`, servers: [`${where(server)} 1 ${method}`] }]
}

const errors = {
  IPv4: { tooBig: { type: 3, code: 4 }, old: { type: 11, code: 0 }, noRoute: { type: 3, code: 1 } },
  IPv6: { tooBig: { type: 2, code: 0 }, old: { type: 3, code: 0 }, noRoute: { type: 1, code: 3 } },
} as const

/** The error that answers a client's packet, quoting it as it was when it failed. */
function answers(
  f: Family,
  error: { type: number; code: number; rest?: number },
  failed: Uint8Array,
  leg: Leg = 'to client',
): Uint8Array {
  const payload = quote(failed).subarray(0, f === 'IPv4' ? 548 : 1232)
  const o = { leg, from: ends[f].address, to: ends[f].host, payload }
  return message({ ...o, ...error, ipv4: { tos: 0xc0, df: false } })
}

const rooms = { ipip: 0, gue: 12, 'gue+csum': 12, 'gue+remcsum': 12, gre: 4, 'gre+csum': 8 } as const

function sends(where: 'ingress' | 'xdp', packet: Uint8Array, becomes: Uint8Array, verdicts = {}): Step {
  return { at: where, side: 'clients', packet, expect: { action: 'send', packet: becomes, verdicts } }
}

/** Requests in a tunnel, by each hook. */
function plain(inner: Family, outer: Family): Row[] {
  const to = servers[outer].plain
  const e = { inner, outer, to }
  const marked = (tos: number) => ({ flags: 'A', ipv4: { tos }, ipv6: { trafficClass: tos } })
  return hooks.map((where) => ({
    name: `${inner} in ${outer}, ${where}: TTL, TOS and ECN are the packet's own, but for "congestion experienced"`,
    services: given(inner, to),
    steps: [
      sends(where, asks(inner), wrapped(asks(inner, { ttl: 63 }), e)),
      sends(
        where,
        asks(inner, { ...marked(0x2d), ttl: 9, payload: bytes(101) }),
        wrapped(asks(inner, { ...marked(0x2d), ttl: 8, payload: bytes(101) }), { ...e, ttl: 8, tos: 0x2d }),
      ),
      sends(where, asks(inner, marked(0x2f)), wrapped(asks(inner, { ...marked(0x2f), ttl: 63 }), { ...e, tos: 0x2e })),
    ],
  }))
}

/** What can't go through a tunnel of ipip. */
function refused(inner: Family, outer: Family): Row[] {
  const name = `${inner} in ${outer}`
  const step = (packet: Uint8Array, answer: Uint8Array, verdict: string): Step[] => [
    { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
    sends('ingress', packet, answer, { [verdict]: 1 }),
  ]
  const { old, noRoute } = errors[inner]
  return [
    {
      name: `${name}: at the end of its life a packet is answered`,
      services: given(inner, servers[outer].plain),
      steps: step(asks(inner, { ttl: 1 }), answers(inner, old, asks(inner, { ttl: 1 })), 'REFUSE_TTL'),
    },
    {
      name: `${name}: no route to the server`,
      services: given(inner, servers[outer].lost),
      steps: step(asks(inner), answers(inner, noRoute, asks(inner)), 'REFUSE_NO_ROUTE'),
    },
    {
      name: `${name}: where the neighbour is not known the kernel finds it, and keeps the packet meanwhile`,
      services: given(inner, servers[outer].silent),
      steps: [
        { at: 'xdp', side: 'clients', packet: asks(inner), expect: { action: 'pass' } },
        sends(
          'ingress',
          asks(inner),
          wrapped(asks(inner, { ttl: 63 }), {
            inner,
            outer,
            to: servers[outer].silent,
            from: nearby[outer],
            link: { from: macs.client, to: macs.cl0 },
          }),
        ),
      ],
    },
  ]
}

/** What fits into a tunnel, to the byte. */
function sized(t: Test, datapath: Datapath, inner: Family, outer: Family, method: keyof typeof rooms): void {
  const fits = 1400 - (outer === 'IPv4' ? 20 : 40) - rooms[method]
  const payload = bytes(fits - (inner === 'IPv4' ? 40 : 60))
  datapath.clear()
  for (const each of given(inner, servers[outer].narrow, method)) addService(datapath, each)
  const run = (at: (typeof hooks)[number], o: object) => datapath.run({ at, side: 'clients', packet: asks(inner, o) })
  t.equal(run('ingress', {}).action, 'send', 'a connection')
  for (const at of hooks) {
    const { action, packet } = run(at, { flags: 'A', payload })
    t.equal(action, 'send', `${fits} bytes, ${at}`)
    t.equal(packet.length, 1414)
  }
  const big = { flags: 'A', payload: concat(payload, Uint8Array.of(1)) }
  t.equal(run('xdp', big).action, 'pass')
  const error = { ...errors[inner].tooBig, rest: fits }
  const { packet } = run('ingress', big)
  samePacket(t, packet, answers(inner, error, asks(inner, { ...big, ttl: 63 })), 'one byte more')
}

/** The tunnel's own headers: with a checksum over a packet that has one, that has none, that is no TCP or UDP. */
function summed(t: Test, datapath: Datapath, inner: Family, outer: Family, method: 'gue+csum' | 'gre+csum'): void {
  datapath.clear()
  const at = `udp ${ends[inner].virtual}`
  addService(datapath, { at, servers: [`${where(servers[outer].plain)} 1 ${method}`] })
  const packets = [datagram({ from: ends[inner].client, to: ends[inner].virtual, payload: bytes(777) })]
  if (inner === 'IPv4') {
    const none = { checksum: 0, payload: bytes(1001) }
    packets.push(datagram({ from: ends[inner].client, to: ends[inner].virtual, ...none }))
    /* Its checksum is that of the whole datagram, which is not here. */
    const first = { checksum: 0x1234, length: 2000, ipv4: { mf: true, df: false, id: 77 } }
    packets.push(datagram({ from: ends[inner].client, to: ends[inner].virtual, payload: bytes(800), ...first }))
  }
  for (const [i, input] of packets.entries()) {
    for (const at of hooks) {
      const { action, packet } = datapath.run({ at, side: 'clients', packet: input })
      /* Fragments are left to tcx. */
      if (at === 'xdp' && i === 2) continue
      t.equal(action, 'send')
      t.equal(checksumHolds(packet), true, `${at}, packet ${i}`)
    }
  }
}

/** Whether gue's or gre's checksum is there and right. */
function checksumHolds(frame: Uint8Array): boolean {
  const { protocol, at, pseudo } = transport(frame, 14)
  const covered = frame.subarray(at)
  if (protocol === 47) return ((covered[0] ?? 0) & 0x80) !== 0 && onesSum(covered) === 0xffff
  return (
    protocol === protocols.udp && ((covered[6] ?? 0) | (covered[7] ?? 0)) !== 0 && onesSum(pseudo, covered) === 0xffff
  )
}

const gre = { type: 47, header: words(0, 0x0800) }
const gue = { type: protocols.udp, header: words(40000, 6080, 8 + 4 + 60, 0, 0x0004, 0) }
const ipip = { type: 4, header: new Uint8Array(0) }

/** An error from a router on the way to the server, about a packet in a tunnel. */
function returned(method: 'ipip' | 'gue' | 'gre', type: number, code: number, rest: number): Uint8Array {
  const { type: protocol, header } = { ipip, gue, gre }[method]
  const inner = ip(asks('IPv4', { ttl: 60 }))
  const outer = ipv4({ from: director.IPv4, to: servers.IPv4.plain, ttl: 59, protocol })
  const link = ether({ from: macs.server, to: macs.sv0 })
  const network = ipv4({ from: '10.2.99.1', to: director.IPv4, protocol: protocols.icmp })
  return build(link, network, icmp({ type, code, rest }), build(outer, concat(header, inner)))
}

function comesBack(method: 'ipip' | 'gue' | 'gre'): Row[] {
  const overhead = { ipip: 20, gue: 32, gre: 24 }[method]
  const told = (packet: Uint8Array, error: { type: number; code: number; rest?: number }): Step => ({
    at: 'ingress',
    side: 'servers',
    packet,
    expect: {
      action: 'send',
      packet: answers('IPv4', error, asks('IPv4', { ttl: 60 }), 'from server'),
      verdicts: { ICMP_FORWARD: 1 },
    },
  })
  const opened = ([first, ...more]: readonly Step[]): Step[] => [
    {
      ...(first as Step),
      before: (datapath) => {
        datapath.run({ at: 'ingress', side: 'clients', packet: asks('IPv4') })
      },
    },
    ...more,
  ]
  const passes = (packet: Uint8Array): Step => ({ at: 'ingress', side: 'servers', packet, expect: { action: 'pass' } })
  const services = given('IPv4', servers.IPv4.plain, method)
  return [
    {
      name: `${method}: "fragmentation needed" about the tunnel reaches the client, less the tunnel's headers`,
      services,
      steps: opened([told(returned(method, 3, 4, 1300), { type: 3, code: 4, rest: 1300 - overhead })]),
    },
    {
      name: `${method}: a path of less than the kernel believes in counts as that`,
      services,
      steps: opened([told(returned(method, 3, 4, 100), { type: 3, code: 4, rest: 552 - overhead })]),
    },
    {
      name: `${method}: other errors about the tunnel reach the client as they are`,
      services,
      steps: opened([
        told(returned(method, 3, 1, 0), { type: 3, code: 1 }),
        told(returned(method, 11, 0, 0), { type: 11, code: 0 }),
      ]),
    },
    {
      name: `${method}: an error about a tunnel that no connection uses is the stack's`,
      services: given('IPv4', servers.IPv4.narrow, method),
      steps: opened([passes(returned(method, 3, 1, 0))]),
    },
  ]
}

/** Errors from a client about what its server sent it go the way of its packets. */
function sentOn(inner: Family, outer: Family): Row {
  const f = ends[inner]
  const to = servers[outer].plain
  const quoted = quote(segment({ from: f.virtual, to: f.client, flags: 'A', payload: bytes(40) }))
  const { tooBig } = errors[inner]
  const about = (o: object) => message({ from: f.host, to: f.address, ...tooBig, rest: 1300, payload: quoted, ...o })
  return {
    name: `${inner} in ${outer}: a client's error about its connection goes to its server, in the tunnel`,
    services: given(inner, to),
    steps: [
      sends('ingress', asks(inner), wrapped(asks(inner, { ttl: 63 }), { inner, outer, to })),
      { at: 'xdp', side: 'clients', packet: about({}), expect: { action: 'pass' } },
      sends('ingress', about({}), wrapped(about({ ttl: 63 }), { inner, outer, to }), { ICMP_FORWARD: 1 }),
      {
        at: 'ingress',
        side: 'clients',
        packet: about({ ttl: 1 }),
        expect: { action: 'drop', verdicts: { ICMP_FORWARD: 1, REFUSE_TTL: 1 } },
      },
    ],
  }
}

const closed: Row = {
  name: 'a way that takes less than IPv6 asks for is closed to a tunnel over IPv6',
  services: given('IPv4', servers.IPv6.small),
  steps: [
    {
      at: 'ingress',
      side: 'clients',
      packet: asks('IPv4'),
      expect: { action: 'drop', packet: asks('IPv4', { ttl: 63 }), verdicts: { DROP_NARROW: 1 } },
    },
  ],
}

const least: Row = {
  name: 'a client is never told that less than 1,280 bytes fit over IPv6',
  services: given('IPv6', servers.IPv4.small),
  steps: [
    sends(
      'ingress',
      asks('IPv6', { payload: bytes(1221) }),
      answers('IPv6', { type: 2, code: 0, rest: 1280 }, asks('IPv6', { payload: bytes(1221), ttl: 63 })),
      { REFUSE_TOO_BIG: 1 },
    ),
  ],
}

t.test('tunnels', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await must('ip', ['-batch', '-'], { input: `${routes.join('\n')}\n` })
  /* Only where the director's headers have nothing random: IPv6 in IPv4 has an identification. */
  const exact = [
    ['IPv4', 'IPv4'],
    ['IPv4', 'IPv6'],
    ['IPv6', 'IPv6'],
  ] as const
  await testRows(t, datapath, [
    ...exact.flatMap(([inner, outer]) => [...plain(inner, outer), ...refused(inner, outer), sentOn(inner, outer)]),
    ...(['ipip', 'gue', 'gre'] as const).flatMap(comesBack),
    closed,
    least,
  ])
  for (const inner of families) {
    for (const outer of families) {
      for (const method of Object.keys(rooms) as (keyof typeof rooms)[]) {
        await t.test(`${inner} in ${outer}, ${method}: what fits goes, what does not is answered`, async (t) => {
          sized(t, datapath, inner, outer, method)
        })
      }
      for (const method of ['gue+csum', 'gre+csum'] as const) {
        await t.test(`${inner} in ${outer}, ${method}: the checksum is right, whatever is inside`, async (t) => {
          summed(t, datapath, inner, outer, method)
        })
      }
    }
  }
})
