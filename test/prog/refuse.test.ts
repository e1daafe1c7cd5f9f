import { once } from 'node:events'
import { createServer } from 'node:net'
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram, message, quote, segment } from '../helpers/prog-flow.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = {
  IPv4: {
    client: '10.1.0.1',
    virtual: '10.9.0.1',
    local: '10.10.0.1',
    server: '10.2.0.11',
    wrap: (address: string, port: number) => `${address}:${port}`,
    /** As icmp_send(): 576 bytes at most, of which 28 are headers. */
    most: 548,
    unreachable: { type: 3, code: 3 },
  },
  IPv6: {
    client: 'fd00:1::1',
    virtual: 'fd00:9::1',
    local: 'fd00:10::1',
    server: 'fd00:2::11',
    wrap: (address: string, port: number) => `[${address}]:${port}`,
    most: 1232,
    unreachable: { type: 1, code: 4 },
  },
} as const
type Family = keyof typeof families

/** The port that a socket of the director listens on, at every address. */
const LISTENING = 81

const send = { action: 'send', exactly: 'TC_ACT_REDIRECT' } as const

/** The ICMP port unreachable for a packet: from the virtual address, back on the way that the packet came. */
function unreachable(family: Family, packet: Uint8Array): Uint8Array {
  const { client, virtual, most, unreachable: kind } = families[family]
  const payload = quote(packet, Math.min(most, packet.length - 14))
  return message({ leg: 'to client', from: virtual, to: client, payload, ...kind, ipv4: { tos: 0xc0, df: false } })
}

interface Refused {
  readonly name: string
  readonly protocol: 'tcp' | 'udp'
  readonly packet: Uint8Array
}

function refused(family: Family): Refused[] {
  const { client, virtual, wrap } = families[family]
  const ends = { from: wrap(client, 1000), to: wrap(virtual, 80) }
  const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => i)
  return [
    { name: 'a SYN', protocol: 'tcp', packet: segment({ ...ends, flags: 'S', options: bytes(8).fill(1) }) },
    { name: 'a datagram', protocol: 'udp', packet: datagram({ ...ends, payload: bytes(33) }) },
    { name: 'a datagram without payload', protocol: 'udp', packet: datagram(ends) },
    {
      name: 'a datagram longer than what an answer quotes',
      protocol: 'udp',
      packet: datagram({ ...ends, payload: bytes(1400) }),
    },
    {
      name: 'a datagram of odd length up to the quote',
      protocol: 'udp',
      packet: datagram({ ...ends, payload: bytes(517) }),
    },
  ]
}

/** Services that can take nobody, by why. */
function closed(family: Family, protocol: string): { why: string; servers: string[] }[] {
  const { server, wrap } = families[family]
  return [
    { why: 'without a server', servers: [] },
    { why: 'whose servers have weight 0', servers: [`${wrap(server, 80)} 0`, `${wrap(server, 81)} 0`] },
  ].map((each) => ({ ...each, why: `${protocol} service ${each.why}` }))
}

const noServer: Row[] = (['IPv4', 'IPv6'] as const).flatMap((family) =>
  refused(family).flatMap(({ name, protocol, packet }) =>
    closed(family, protocol).map(
      ({ why, servers }): Row => ({
        name: `${family}: ${name} to a ${why} is answered with port unreachable; XDP leaves that to tcx`,
        services: [{ at: `${protocol} ${families[family].wrap(families[family].virtual, 80)}`, servers }],
        steps: [
          { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
          {
            at: 'ingress',
            side: 'clients',
            packet,
            expect: {
              ...send,
              packet: unreachable(family, packet),
              verdicts: { REFUSE_NO_SERVER: 1 },
              connections: [],
            },
          },
        ],
      }),
    ),
  ),
)

const withOptions: Row = {
  name: 'a datagram with IP options is answered with them quoted',
  services: [{ at: 'udp 10.9.0.1:80', servers: [] }],
  steps: [
    (() => {
      const options = Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0)
      const packet = datagram({
        from: '10.1.0.1:1000',
        to: '10.9.0.1:80',
        ipv4: { options },
        payload: new Uint8Array(9),
      })
      return {
        at: 'ingress' as const,
        side: 'clients' as const,
        packet,
        expect: { ...send, packet: unreachable('IPv4', packet), verdicts: { REFUSE_NO_SERVER: 1 } },
      }
    })(),
  ],
}

interface Stray {
  readonly flags: string
  readonly payload: number
  /** Flags, sequence and acknowledgement numbers of the answer; undefined: none is due. */
  readonly answer: { readonly flags: string; readonly seq: number; readonly ack: number } | undefined
}

/** RFC 9293, 3.5.2: the acknowledged number, or nothing, and then all that was received is acknowledged. */
const strays: Stray[] = [
  { flags: 'A', payload: 0, answer: { flags: 'R', seq: 7777, ack: 0 } },
  { flags: 'PA', payload: 100, answer: { flags: 'R', seq: 7777, ack: 0 } },
  { flags: 'FA', payload: 0, answer: { flags: 'R', seq: 7777, ack: 0 } },
  { flags: 'F', payload: 0, answer: { flags: 'RA', seq: 0, ack: 5001 } },
  { flags: 'F', payload: 7, answer: { flags: 'RA', seq: 0, ack: 5008 } },
  { flags: '', payload: 9, answer: { flags: 'RA', seq: 0, ack: 5009 } },
  { flags: 'R', payload: 0, answer: undefined },
  { flags: 'RA', payload: 0, answer: undefined },
]

