/**
 * Two nodes on one network with a client. The addresses of services lead to the first node, which sends clients on to the node
 * of an endpoint: that answers them itself.
 *
 *                      [ client: br0 192.0.2.9 ]
 *                        |                    |
 *        192.0.2.1 [ director ]           [ second ] 192.0.2.2
 *       10.244.1.1     |                      |     10.244.2.1
 *        10.244.1.10 [ pod1 ]             [ pod2 ] 10.244.2.10
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Host } from '../../src/lab/host.ts'
import type { Mirrored, Outcome, Probe } from '../../src/lab/host-api.ts'
import { sweepRuns } from '../../src/lab/namespaces.ts'
import { Topology } from '../../src/lab/topology.ts'
import { TestApiServer } from '../helpers/api-server.ts'
import { Daemon } from '../helpers/daemon.ts'
import { Director, total, virtual } from '../helpers/director.ts'
import { build, ipv4, udp } from '../helpers/packet.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(290_000)

const roles = ['client', 'director', 'second', 'pod1', 'pod2'] as const
type Role = (typeof roles)[number]
const methods = ['dsr-ipip', 'dsr-gue'] as const
const protocols = ['tcp', 'udp'] as const
const clients = { 4: '192.0.2.9', 6: 'fd00:192::9' } as const
const families = [4, 6] as const
const nodes = { director: 1, second: 2 } as const

/** Where a service is: one for each method and each node that its only endpoint is on. */
const vip = (family: 4 | 6, method: (typeof methods)[number], node: 1 | 2): string =>
  `${family === 4 ? '203.0.113.' : 'fd00:203::'}${methods.indexOf(method) * 2 + node}`

function topology(): Topology {
  const end = (namespace: Role, name: string, ...addresses: readonly string[]) => ({
    namespace,
    interface: name,
    addresses,
  })
  const port = (name: string) => ({ namespace: 'client', interface: name, bridge: 'br0' })
  const podOf = (number: 1 | 2, node: 'director' | 'second') =>
    [
      end(`pod${number}`, 'eth0', `10.244.${number}.10/24`, `fd00:244:${number}::10/64`),
      end(node, 'pods', `10.244.${number}.1/24`, `fd00:244:${number}::1/64`),
    ] as const
  const pod = (number: 1 | 2) => ({
    name: `pod${number}`,
    lines: [`route add default via 10.244.${number}.1`, `route add default via fd00:244:${number}::1`],
  })
  const node = (name: 'director' | 'second', other: 1 | 2) => ({
    name,
    forwarding: true,
    lines: [
      `route add 10.244.${other}.0/24 via 192.0.2.${other}`,
      `route add fd00:244:${other}::/64 via fd00:192::${other}`,
    ],
  })
  const client = {
    name: 'client',
    bridges: ['br0'],
    lines: [
      `addr add ${clients[4]}/24 dev br0`,
      `addr add ${clients[6]}/64 dev br0 nodad`,
      'route add 203.0.113.0/24 via 192.0.2.1',
      'route add fd00:203::/64 via fd00:192::1',
    ],
  }
  return new Topology({
    namespaces: [client, node('director', 2), node('second', 1), pod(1), pod(2)],
    links: [
      [port('to1'), end('director', 'eth0', '192.0.2.1/24', 'fd00:192::1/64')],
      [port('to2'), end('second', 'eth0', '192.0.2.2/24', 'fd00:192::2/64')],
      podOf(1, 'director'),
      podOf(2, 'second'),
    ],
  })
}

/** Of the same services, at each node. */
const nodePort = (method: (typeof methods)[number], node: 1 | 2): number => 30_080 + methods.indexOf(method) * 2 + node
const firstNode = { 4: '192.0.2.1', 6: 'fd00:192::1' } as const

