/** kube-proxy's matrix: caller by address by policy by endpoints, with real traffic through bpvsd on a node. */
import t from 'tap'
import {
  compareMatrix,
  expected,
  fromOtherNode,
  withAllNodePorts,
  withLoopbackNodePorts,
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
import { guard, startBpvsd } from '../helpers/kube-scene.ts'
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

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

t.test(
  'by packets: every row is as kube-proxy recorded it, and the other node calls as anybody outside',
  root,
  async (t) => {
    const net = await KubeNet.make(t)
    await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
    const results = await play(net, [...rows, ...fromOtherNode(rows)])
    note(base.name, results)
    compareMatrix(t, results)
  },
)

t.test('with sockets of the node balanced as they call, only node ports at loopback differ', root, async (t) => {
  const net = await KubeNet.make(t)
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off', '--socket=host')
  const results = await play(net, withLoopbackNodePorts(rows))
  note(base.name, results)
  compareMatrix(t, results)
})

t.test('with XDP too', root, async (t) => {
  const net = await KubeNet.make(t, { checksumOffload: false })
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=generic')
  const results = await play(net, rows)
  note(base.name, results)
  compareMatrix(t, results)
})

t.test('with rules that drop what is invalid, and forward only from and to pods', root, async (t) => {
  const net = await KubeNet.make(t)
  await guard(net)
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
  const results = await play(net, rows)
  note(base.name, results)
  compareMatrix(t, results)
})

t.test('masqueradeAll', root, async (t) => {
  const net = await KubeNet.make(t)
  const run = recordedRun('nftables-masqall')
  await startBpvsd(t, net, run.kubeProxyConfiguration, '--xdp=off')
  const results = await play(net, expected(run.rows))
  note(run.name, results)
  compareMatrix(t, results)
})

t.test('without anything that tells who is a pod', root, async (t) => {
  const net = await KubeNet.make(t)
  await startBpvsd(t, net, { ...base.kubeProxyConfiguration, clusterCIDR: '' }, '--xdp=off')
  compareMatrix(t, await play(net, withoutDetection(rows)))
})

t.test('node ports at all addresses', root, async (t) => {
  const net = await KubeNet.make(t)
  const nodePortAddresses = ['0.0.0.0/0', '::/0']
  await startBpvsd(t, net, { ...base.kubeProxyConfiguration, nodePortAddresses }, '--xdp=off')
  compareMatrix(t, await play(net, withAllNodePorts(rows)))
})

t.test('mode ipvs: node ports at all addresses, and all else as in mode nftables', root, async (t) => {
  const net = await KubeNet.make(t)
  const run = recordedRun('ipvs-base')
  await startBpvsd(t, net, run.kubeProxyConfiguration, '--xdp=off')
  const everywhere = withAllNodePorts(rows)
  const others = rows.filter(({ address }) => address !== 'nodePort-other-address')
  const results = await play(net, [...everywhere, ...others])
  note(run.name, results)
  compareMatrix(t, results)
})

t.test('every recorded row is ours, or another by intent', root, async (t) => {
  tally.end(t)
})
