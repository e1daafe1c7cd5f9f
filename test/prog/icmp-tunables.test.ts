/** schedule_icmp: ICMP errors that begin connections; nat_icmp_send: what servers send of no connection is answered. */
import t from 'tap'
import type { SettingsChange } from '../../src/model/settings.ts'
import { Datapath } from '../helpers/prog.ts'
import { datagram, message, quote, segment } from '../helpers/prog-flow.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = [
  {
    name: 'IPv4',
    wrap: (address: string, port: number) => `${address}:${port}`,
    client: '10.1.0.1',
    near: '10.1.99.1',
    virtual: '10.9.0.1',
    server: '10.2.0.11',
    director: '10.254.2.1',
    tooBig: { type: 3, code: 4, rest: 1280 },
    unreachable: { type: 3, code: 3, ipv4: { tos: 0xc0, df: false } },
    most: 548,
  },
  {
    name: 'IPv6',
    wrap: (address: string, port: number) => `[${address}]:${port}`,
    client: 'fd00:1::1',
    near: 'fd00:1::99:1',
    virtual: 'fd00:9::1',
    server: 'fd00:2::11',
    director: 'fd00:fe:2::1',
    tooBig: { type: 2, code: 0, rest: 1280 },
    unreachable: { type: 1, code: 4 },
    most: 1232,
  },
] as const
type Family = (typeof families)[number]

function withSettings(tunables: SettingsChange['tunables'] = {}): Pick<Step, 'before'> {
  return { before: (datapath) => datapath.table.changeSettings({ tunables }) }
}

/** An error from the client's side about what a server sent to the client, before and after it was translated. */
function tooBig(f: Family, proto: 'tcp' | 'udp') {
  const make = (from: string) => {
    const ends = { from, to: f.wrap(f.client, 1000) }
    return quote(proto === 'tcp' ? segment({ ...ends, flags: 'A' }) : datagram(ends))
  }
  const [asSent, translated] = [make(f.wrap(f.virtual, 80)), make(f.wrap(f.server, 8080))]
  /* A quote's transport checksum is that of the packet that was sent, which nobody adjusts. */
  const check = proto === 'tcp' ? 16 : 6
  const l4 = f.name === 'IPv4' ? 20 : 40
  translated.set(asSent.subarray(l4 + check, l4 + check + 2), l4 + check)
  return {
    packet: message({ ...f.tooBig, from: f.near, to: f.virtual, payload: asSent }),
    passedOn: message({ ...f.tooBig, leg: 'to server', from: f.near, to: f.server, ttl: 63, payload: translated }),
  }
}

function scheduled(f: Family, proto: 'tcp' | 'udp'): Row {
  const { packet, passedOn } = tooBig(f, proto)
  const state = proto === 'tcp' ? 'NONE' : 'UDP'
  const ends = [f.wrap(f.client, 1000), f.wrap(f.virtual, 80), f.wrap(f.server, 8080)].join(' ')
  return {
    name: `${f.name}, ${proto}: with schedule_icmp an error about no connection begins one, of three seconds, and reaches its server`,
    services: [{ at: `${proto} ${f.wrap(f.virtual, 80)}`, servers: [f.wrap(f.server, 8080)] }],
    steps: [
      { at: 'ingress', side: 'clients', packet, expect: { action: 'pass', connections: [] } },
      {
        at: 'ingress',
        side: 'clients',
        ...withSettings({ schedule_icmp: 1 }),
        packet,
        expect: {
          action: 'send',
          packet: passedOn,
          verdicts: { ICMP_FORWARD: 1 },
          connections: [`${state} 3 ${ends}`],
          counts: ['0/1'],
        },
      },
    ],
  }
}

/** What makes nothing: one about another endpoint, a service without a server, a broken one. */
function unscheduled(f: Family): Row {
  const { packet } = tooBig(f, 'tcp')
  const broken = packet.slice()
  broken[broken.length - 1]! ^= 1
  return {
    name: `${f.name}: with schedule_icmp an error about no service passes; one that is broken, or finds no server, is dropped`,
    services: [{ at: `tcp ${f.wrap(f.virtual, 80)}`, servers: [`${f.wrap(f.server, 8080)} 0`] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        ...withSettings({ schedule_icmp: 1 }),
        packet: tooBig(f, 'udp').packet,
        expect: { action: 'pass', connections: [] },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet: broken,
        expect: { action: 'drop', verdicts: { DROP_MALFORMED: 1 }, connections: [] },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet,
        expect: { action: 'drop', verdicts: { REFUSE_NO_SERVER: 1 }, connections: [] },
      },
    ],
  }
}

/** There is no connection to translate it by. */
function onePacketRow(f: Family): Row {
  const { packet } = tooBig(f, 'udp')
  return {
    name: `${f.name}: with schedule_icmp an error about a service of one-packet scheduling passes`,
    services: [{ at: `udp ${f.wrap(f.virtual, 80)}`, onePacket: true, servers: [f.wrap(f.server, 8080)] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        ...withSettings({ schedule_icmp: 1 }),
        packet,
        expect: { action: 'pass', connections: [] },
      },
    ],
  }
}

function strayRow(f: Family): Row {
  const ends = { leg: 'from server', from: f.wrap(f.server, 8080), to: f.wrap(f.client, 1000) } as const
  const stray = (packet: Uint8Array): Step => ({
    at: 'ingress',
    side: 'servers',
    packet,
    expect: {
      action: 'send',
      packet: message({
        ...f.unreachable,
        leg: 'to server',
        from: f.director,
        to: f.server,
        payload: quote(packet, Math.min(f.most, packet.length - 14)),
      }),
      verdicts: { REFUSE_STRAY: 1 },
    },
  })
  const passes = (packet: Uint8Array): Step => ({ at: 'ingress', side: 'servers', packet, expect: { action: 'pass' } })
  return {
    name: `${f.name}: with nat_icmp_send a server's packet of no connection is answered from the director's address, but no reset, and nobody else's`,
    services: [
      { at: `tcp ${f.wrap(f.virtual, 80)}`, servers: [f.wrap(f.server, 8080)] },
      { at: `udp ${f.wrap(f.virtual, 80)}`, servers: [f.wrap(f.server, 8080)] },
      { at: `tcp ${f.wrap(f.virtual, 81)}`, servers: [`${f.wrap(f.server, 81)} 1 droute`] },
    ],
    steps: [
      passes(datagram(ends)),
      { ...passes(segment({ ...ends, flags: 'R' })), ...withSettings({ nat_icmp_send: 1 }) },
      stray(datagram(ends)),
      stray(datagram({ ...ends, payload: new Uint8Array(700).fill(7) })),
      stray(segment({ ...ends, flags: 'A' })),
      stray(segment({ ...ends, flags: 'S' })),
      passes(segment({ ...ends, from: f.wrap(f.server, 81), flags: 'A' })),
      passes(segment({ ...ends, from: f.wrap(f.server, 8081), flags: 'A' })),
      { at: 'xdp', side: 'servers', packet: datagram(ends), expect: { action: 'pass' } },
      { at: 'egress', side: 'clients', packet: datagram({ ...ends, leg: 'to client' }), expect: { action: 'pass' } },
    ],
  }
}

t.test('tunables about ICMP', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  await testRows(
    t,
    datapath,
    families.flatMap((f) => [scheduled(f, 'tcp'), scheduled(f, 'udp'), unscheduled(f), onePacketRow(f), strayRow(f)]),
  )
})