/** Nodes, Services and EndpointSlices. */
function fill(server: TestApiServer): void {
  for (const [name, number] of Object.entries(nodes)) {
    const addresses = [`192.0.2.${number}`, `fd00:192::${number}`].map((address) => ({ type: 'InternalIP', address }))
    server.set('Node', { metadata: { name }, status: { addresses } })
  }
  for (const [i, method] of methods.entries()) {
    for (const [nodeName, number] of Object.entries(nodes)) {
      const name = `${method}-${number}`
      const ports = protocols.map((name) => ({
        name,
        protocol: name.toUpperCase(),
        port: 80,
        targetPort: 8080,
        nodePort: nodePort(method, number),
      }))
      const at = i * 2 + number
      server.set('Service', {
        metadata: { name, namespace: 'default', annotations: { 'bpvs.io/forwarding-method': method } },
        spec: {
          type: 'NodePort',
          clusterIPs: [`10.96.0.${at}`, `fd00:96::${at}`],
          externalIPs: families.map((family) => vip(family, method, number)),
          ports,
        },
      })
      for (const family of families) {
        const address = family === 4 ? `10.244.${number}.10` : `fd00:244:${number}::10`
        server.set('EndpointSlice', {
          metadata: {
            name: `${name}-${family}`,
            namespace: 'default',
            labels: { 'kubernetes.io/service-name': name },
          },
          addressType: `IPv${family}`,
          ports: ports.map(({ name, protocol }) => ({ name, protocol, port: 8080 })),
          endpoints: [{ addresses: [address], nodeName }],
        })
      }
    }
  }
}

interface Scene {
  readonly net: Topology
  readonly hosts: ReadonlyMap<string, Host>
  readonly directors: Readonly<Record<keyof typeof nodes, Director>>
}

/** bpvsd on a node, with all objects. */
async function startNode(t: Test, net: Topology, role: keyof typeof nodes): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-dsr-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const server = await TestApiServer.start(t, (open) => net.within(role, open))
  fill(server)
  const kubeconfig = join(directory, 'kubeconfig')
  const access = {
    clusters: [{ name: 'test', cluster: { server: server.url } }],
    users: [{ name: 'me', user: { token: 'secret' } }],
    contexts: [{ name: 'here', context: { cluster: 'test', user: 'me' } }],
    'current-context': 'here',
  }
  writeFileSync(kubeconfig, JSON.stringify(access))
  const config = join(directory, 'config.json')
  const configuration = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    hostnameOverride: role,
    clusterCIDR: '10.244.0.0/16,fd00:244::/32',
    conntrack: { maxPerCore: 0, min: 0 },
    clientConnection: { kubeconfig },
  }
  writeFileSync(config, JSON.stringify(configuration))
  const small = ['--max-servers', '4096', '--max-services', '4096', '--max-connections', '32768']
  const spawn: Topology['spawn'] = (_role, ...command) => net.spawn(role, ...command)
  const daemon = new Daemon({ spawn }, ['--config', config], ...small, '--xdp=off')
  await daemon.logged('ready')
}

async function makeScene(t: Test): Promise<Scene> {
  const net = topology()
  const hosts = new Map<string, Host>()
  t.teardown(async () => {
    await Promise.all([...hosts.values()].map((host) => host.close()))
    await net.close()
  })
  await sweepRuns()
  await net.create()
  await Promise.all(roles.map(async (role) => hosts.set(role, await Host.start(role, net.pathOf(role)))))
  for (const number of [1, 2]) {
    for (const address of [`10.244.${number}.10`, `fd00:244:${number}::10`])
      await hosts.get(`pod${number}`)?.call('serveMirror', { name: `pod${number}`, address, port: 8080 })
  }
  await startNode(t, net, 'director')
  await startNode(t, net, 'second')
  return { net, hosts, directors: { director: new Director(net), second: new Director(net, 'second') } }
}

async function ask({ hosts }: Scene, role: Role, probe: Omit<Probe, 'timeoutMs'>): Promise<Outcome<Mirrored>> {
  const [outcome] = (await hosts.get(role)?.call('probe', [{ timeoutMs: 5_000, ...probe }], 1)) ?? []
  if (outcome === undefined) throw new Error(`no host ${role}`)
  return outcome
}

