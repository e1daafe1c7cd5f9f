/** The rows of kube-proxy's matrix in other wirings of nodes and pods than the one that it was recorded in. */
import { existsSync } from 'node:fs'
import t from 'tap'
import { Director } from '../helpers/director.ts'
import { compareMatrix, expected, throughOverlay } from '../helpers/kube-expect.ts'
import { play, recordedRun } from '../helpers/kube-matrix.ts'
import { KubeNet } from '../helpers/kube-net.ts'
import { recordedWiring, type Wiring } from '../helpers/kube-wiring.ts'
import { guard, startBpvsd } from '../helpers/kube-scene.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

const root = { skip: needsRoot }
const base = recordedRun('nftables-base')
const rows = expected(base.rows)

const bridgeFilter = (value: 0 | 1): Readonly<Record<string, number>> =>
  Object.fromEntries(['iptables', 'ip6tables'].map((name) => [`net.bridge.bridge-nf-call-${name}`, value]))

const hasBridgeFilter = existsSync('/proc/sys/net/bridge/bridge-nf-call-iptables')
const needsBridgeFilter = needsRoot || (hasBridgeFilter ? false : 'the kernel has no br_netfilter')

t.test('pods on a bridge: every row is the same, also of a pod that calls itself', root, async (t) => {
  const sysctls = hasBridgeFilter ? bridgeFilter(0) : {}
  const net = await KubeNet.make(t, { wiring: { pods: 'bridge', other: 'routed', sysctls } })
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
  compareMatrix(t, await play(net, rows))
})

t.test('and with the bridge under the rules of netfilter', { skip: needsBridgeFilter }, async (t) => {
  const net = await KubeNet.make(t, { wiring: { pods: 'bridge', other: 'routed', sysctls: bridgeFilter(1) } })
  await guard(net)
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
  compareMatrix(t, await play(net, rows))
})

t.test('pods of the other node through a vxlan device that computes checksums itself', root, async (t) => {
  const net = await KubeNet.make(t, { wiring: { pods: 'routed', other: 'overlay' } })
  const features = await net.topology.must('director', 'ethtool', ['-k', 'vx0'])
  t.match(features, /^tx-checksumming: on$/m)
  await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
  compareMatrix(t, await play(net, throughOverlay(rows)))
})

const tunnels: readonly (readonly [string, Wiring])[] = [
  ['pods of the other node', { pods: 'routed', other: 'tunnel' }],
  ['clients outside', { pods: 'routed', other: 'routed', outside: 'tunnel' }],
  ['both', { pods: 'bridge', other: 'tunnel', outside: 'tunnel' }],
]
for (const [who, wiring] of tunnels) {
  t.test(`${who} through a tunnel whose packets have no Ethernet header`, root, async (t) => {
    const net = await KubeNet.make(t, { wiring })
    t.match(await net.topology.must('director', 'ip', ['link']), /link\/none/)
    await guard(net)
    await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
    compareMatrix(t, await play(net, wiring.other === 'tunnel' ? throughOverlay(rows) : rows))
  })
}

/** More than any device takes at once. */
const fragmented = 4000

const withFragments: readonly (readonly [string, Wiring, boolean])[] = [
  ['routes', recordedWiring, false],
  ['routes, and connection tracking, which puts them together', recordedWiring, true],
  ['tunnels without Ethernet headers', { pods: 'routed', other: 'tunnel', outside: 'tunnel' }, true],
]
for (const [name, wiring, tracked] of withFragments) {
  t.test(`datagrams in fragments pass both ways: ${name}`, root, async (t) => {
    const net = await KubeNet.make(t, { wiring })
    if (tracked) await guard(net)
    await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
    /* What the node sends to its own addresses is not cut on lo, and then too big for the way to the server. */
    const plain = rows.filter(
      (row) =>
        row.proto === 'udp' &&
        row.policy === 'plain' &&
        row.reached !== undefined &&
        !(row.caller === 'node' && row.address === 'nodePort'),
    )
    compareMatrix(t, await play(net, wiring.other === 'routed' ? plain : throughOverlay(plain), fragmented))
  })
}

/** More than any segment of any device, and than windows begin with. */
const bulk = 300_000

const wirings: readonly (readonly [string, Wiring])[] = [
  ['routes', recordedWiring],
  ['a bridge and a vxlan device', { pods: 'bridge', other: 'overlay' }],
  ['tunnels without Ethernet headers', { pods: 'routed', other: 'tunnel', outside: 'tunnel' }],
  ['ways that take less than both ends think', { ...recordedWiring, mtu: 1300 }],
]
for (const [name, wiring] of wirings) {
  t.test(`much data passes both ways, in segments of whatever size devices have them: ${name}`, root, async (t) => {
    const net = await KubeNet.make(t, { wiring })
    await startBpvsd(t, net, base.kubeProxyConfiguration, '--xdp=off')
    const plain = rows.filter((row) => row.proto === 'tcp' && row.policy === 'plain' && row.reached !== undefined)
    compareMatrix(t, await play(net, wiring.other === 'routed' ? plain : throughOverlay(plain), bulk))
    if (wiring.mtu === undefined) return
    const forwarded = new Director(net.topology).verdict('ICMP_FORWARD')
    t.ok(forwarded > 0, `${forwarded} errors told senders of the path MTU`)
  })
}
