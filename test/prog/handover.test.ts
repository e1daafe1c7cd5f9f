/** Beside another balancer, where connection tracking knows of nothing: what is nobody's is refused, or left to the other. */
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { both, type Family, families, given, pass, vip, wrap } from '../helpers/prog-policy.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'
import type { HandoverMode } from '../../src/model/settings.ts'

const hooks = [
  { at: 'xdp', side: 'clients' },
  { at: 'ingress', side: 'clients' },
  { at: 'egress', side: 'clients', own: true },
] as const

function handedOver(family: Family): Row {
  const ends = { from: wrap(families[family].client, 9), to: vip(family, 80) }
  const packets = [segment({ ...ends, flags: 'S' }), segment({ ...ends, flags: 'A' }), datagram(ends)]
  return {
    name: `${family}: handing over, nothing new is ours, at any hook`,
    steps: hooks.flatMap((hook) =>
      packets.map(
        (packet): Step => ({ ...hook, packet, before: setUp(family, 'to'), expect: { ...pass, connections: [] } }),
      ),
    ),
  }
}

function takenOver(family: Family): Row {
  const ends = { from: wrap(families[family].client, 9), to: vip(family, 80) }
  const before = setUp(family, 'from')
  return {
    name: `${family}: taking over, XDP leaves what is of no connection to tcx, which refuses what is nobody's`,
    steps: [
      {
        at: 'xdp',
        side: 'clients',
        before,
        packet: segment({ ...ends, flags: 'S' }),
        expect: { ...pass, connections: [] },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet: segment({ ...ends, flags: 'A' }),
        expect: { action: 'send', anyPacket: true, verdicts: { REFUSE_NO_CONN: 1 }, connections: [] },
      },
    ],
  }
}

function setUp(family: Family, handover: HandoverMode): NonNullable<Step['before']> {
  return (datapath) => {
    given(family, {})(datapath)
    datapath.table.changeSettings({ handover })
  }
}

t.test('handovers', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  t.teardown(() => datapath.table.changeSettings({ handover: 'none' }))
  await testRows(
    t,
    datapath,
    both.flatMap((family) => [handedOver(family), takenOver(family)]),
  )
})
