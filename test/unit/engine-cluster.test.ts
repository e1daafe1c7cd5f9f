/** What a table is told of the cluster: its pods, its ranges of services, the ports of masqueraded connections. */
import t from 'tap'
import { LbFeature, LbPeer, LbPods, LbServiceRangeArray } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import { readPodNetworks } from '../../src/maps/pods.ts'
import { readServiceRanges } from '../../src/maps/service-ranges.ts'
import type { Prefix } from '../../src/model/types.ts'
import { memoryTable } from '../helpers/table-specs.ts'

const pods4: Prefix = { family: 4, address: '10.244.0.0', length: 16 }
const pods6: Prefix = { family: 6, address: 'fd00:10:244::', length: 56 }
const services4: Prefix = { family: 4, address: '10.96.0.0', length: 12 }
const services6: Prefix = { family: 6, address: 'fd00:10:96::', length: 112 }

t.test('pods are known by their networks, by interfaces, or not at all', async (t) => {
  const { table, maps, handles } = memoryTable()
  const known = () => maps.config.podsKnown(0)
  t.equal(known(), 0)
  table.setPods({ networks: [{ ...pods4, address: '10.244.3.7' }] })
  t.equal(known(), LbPods.PODS_NET4)
  t.same([...maps.config.pods4(0)].slice(0, 5), [10, 244, 0, 0, 0], 'without the bits that do not count')
  t.same([...maps.config.pods4Mask(0)].slice(0, 5), [255, 255, 0, 0, 0])
  table.setPods({ networks: [pods4, pods6] })
  t.equal(known(), LbPods.PODS_NET4 | LbPods.PODS_NET6)
  t.same(readPodNetworks(maps), [pods4, pods6])
  table.setPods({ networks: [], links: [7, 9] })
  t.equal(known(), LbPods.PODS_LINK)
  t.same(handles.podLinks, [7, 9])
  t.same(readPodNetworks(maps), [])
  table.setPods({ networks: [], links: [] })
  t.equal(known(), LbPods.PODS_LINK, 'though there is no interface of theirs yet')
  table.setPods({ networks: [] })
  t.equal(known(), 0)
  t.throws(() => table.setPods({ networks: [{ ...pods4, length: 33 }] }), { code: 'INVALID' })
})

t.test('service ranges are in the table, and packets pay for them only where there are some', async (t) => {
  const { table, maps, handles } = memoryTable()
  const records = new LbServiceRangeArray(handles.buffer('lb_service_ranges'))
  table.setServiceRanges([services4, services6], true)
  t.same(readServiceRanges(maps), { prefixes: [services4, services6], known: true })
  t.equal(maps.config.features(0), LbFeature.FEATURE_RANGES)
  t.same([records.af(0), records.unused(0), records.af(1), records.unused(1)], [4, 1, 6, 1])
  table.setServiceRanges([services4], false)
  t.same(readServiceRanges(maps), { prefixes: [services4], known: false })
  t.same(checkTable(handles), [])
  table.setServiceRanges([], true)
  t.equal(maps.config.features(0), 0)
  t.same(checkTable(handles), [])
  const many = Array.from({ length: 33 }, (_, i): Prefix => ({ family: 4, address: `10.${i}.0.0`, length: 16 }))
  t.throws(() => table.setServiceRanges(many, true), { code: 'TABLE_FULL' })
  table.setServiceRanges(many.slice(1), true)
  t.equal(readServiceRanges(maps).prefixes.length, 32)
})

t.test(
  'nodes that tunnels come from are in the table, and packets pay for them only where there are some',
  async (t) => {
    const { table, maps, handles } = memoryTable()
    const own = [{ family: 4, address: '192.0.2.1' }] as const
    const others = [
      { family: 4, address: '192.0.2.2' },
      { family: 6, address: 'fd00::2' },
    ] as const
    table.setPeers({ own, others })
    t.same(
      handles.peers.map(({ key, kind }) => [Buffer.from(key).toString('hex'), kind]),
      [
        ['00000000000000000000ffffc0000202', LbPeer.PEER_OTHER],
        ['fd000000000000000000000000000002', LbPeer.PEER_OTHER],
        ['00000000000000000000ffffc0000201', LbPeer.PEER_OWN],
      ],
    )
    t.equal(maps.config.features(0), LbFeature.FEATURE_PEERS)
    t.same(checkTable(handles), [])
    const generation = table.generation()
    table.setPeers({ own, others })
    t.equal(table.generation(), generation, 'the same again is no edit')
    table.setPeers({ own: others, others: own })
    t.notSame(table.generation(), generation)
    table.setPeers({ own: [], others: [] })
    t.same([handles.peers, maps.config.features(0)], [[], 0])
    t.throws(() => table.setPeers({ own: [{ family: 4, address: 'fd00::1' }], others }), { code: 'INVALID' })
  },
)

t.test('what is as it was is no edit', async (t) => {
  const { table, handles } = memoryTable()
  table.setPods({ networks: [pods4], links: [3] })
  table.setServiceRanges([services4], true)
  const [generation, graces] = [table.generation(), handles.graces]
  table.setPods({ networks: [pods4], links: [3] })
  table.setServiceRanges([services4], true)
  t.same([table.generation(), handles.graces], [generation, graces])
})

t.test('ports of masqueraded connections are a setting', async (t) => {
  const { table, maps } = memoryTable()
  t.notOk(table.settings().masqueradePorts)
  table.changeSettings({ masqueradePorts: { first: 1024, last: 29999 } })
  t.same(table.settings().masqueradePorts, { first: 1024, last: 29999 })
  t.same([maps.config.masqueradeFirst(0), maps.config.masqueradeCount(0)], [1024, 28976])
  table.changeSettings({ bypass: 'never' })
  t.same(table.settings().masqueradePorts, { first: 1024, last: 29999 }, 'it stays')
})
