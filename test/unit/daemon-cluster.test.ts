import t from 'tap'
import { ClusterKeeper, type ClusterOptions } from '../../src/daemon/cluster.ts'
import type { IpAddress } from '../../src/kube/address.ts'
import { knowsPods, podLinks, podNetworks } from '../../src/kube/local-detection.ts'
import type { KubeNode } from '../../src/kube/objects.ts'
import { SeenRanges } from '../../src/kube/service-ranges.ts'
import type { KubeVirtualService, Role } from '../../src/kube/virtual-services.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Family, Prefix } from '../../src/model/types.ts'
import { Scene, web } from '../helpers/daemon-scene.ts'
import { FakeHost, FakeLog } from '../helpers/fake-host.ts'
import { policyOf } from '../helpers/table-specs.ts'

function virtual(address: string, role: Role = 'clusterIP', port = 80): KubeVirtualService {
  const family: Family = address.includes(':') ? 6 : 4
  const policy = policyOf({ nodePort: role === 'nodePort' })
  const key = { kind: 'address', family, protocol: 'tcp', address, port } as const
  return { service: { key, scheduler: 'rr', schedulerFlags: [], onePacket: false, policy }, servers: [], role }
}

const text = ({ address, length }: Prefix): string => `${address}/${length}`

/** A keeper of a table, and what it was told last. */
class Surroundings {
  readonly host = new FakeHost()
  readonly log = new FakeLog()
  readonly keeper: ClusterKeeper

  constructor(options: Partial<ClusterOptions> = {}) {
    const { host, log } = this
    this.keeper = new ClusterKeeper({ host, log, pods: { by: 'cluster', cidrs: [] }, ...options })
  }

  open(): void {
    this.keeper.setTable(this.host.table)
  }

  get ranges(): string {
    const last = this.host.table.serviceRanges.at(-1)
    return `${last?.prefixes.map(text).join()} ${last?.known}`
  }

  get ports(): unknown {
    return this.host.table.current.masqueradePorts
  }
}

t.test('pods are known by networks, by a bridge and its ports, or by names of interfaces', async (t) => {
  const interfaces = [
    { ifindex: 1, name: 'lo', master: 0 },
    { ifindex: 2, name: 'eth0', master: 0 },
    { ifindex: 3, name: 'cni0', master: 0 },
    { ifindex: 4, name: 'veth1', master: 3 },
    { ifindex: 5, name: 'veth2', master: 0 },
    { ifindex: 6, name: 'veth3', master: 3 },
  ]
  t.same(podLinks({ by: 'bridge', name: 'cni0' }, interfaces), [3, 4, 6])
  t.same(podLinks({ by: 'bridge', name: 'br9' }, interfaces), [], 'it may come yet')
  t.same(podLinks({ by: 'interfaces', prefix: 'veth' }, interfaces), [4, 5, 6])
  t.equal(podLinks({ by: 'node' }, interfaces), undefined)
  const cidrs = ['fd00:1::/56', '10.1.0.0/16', '10.2.0.0/16', 'fd00:2::/56']
  t.same(
    podNetworks({ by: 'cluster', cidrs }, undefined).map(text),
    ['10.1.0.0/16', 'fd00:1::/56'],
    'the first of each',
  )
  const node: KubeNode = { name: 'n', addresses: [], podCidrs: ['10.1.7.0/24'], eligible: true }
  t.same(podNetworks({ by: 'node' }, node).map(text), ['10.1.7.0/24'])
  t.same(podNetworks({ by: 'node' }, undefined), [])
  t.same(podNetworks({ by: 'bridge', name: 'cni0' }, node), [])
  t.same(knowsPods({ by: 'node' }, node), { 4: true, 6: false })
  t.same(knowsPods({ by: 'cluster', cidrs: [] }, node), { 4: false, 6: false })
  t.same(knowsPods({ by: 'bridge', name: 'cni0' }, undefined), { 4: true, 6: true })
})

