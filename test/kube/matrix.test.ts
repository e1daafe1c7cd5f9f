/** kube-proxy's matrix: caller by address by policy by endpoints, with real traffic through bpvsd on a node. */
import t, { type Test } from 'tap'
import {
  expected,
  fromOtherNode,
  mismatches,
  mismatchTable,
  withAllNodePorts,
  withoutDetection,
} from '../helpers/kube-expect.ts'
import {
  flowText,
  matrixRecording,
  play,
  recordedRun,
  resultText,
  type Result,
  type Row,
} from '../helpers/kube-matrix.ts'
import { KubeNet } from '../helpers/kube-net.ts'
import { startBpvsd } from '../helpers/kube-scene.ts'
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'
import { gaps } from './matrix-gaps.ts'

t.setTimeout(290_000)

const root = { skip: needsRoot }
const tally = new Tally(matrixRecording)
const base = recordedRun('nftables-base')
const rows = expected(base.rows)

/** Counts what was played of a recorded run. */
function note(scenario: string, results: ReadonlyMap<Row, Result>): void {
  const played = new Map([...results].map(([row, result]) => [flowText(row), result]))
  for (const [step, row] of recordedRun(scenario).rows.entries()) {
    const result = played.get(flowText(row))
    if (result === undefined) continue
    const [ours, theirs] = [resultText(result), resultText(row)]
    tally.note(scenario, step, flowText(row), ours === theirs ? [] : [`${ours}, recorded ${theirs}`])
  }
}

/** Compares with what is expected, but for callers of addresses that the known gaps are in, and still have to be in. */
function compare(t: Test, name: string, results: ReadonlyMap<Row, Result>): void {
  const found = mismatches(results)
  for (const line of mismatchTable(found)) t.comment(line)
  const groups = new Set(found.map(({ row }) => `${row.caller} ${row.address}`))
  t.same([...groups].sort(), gaps[name] ?? [], `gaps in ${name}, of ${results.size} rows`)
}

t.test(
  'by packets: every row is as kube-proxy recorded it, and the other node calls as anybody outside',
  root,
  async (t) => {
    const net = await KubeNet.make(t)
    await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
    const results = await play(net, [...rows, ...fromOtherNode(rows)])
    note(base.name, results)
    compare(t, 'packets', results)
  },
)

t.test('with sockets of the node balanced as they call, every row is the same', root, async (t) => {
  const net = await KubeNet.make(t)
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off', '--socket=host')
  const results = await play(net, rows)
  note(base.name, results)
  compare(t, 'sockets', results)
})

t.test('with XDP too', root, async (t) => {
  const net = await KubeNet.make(t, { checksumOffload: false })
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=generic')
  const results = await play(net, rows)
  note(base.name, results)
  compare(t, 'xdp', results)
})

/** What a careful administrator has: nothing invalid, and nothing is forwarded but from and to pods. */
const guard = `table inet guard {
  chain input { type filter hook input priority 0; ct state invalid counter drop; }
  chain output { type filter hook output priority 0; ct state invalid counter drop; }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter drop
    ip saddr 10.128.0.0/9 accept
    ip daddr 10.128.0.0/9 accept
    ip6 saddr fd00:128::/31 accept
    ip6 daddr fd00:128::/31 accept
  }
}
`

t.test('with rules that drop what is invalid, and forward only from and to pods', root, async (t) => {
  const net = await KubeNet.make(t)
  await net.topology.must('director', 'nft', ['-f', '-'], { input: guard })
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
  const results = await play(net, rows)
  note(base.name, results)
  compare(t, 'rules', results)
})

t.test('masqueradeAll', root, async (t) => {
  const net = await KubeNet.make(t)
  const run = recordedRun('nftables-masqall')
  await startBpvsd(t, net, run.kubeProxyConfiguration, '--xdp=off')
  const results = await play(net, expected(run.rows))
  note(run.name, results)
  compare(t, 'masqueradeAll', results)
})

t.test('without anything that tells who is a pod', root, async (t) => {
  const net = await KubeNet.make(t)
  await startBpvsd(t, net, { ...base.kubeProxyConfiguration, clusterCIDR: '' }, '--xdp=off')
  compare(t, 'no detection', await play(net, withoutDetection(rows)))
})

t.test('node ports at all addresses', root, async (t) => {
  const net = await KubeNet.make(t)
  const nodePortAddresses = ['0.0.0.0/0', '::/0']
  await startBpvsd(t, net, { ...base.kubeProxyConfiguration, nodePortAddresses }, '--xdp=off')
  compare(t, 'all node ports', await play(net, withAllNodePorts(rows)))
})

t.test('mode ipvs: node ports at all addresses, and all else as in mode nftables', root, async (t) => {
  const net = await KubeNet.make(t)
  const run = recordedRun('ipvs-base')
  await startBpvsd(t, net, run.kubeProxyConfiguration, '--xdp=off')
  const everywhere = withAllNodePorts(rows)
  const others = rows.filter(({ address }) => address !== 'nodePort-other-address')
  const results = await play(net, [...everywhere, ...others])
  note(run.name, results)
  compare(t, 'mode ipvs', results)
})

t.test('every recorded row is ours, or another by intent', root, async (t) => {
  if (Object.keys(gaps).length === 0) tally.end(t)
  else tally.tell(t)
})
