/** Service ranges: addresses that only services are to have. */
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram } from '../helpers/prog-flow.ts'
import { both, type Family, families, given, pass, send, vip, wrap } from '../helpers/prog-policy.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const prefixes = [
  { family: 4, address: '10.9.0.0', length: 16 },
  { family: 4, address: '10.96.0.0', length: 12 },
  { family: 6, address: 'fd00:9::', length: 64 },
  { family: 6, address: 'fd01::', length: 20 },
] as const

/** Addresses that only services are to have. */
function ranges(family: Family): Row {
  const four = family === 'IPv4'
  const before: NonNullable<Step['before']> = (datapath) => {
    given(family, {})(datapath)
    datapath.table.setServiceRanges(prefixes, true)
  }
  const call = (to: string) => {
    return { at: 'ingress', side: 'clients', packet: datagram({ from: wrap(families[family].client, 9), to }) } as const
  }
  return {
    name: `${family}: in a service range a port without service is refused, an address without service dropped`,
    steps: [
      { ...call(vip(family, 81)), before, expect: { ...send, anyPacket: true, verdicts: { REFUSE_NO_PORT: 1 } } },
      {
        ...call(wrap(four ? '10.9.77.7' : 'fd00:9::77:7', 80)),
        expect: { action: 'drop', verdicts: { DROP_UNUSED: 1 } },
      },
      {
        ...call(wrap(four ? '10.111.255.255' : 'fd01:0fff::1', 80)),
        expect: { action: 'drop', verdicts: { DROP_UNUSED: 1 } },
      },
      { ...call(wrap(four ? '10.2.0.99' : 'fd00:2::99', 80)), expect: pass },
      { ...call(wrap(four ? '10.112.0.0' : 'fd01:1000::', 80)), expect: pass },
      { ...call(wrap(four ? '11.9.0.1' : 'fe00:9::1', 80)), expect: pass },
    ],
  }
}

/** What the host itself sends there is answered to the host. */
function ofTheHost(family: Family): Row {
  const ranged = ranges(family)
  return {
    ...ranged,
    name: `${ranged.name}; the host's own too`,
    steps: ranged.steps.map((step) => ({ ...step, at: 'egress', own: true })),
  }
}

t.test('service ranges', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  await testRows(
    t,
    datapath,
    both.flatMap((family) => [ranges(family), ofTheHost(family)]),
  )
  datapath.close()
})