t.test('two nodes', { skip: needsRoot }, async (t) => {
  const scene = await makeScene(t)
  const { director, second } = scene.directors
  const counted = (node: Director, address: string, protocol: 'tcp' | 'udp') =>
    total(node.service(virtual(address, 80, protocol)).servers.map(({ counters }) => counters))

  for (const method of methods) {
    for (const family of families) {
      for (const protocol of protocols) {
        const name = `${method}, ${protocol} over IPv${family}`
        await t.test(`${name}: the other node answers the client, whose address its endpoint sees`, async (t) => {
          const address = vip(family, method, 2)
          const outcome = await ask(scene, 'client', { address, port: 80, protocol })
          t.same(outcome, { value: { server: 'pod2', client: clients[family] } })
          const counts = () => [counted(director, address, protocol), counted(second, address, protocol)] as const
          await waitFor('both nodes to have seen the same', () => counts()[0].inPkts === counts()[1].inPkts, 10_000)
          const [first, other] = counts()
          t.same([first.conns, other.conns], [1n, 1n])
          t.ok(first.inPkts > 0n)
          t.equal(first.outPkts, 0n, 'no answer passed the first node')
          t.ok(other.outPkts > 0n)
        })

        await t.test(`${name}: so it does for a node port of the first`, async (t) => {
          const target = { address: firstNode[family], port: nodePort(method, 2), protocol }
          t.same(await ask(scene, 'client', target), { value: { server: 'pod2', client: clients[family] } })
          const { servers } = director.service(virtual(target.address, target.port, protocol))
          await waitFor('the request to be counted', () => total(servers.map(({ counters }) => counters)).inPkts > 0n)
          t.equal(total(servers.map(({ counters }) => counters)).outPkts, 0n, 'no answer passed the first node')
        })

        await t.test(`${name}: an endpoint of the first node sees the client too`, async (t) => {
          const outcome = await ask(scene, 'client', { address: vip(family, method, 1), port: 80, protocol })
          t.same(outcome, { value: { server: 'pod1', client: clients[family] } })
        })
      }

      await t.test(`${method} over IPv${family}: a million bytes each way`, async (t) => {
        const address = vip(family, method, 2)
        const outcome = await ask(scene, 'client', { address, port: 80, protocol: 'tcp', bytes: 1_000_000 })
        t.same(outcome, { value: { server: 'pod2', client: clients[family] } })
      })

      await t.test(`${method} over IPv${family}: a datagram in fragments each way`, async (t) => {
        const address = vip(family, method, 2)
        const outcome = await ask(scene, 'client', { address, port: 80, protocol: 'udp', bytes: 4000 })
        t.same(outcome, { value: { server: 'pod2', client: clients[family] } })
      })

      await t.test(`${method} over IPv${family}: pods and nodes are served by NAT, as ever`, async (t) => {
        const target = { address: vip(family, method, 2), port: 80, protocol: 'tcp' } as const
        const byPod = await ask(scene, 'pod1', target)
        t.match(byPod, { value: { server: 'pod2' } })
        const { insiders = [] } = director.service(virtual(target.address, 80))
        t.equal(total(insiders.map(({ counters }) => counters)).conns, 1n)
      })
    }
  }

  await t.test('whoever is no node cannot send in a tunnel', async (t) => {
    const before = second.verdict('DROP_PEER')
    const address = vip(4, 'dsr-gue', 2)
    const spoofed = build(ipv4({ from: '198.51.100.1', to: address }), udp({ sport: 7, dport: 80 }), new Uint8Array(4))
    const gue = Buffer.concat([Uint8Array.of(0, 4, 0, 0), spoofed]).toString('hex')
    const send = `require('dgram').createSocket('udp4').send(Buffer.from('${gue}', 'hex'), 6080, '192.0.2.2', process.exit)`
    await scene.net.must('client', process.execPath, ['-e', send])
    await waitFor('the verdict', () => second.verdict('DROP_PEER') === before + 1, 10_000)
    t.pass('dropped')
  })

  t.same(director.check(), [])
  t.same(second.check(), [])
})
