/** Sockets and what is Kubernetes' own: node ports at loopback addresses, ports that nobody else may have, others' addresses. */
import t from 'tap'
import type { ServicePolicy } from '../../src/model/types.ts'
import { endpoint, real, service, virtual } from '../helpers/director.ts'
import { families, type FamilyName, SocketScene } from '../helpers/socket-scene.ts'
import { needsRoot, ports } from '../helpers/topology.ts'

t.setTimeout(900_000)

const root = { skip: needsRoot }
/** The node's address, its loopback address, and one that is nobody's. */
const at = {
  ipv4: { node: '10.244.1.1', loopback: '127.0.0.1', foreign: '203.0.113.9', any: '0.0.0.0' },
  ipv6: { node: 'fd00:244:1::1', loopback: '::1', foreign: '2001:db8::9', any: '::' },
} as const
const NODE_PORT = 31_000
const plain: ServicePolicy = {
  masquerade: { pods: false, node: false, others: false },
  whenEmpty: 'refuse',
  nodePort: false,
  foreign: false,
}

/** Programs services with policies, of all servers. */
function program(
  scene: SocketScene,
  wanted: readonly { address: string; port: number; policy: Partial<ServicePolicy> }[],
) {
  const desired = wanted.flatMap(({ address, port, policy }) =>
    (['tcp', 'udp'] as const).map((protocol) => ({
      service: { ...service(virtual(address, port, protocol)), policy: { ...plain, ...policy } },
      servers: scene.net.servers.map((server) => real(server[address.includes(':') ? 'ipv6' : 'ipv4'], ports.echo)),
    })),
  )
  const { node: ipv4 } = at.ipv4
  const { node: ipv6 } = at.ipv6
  scene.director.table((table) => {
    const { failed } = table.apply('kubernetes', desired)
    if (failed.length > 0) throw failed[0]?.error
    table.setNodePortAddresses({ ipv4, ipv6 })
  })
}

const nodePorts = families.map((family) => ({ address: at[family].node, port: NODE_PORT, policy: { nodePort: true } }))

t.test('node ports are served at loopback addresses too, to processes of the host alone', root, async (t) => {
  const scene = await SocketScene.start(t, { scope: 'all' })
  program(scene, [...nodePorts, ...families.map((family) => ({ address: at[family].node, port: 80, policy: {} }))])
  const calls = async (family: FamilyName, address: string) => {
    const { id, name } = await scene.called(address, NODE_PORT)
    t.match(name, /^server\d$/, `${address}: reached`)
    t.equal((await scene.user.look(id)).remote, endpoint({ address, port: NODE_PORT }), 'the peer is who was called')
    const { id: socket } = await scene.user.datagrams(family === 'ipv4' ? 4 : 6)
    const answer = await scene.asked(socket, address, NODE_PORT)
    t.match(answer, { name: /^server\d$/, from: endpoint({ address, port: NODE_PORT }) }, `${address}: a datagram`)
  }
  const pod = await scene.another('client0')
  for (const family of families) {
    const { node, loopback } = at[family]
    await calls(family, node)
    await calls(family, loopback)
    t.equal((await scene.called(loopback, 80)).name, 'ECONNREFUSED', 'what is no node port is not')
    t.equal((await scene.called(loopback, NODE_PORT, pod)).name, 'ECONNREFUSED', "a pod's loopback address is its own")
  }
  await calls('ipv4', '127.9.9.9')
})

t.test('nobody on the host binds to a node port', root, async (t) => {
  const scene = await SocketScene.start(t, { scope: 'all' })
  program(scene, nodePorts)
  const pod = await scene.another('client0')
  for (const family of families) {
    const { any, loopback } = at[family]
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const address of [any, loopback]) {
        t.equal(await scene.user.bind(protocol, address, NODE_PORT), 'EADDRINUSE', `${protocol} ${address}`)
        t.equal(await scene.user.bind(protocol, address, NODE_PORT + 1), undefined, 'another port is free')
        t.equal(await pod.bind(protocol, address, NODE_PORT), undefined, 'and it is free in a pod')
      }
      t.equal(await scene.user.bind(protocol, any, 0), undefined, 'any port will do')
    }
  }
  scene.director.table((table) => table.apply('kubernetes', []))
  for (const { any } of Object.values(at)) t.equal(await scene.user.bind('tcp', any, NODE_PORT), undefined, 'gone')
})

t.test("an address that need not be anybody's here is not taken from whoever has it", root, async (t) => {
  const scene = await SocketScene.start(t)
  program(
    scene,
    families.flatMap((family) => [
      { address: at[family].foreign, port: 80, policy: { foreign: true } },
      { address: at[family].foreign, port: 81, policy: {} },
    ]),
  )
  for (const family of families) {
    const { foreign } = at[family]
    t.equal(
      (await scene.called(foreign, 80)).name,
      'ENETUNREACH',
      `${foreign}: the host has no way there, and none is made`,
    )
    t.match((await scene.called(foreign, 81)).name, /^server\d$/, `${foreign}: as a service's own address`)
  }
})