t.test('interfaces of pods are followed as they come and go', async (t) => {
  const { host, keeper } = new Surroundings({ pods: { by: 'interfaces', prefix: 'veth' } })
  const last = () => host.table.pods.at(-1)
  keeper.setTable(host.table)
  t.same(last(), { networks: [], links: [] })
  host.links = [{ ifindex: 7, name: 'veth7', master: 0 }]
  keeper.look()
  t.same(last(), { networks: [], links: [7] })
  const others = new Surroundings()
  others.open()
  others.keeper.look()
  t.same(others.host.table.pods, [{ networks: [] }], 'where networks tell, interfaces do not matter')
})

t.test('tunnels are taken from all nodes but our own, and where no other is known from none', async (t) => {
  const { host, keeper } = new Surroundings()
  const told = () => host.table.peers
  keeper.setTable(host.table)
  const own: IpAddress = { family: 4, address: '192.0.2.1' }
  const other: IpAddress = { family: 6, address: 'fd00::2' }
  const node: KubeNode = { name: 'n', addresses: [own], podCidrs: [], eligible: true }
  keeper.setNodes(node, { m: [other], n: [own] })
  keeper.setNodes({ ...node, eligible: false }, { m: [other], n: [own] })
  t.same(told(), [
    { own: [], others: [] },
    { own: [own], others: [other] },
  ])
  keeper.setNodes(node, { n: [own] })
  t.same(told().at(-1), { own: [], others: [] })
  keeper.setNodes(undefined, { m: [other] })
  keeper.setNodes(undefined, undefined)
  t.same(told().slice(-2), [
    { own: [], others: [other] },
    { own: [], others: [] },
  ])
})

t.test('without ServiceCIDRs the range is the smallest that holds all cluster IPs', async (t) => {
  const seen = new SeenRanges()
  const steps: readonly (readonly [string, Role, string])[] = [
    ['10.96.0.1', 'clusterIP', '10.96.0.1/32'],
    ['10.96.0.10', 'clusterIP', '10.96.0.0/28'],
    ['10.96.0.3', 'clusterIP', '10.96.0.0/28'],
    ['203.0.113.1', 'loadBalancerIP', '10.96.0.0/28'],
    ['10.111.255.255', 'clusterIP', '10.96.0.0/12'],
    ['fd00:96::1', 'clusterIP', '10.96.0.0/12,fd00:96::1/128'],
    ['fd00:96::2', 'clusterIP', '10.96.0.0/12,fd00:96::/126'],
    ['192.0.2.1', 'clusterIP', '0.0.0.0/0,fd00:96::/126'],
  ]
  for (const [address, role, expect] of steps) {
    const before = seen.prefixes
    const changed = seen.note([virtual(address, role)])
    t.equal(seen.prefixes.map(text).join(), expect, address)
    t.equal(changed, before.map(text).join() !== expect)
  }
})

t.test("ServiceCIDRs go before what was seen, and what they leave is nobody's", async (t) => {
  const scene = new Surroundings()
  scene.open()
  scene.keeper.note([virtual('10.96.0.1'), virtual('10.96.0.2')])
  t.equal(scene.ranges, '10.96.0.0/30 false')
  const told = scene.host.table.serviceRanges.length
  scene.keeper.note([virtual('10.96.0.3')])
  t.equal(scene.host.table.serviceRanges.length, told, 'nothing new, nothing told')
  scene.keeper.setServiceCidrs([{ family: 4, address: '10.96.0.0', length: 16 }])
  t.equal(scene.ranges, '10.96.0.0/16 true')
  scene.keeper.note([virtual('10.96.1.1')])
  t.equal(scene.ranges, '10.96.0.0/16 true')
  scene.keeper.setServiceCidrs(undefined)
  t.equal(scene.ranges, '10.96.0.0/23 false')
})