function stray(family: Family, { flags, payload, answer }: Stray): Row[] {
  const { client, virtual, local, server, wrap } = families[family]
  const o = {
    flags,
    seq: 5000,
    ack: 7777,
    payload: new Uint8Array(payload).fill(0x61),
    options: Uint8Array.of(1, 1, 1, 1),
  }
  const packet = segment({ from: wrap(client, 1000), to: wrap(virtual, 80), ...o })
  const toLocal = (port: number) => segment({ from: wrap(client, 1000), to: wrap(local, port), ...o })
  const back = { leg: 'to client', from: wrap(virtual, 80), to: wrap(client, 1000), window: 0 } as const
  const ends = [wrap(virtual, 80), wrap(local, 80), wrap(local, LISTENING)]
  const services = ends.map((at) => ({ at: `tcp ${at}`, servers: [wrap(server, 80)] }))
  const what = `${family}: "${flags}" with ${payload} bytes of no connection`
  return [
    {
      name: `${what} ${answer === undefined ? 'is dropped' : `is answered with "${answer.flags}"`}`,
      services,
      steps: [
        { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet,
          expect: {
            ...(answer === undefined ? { action: 'drop' } : { ...send, packet: segment({ ...back, ...answer }) }),
            verdicts: { REFUSE_NO_CONN: 1 },
            connections: [],
          },
        },
      ],
    },
    {
      name: `${what} gets the same where the virtual address is the host's own`,
      services,
      steps: [
        {
          at: 'ingress',
          side: 'clients',
          packet: toLocal(80),
          expect: {
            ...(answer === undefined
              ? { action: 'drop' }
              : { ...send, packet: segment({ ...back, from: wrap(local, 80), ...answer }) }),
            verdicts: { REFUSE_NO_CONN: 1 },
          },
        },
      ],
    },
    {
      name: `${what} is the stack's where a socket of the host listens`,
      services,
      steps: (['xdp', 'ingress'] as const).map((at) => ({
        at,
        side: 'clients',
        packet: toLocal(LISTENING),
        expect: { action: 'pass', connections: [] },
      })),
    },
  ]
}

const gone: Row[] = (['IPv4', 'IPv6'] as const).map((family) => {
  const { client, virtual, server, wrap } = families[family]
  const [from, to, real] = [wrap(client, 1000), wrap(virtual, 80), wrap(server, 8080)]
  const remove = ({ table }: Datapath) => {
    const view = table.services()[0]
    const first = view?.servers[0]
    if (view === undefined || first === undefined) throw new Error('no server to remove')
    table.deleteServer(view.key, first)
  }
  const after = (at: Step['at'], before?: Step['before']): Step => ({
    at,
    side: 'clients',
    packet: segment({ from, to, flags: 'A' }),
    ...(before === undefined ? {} : { before }),
    expect: { action: 'drop', verdicts: { DROP_SERVER_GONE: 1 } },
  })
  return {
    name: `${family}: a packet for a removed server is silently dropped, with a verdict; what the server still sends passes`,
    services: [{ at: `tcp ${to}`, servers: [real] }],
    steps: [
      {
        at: 'xdp',
        side: 'clients',
        packet: segment({ from, to, flags: 'S' }),
        expect: { action: 'send', packet: segment({ leg: 'to server', from, to: real, flags: 'S', ttl: 63 }) },
      },
      after('xdp', remove),
      after('ingress'),
      {
        at: 'xdp',
        side: 'servers',
        packet: segment({ leg: 'from server', from: real, to: from, flags: 'SA' }),
        expect: { action: 'send', packet: segment({ leg: 'to client', from: to, to: from, flags: 'SA', ttl: 63 }) },
      },
    ],
  }
})

const opening: Row[] = ['S', 'SA', 'SPA', 'SF'].map((flags) => ({
  name: `"${flags}" opens a connection`,
  services: [{ at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:80'] }],
  steps: [
    {
      at: 'xdp',
      side: 'clients',
      packet: segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', flags }),
      expect: {
        action: 'send',
        packet: segment({ leg: 'to server', from: '10.1.0.1:1000', to: '10.2.0.11:80', flags, ttl: 63 }),
        connections: ['SYN_RECV 59 10.1.0.1:1000 10.9.0.1:80 10.2.0.11:80'],
      },
    },
  ],
}))

t.test('refusals', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const listener = createServer().listen(LISTENING, '::')
  t.teardown(() => listener.close())
  await once(listener, 'listening')
  const rows = (['IPv4', 'IPv6'] as const).flatMap((family) => strays.flatMap((each) => stray(family, each)))
  await testRows(t, datapath, [...noServer, withOptions, ...rows, ...gone, ...opening])
})
