/** The table's own rules that mark packets: services by mark without netfilter, at XDP too. */
import t from 'tap'
import type { TableMarkRule } from '../../src/maps/mark-rules.ts'
import { listInterfaces } from '../../src/native/interfaces.ts'
import { Datapath } from '../helpers/prog.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { families, type Family, opens, untouched } from '../helpers/prog-kinds.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const prefixes = {
  IPv4: { clients: ['10.1.0.0', 24], virtual: ['10.9.0.0', 31] },
  IPv6: { clients: ['fd00:1::', 120], virtual: ['fd00:9::', 127] },
} as const

/** Rules that are given before the first step. */
interface Ruled extends Row {
  readonly rules: readonly Partial<TableMarkRule>[]
}

function rows(family: Family, at: 'xdp' | 'ingress'): Ruled[] {
  const net = families[family]
  const number = family === 'IPv4' ? 4 : 6
  const prefix = (of: 'clients' | 'virtual') => {
    const [address, length] = prefixes[family][of]
    return { family: number, address, length } as const
  }
  const index = (name: string) => listInterfaces().find((each) => each.name === name)?.ifindex ?? -1
  const services = [{ at: net.mark, servers: [net.server(0)] }]
  const taken = opens({ at }, net, net.virtual(80), net.server(80))
  const passed = opens({ at }, net, net.virtual(80))
  const row = (name: string, rules: Ruled['rules'], steps: readonly Step[]): Ruled => {
    return { name: `${family} at ${at}: ${name}`, rules, services, steps }
  }
  return [
    row('a rule that asks for nothing marks all', [{}], [taken, opens({ at }, net, net.foreign(443), net.server(443))]),
    row('without rules nothing is marked', [], [passed]),
    row('the destination', [{ family: number, to: prefix('virtual') }], [taken, opens({ at }, net, net.foreign(80))]),
    row('the source', [{ family: number, from: prefix('clients') }], [taken]),
    row('another source', [{ family: number, from: prefix('virtual') }], [passed]),
    row('the other family', [{ family: family === 'IPv4' ? 6 : 4 }], [passed]),
    row(
      'the protocol',
      [{ protocol: 'tcp' }],
      [{ at, side: 'clients', packet: datagram({ from: net.client, to: net.virtual(80) }), expect: untouched }, taken],
    ),
    row(
      'ports, both ends of the range included',
      [{ ports: { first: 80, last: 443 } }],
      [
        opens({ at }, net, net.virtual(79)),
        taken,
        opens({ at }, net, net.virtual(443), net.server(443)),
        opens({ at }, net, net.virtual(444)),
      ],
    ),
    row('the interface', [{ ifindex: index('cl0') }], [taken]),
    row('another interface', [{ ifindex: index('sv0') }], [passed]),
    row(
      'the first rule that fits counts',
      [{ mark: 8, ports: { first: 80, last: 80 } }, {}],
      [passed, opens({ at }, net, net.virtual(81), net.server(81))],
    ),
    row('the sixty-fourth rule too', [...Array.from({ length: 63 }, () => ({ ifindex: 9999 })), {}], [taken]),
    row(
      'a segment that opens nothing is not looked at',
      [{}],
      [
        {
          at,
          side: 'clients',
          packet: segment({ from: net.client, to: net.virtual(80), flags: 'A' }),
          expect: untouched,
        },
      ],
    ),
  ]
}

t.test('mark rules', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  const given = (ruled: Ruled): Row => {
    const [first, ...rest] = ruled.steps
    if (first === undefined) throw new Error('a row without steps')
    const rules = ruled.rules.map((rule) => ({ mark: 7, ifindex: 0, ...rule }))
    return { ...ruled, steps: [{ ...first, before: ({ table }) => table.editMarkRules(() => rules) }, ...rest] }
  }
  for (const family of ['IPv4', 'IPv6'] as const) {
    for (const at of ['xdp', 'ingress'] as const) await testRows(t, datapath, rows(family, at).map(given))
    const net = families[family]
    await testRows(t, datapath, [
      given({
        name: `${family}: a mark that the packet has goes before the rules`,
        rules: [{ mark: 8 }],
        services: [{ at: net.mark, servers: [net.server(0)] }],
        steps: [opens({ at: 'ingress', mark: 7 }, net, net.virtual(80), net.server(80))],
      }),
    ])
  }
})
