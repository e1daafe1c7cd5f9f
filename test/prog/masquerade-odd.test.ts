/** Fragments, and packets with IPv6 extension headers, of masqueraded connections: as whole and plain ones, but through the stack. */
import t from 'tap'
import { extension, fragments } from '../helpers/packet.ts'
import { Datapath, type Place, type Side } from '../helpers/prog.ts'
import { datagram, type Leg, segment, type SegmentOptions } from '../helpers/prog-flow.ts'
import { both, everybody, type Family, families, given, own, server, vip, wrap } from '../helpers/prog-policy.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const payload = Uint8Array.from({ length: 200 }, (_, i) => i * 7)
const cuts = [40, 80, 160]
const protocols = ['tcp', 'udp'] as const
type Protocol = (typeof protocols)[number]

interface Hop {
  readonly at: Place
  readonly side: Side
  readonly leg: Leg
  /** Ends before and after. */
  readonly ends: readonly [from: string, to: string]
  readonly become: readonly [from: string, to: string]
  readonly becomesLeg?: Leg
  readonly expect?: Step['expect']['action']
  readonly more?: Pick<Step, 'before' | 'own'>
  readonly options?: Partial<SegmentOptions>
}

/** The four places that a masqueraded connection changes at, through the stack. */
function hops(family: Family): Hop[] {
  const client = wrap(families[family].client, 1000)
  const [real, here, virtual] = [server(family), own(family), vip(family)]
  const before = given(family, { masquerade: everybody })
  return [
    {
      at: 'ingress',
      side: 'clients',
      leg: 'from client',
      ends: [client, virtual],
      become: [client, real],
      more: { before },
    },
    { at: 'egress', side: 'servers', leg: 'to server', ends: [client, real], become: [here, real] },
    { at: 'ingress', side: 'servers', leg: 'from server', ends: [real, here], become: [real, client] },
    { at: 'egress', side: 'clients', leg: 'to client', ends: [real, client], become: [virtual, client] },
  ]
}

/** What the host itself sends, by the way to the server, and its answer. */
function hostHops(family: Family): Hop[] {
  const self = wrap(families[family].outer, 1000)
  const more = { before: given(family, {}), own: true }
  const ends = [self, vip(family)] as const
  const become = [own(family), server(family)] as const
  return [
    { at: 'egress', side: 'clients', leg: 'to client', becomesLeg: 'to server', ends, become, expect: 'send', more },
  ]
}

function make(
  protocol: Protocol,
  leg: Leg,
  [from, to]: readonly [string, string],
  o: Partial<SegmentOptions>,
): Uint8Array {
  const all = { leg, from, to, payload, ...o }
  return protocol === 'udp' ? datagram(all) : segment({ ...all, flags: 'S' })
}

let lastId = 1

/** A step for each fragment of what is seen at a hop. */
function inFragments(protocol: Protocol, hop: Hop): Step[] {
  lastId += 1
  const o = { ipv4: { df: false } }
  const { at, side, leg, becomesLeg = leg, ends, become, expect: action = 'pass', more = {} } = hop
  const whole = make(protocol, leg, ends, o)
  const after = fragments(make(protocol, becomesLeg, become, o), lastId, ...cuts)
  return fragments(whole, lastId, ...cuts).map((packet, i) => ({
    at,
    side,
    ...(i === 0 ? more : more.own === true ? { own: true } : {}),
    packet,
    expect: { action, packet: after[i] ?? packet, ...verdicts(more, i) },
  }))
}

/** The first packet of all makes the connection. */
function verdicts(more: NonNullable<Hop['more']>, i: number): Pick<Step['expect'], 'verdicts'> {
  return more.before !== undefined && i === 0 ? { verdicts: { MASQUERADED: 1 } } : {}
}

const bodies = {
  'hop-by-hop options': extension('hopByHop', Uint8Array.of(1, 4, 0, 0, 0, 0)),
  'destination options': extension('destination', new Uint8Array(14)),
  'a fragment that is whole': extension('fragment', Uint8Array.of(0, 0, 1, 2, 3, 4)),
} as const

/** A step for a packet with an extension header. */
function behind(protocol: Protocol, header: (typeof bodies)[keyof typeof bodies], hop: Hop): Step {
  const { at, side, leg, becomesLeg = leg, ends, become, expect: action = 'pass', more = {} } = hop
  const o = { extensions: [header] }
  const packet = make(protocol, becomesLeg, become, o)
  return { at, side, ...more, packet: make(protocol, leg, ends, o), expect: { action, packet, ...verdicts(more, 0) } }
}

const ways = [
  ['there and back', hops],
  ['of the host itself', hostHops],
] as const

t.test('what is not plain, masqueraded', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const rows = protocols.flatMap((protocol) =>
    ways.flatMap(([name, of]): Row[] => [
      ...both.map(
        (family): Row => ({
          name: `${family} ${protocol}, ${name}: fragments change as their datagram`,
          bypass: 'never',
          steps: of(family).flatMap((hop) => inFragments(protocol, hop)),
        }),
      ),
      ...Object.entries(bodies).map(
        ([what, header]): Row => ({
          name: `IPv6 ${protocol}, ${name}: behind ${what}`,
          bypass: 'never',
          steps: of('IPv6').map((hop) => behind(protocol, header, hop)),
        }),
      ),
    ]),
  )
  await testRows(t, datapath, rows)
  datapath.close()
})