t.test('ports of masqueraded connections stay as they are as long as nobody else uses one', async (t) => {
  const scene = new Surroundings()
  scene.open()
  t.same(scene.ports, { first: 1024, last: 29999 })
  t.same(scene.host.table.changes, [])
  scene.keeper.note([virtual('192.0.2.1', 'nodePort', 30080), virtual('192.0.2.1', 'clusterIP', 20000)])
  t.same(scene.ports, { first: 1024, last: 29999 }, 'a node port where they usually are, and a port that is none')
  scene.keeper.note([virtual('192.0.2.1', 'nodePort', 20000)])
  t.same(scene.ports, { first: 1024, last: 19999 })
  scene.host.ports = [{ what: 'net.ipv4.ip_local_reserved_ports', first: 1500, last: 1600 }]
  scene.open()
  t.same(scene.ports, { first: 32768, last: 65535 })
})

t.test("ports that are configured hold, unless they are somebody else's from the start", async (t) => {
  const masqueradePorts = { first: 20000, last: 25000 }
  const scene = new Surroundings({ masqueradePorts })
  scene.keeper.checkPorts()
  scene.open()
  t.same(scene.ports, masqueradePorts)
  scene.keeper.note([virtual('192.0.2.1', 'nodePort', 20001)])
  t.same(scene.ports, masqueradePorts)
  t.match(scene.log.of('a node port is among masqueradePorts'), [{ port: 20001 }])
  t.throws(() => new Surroundings({ masqueradePorts: { first: 25000, last: 33000 } }).keeper.checkPorts(), {
    code: 'INVALID',
    message: 'ports 25000-33000 meet net.ipv4.ip_local_port_range, 32768-60999',
  })
})

t.test('where no port is left that is said', async (t) => {
  const scene = new Surroundings()
  scene.host.ports = [{ what: 'net.ipv4.ip_local_port_range', first: 1024, last: 65535 }]
  scene.host.unreservable = new LbError('NATIVE', 'read-only')
  scene.open()
  t.match(scene.log.of('no ports to masquerade with'), [
    { taken: [/^net.ipv4.ip_local_port_range 1024-65535/, /node/] },
  ])
})

t.test('bpvsd tells its table of pods, ranges and ports, and a table that is made anew too', async (t) => {
  const scene = new Scene(['--masquerade-ports', '5000-6000'])
  scene.first = Scene.stateOf(web(1), web(2))
  scene.daemon.start()
  const told = () => {
    const { pods, serviceRanges, current } = scene.table
    return [pods.length > 0, serviceRanges.at(-1)?.prefixes.map(text).join(), current.masqueradePorts]
  }
  const expected = [true, '10.96.0.0/30', { first: 5000, last: 6000 }]
  t.same(told(), expected)
  scene.host.current = false
  scene.timers.pass(1000)
  t.same(told(), expected)
  const refused = new Scene(['--masquerade-ports', '30000-31000'])
  t.throws(() => refused.daemon.start(), /meet the usual range of Kubernetes' node ports, 30000-32767/)
  t.equal(refused.host.opened, 0)
})

t.test('where the kernel gives out nearly all ports, it is asked to keep some', async (t) => {
  const all = { what: 'net.ipv4.ip_local_port_range', first: 1025, last: 65535 }
  const scene = new Surroundings()
  scene.host.ports = [all]
  scene.open()
  t.same(scene.ports, { first: 57344, last: 65535 })
  t.match(scene.host.ports, [all, { first: 57344, last: 65535 }])
  scene.open()
  t.same(scene.ports, { first: 57344, last: 65535 }, 'they stay, and no more are asked for')
  t.equal(scene.host.ports.length, 2)

  const refused = new Surroundings()
  refused.host.ports = [all]
  refused.host.unreservable = new LbError('NATIVE', 'read-only')
  refused.open()
  t.same(refused.ports, { first: 1024, last: 1024 }, 'else what is left has to do')
  t.match(refused.log.of('no ports could be reserved to masquerade with'), [{ ports: '57344-65535' }])
})
