/** Processes that call services over UDP, from sockets that are connected and from sockets that send to whom they like. */
import { release } from 'node:os'
import t from 'tap'
import { endpoint, virtual } from '../helpers/director.ts'
import { endStuckSockets } from '../../src/native/stuck-sockets.ts'
import { families, SocketScene, vips } from '../helpers/socket-scene.ts'
import { needsRoot, ports, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const root = { skip: needsRoot }
const service = { ipv4: virtual(vips.ipv4, 53, 'udp'), ipv6: virtual(vips.ipv6, 53, 'udp') } as const
const idle = ['0 0', '0 0', '0 0']
/** Since Linux 6.5 the kernel ends a socket for a program. */
const [major = 0, minor = 0] = release().split('.').map(Number)
const endsSockets = major > 6 || (major === 6 && minor >= 5)

t.test('a connected socket has one server, whose answers come from the service', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { user } = scene
  for (const family of families) {
    const key = service[family]
    const vip = endpoint({ address: vips[family], port: 53 })
    scene.serve(key, scene.servers(family))
    const { id } = await user.datagrams(family === 'ipv4' ? 4 : 6)
    t.equal((await user.connect(id, vips[family], 53)).remote, vip, 'getpeername() names the service')
    const first = await scene.asked(id)
    t.match(first, { name: /^server\d$/, from: vip })
    t.same(await scene.asked(id), first)
    t.equal(scene.loads(key, family).filter((load) => load === '1 0').length, 1, 'active as long as it is open')
    t.match(await scene.connections(), [/^UDP 05:00 UDP /])
    await user.connect(id, vips[family], 53)
    const second = await scene.asked(id)
    t.not(second.name, first.name, 'connected once more: the next server')
    t.equal((await scene.connections()).length, 1, 'the first connection is over')
    await user.close(id)
    t.same(scene.loads(key, family), idle)
  }
  t.same(scene.director.check(), [])
})

t.test('one socket sends to many services, and each answers under its own address', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { user } = scene
  for (const family of families) {
    const keys = Array.from({ length: 10 }, (_, i) => virtual(vips[family], 1000 + i, 'udp'))
    for (const key of keys) scene.serve(key, scene.servers(family))
    const { id } = await user.datagrams(family === 'ipv4' ? 4 : 6)
    for (let round = 0; round < 2; round++) {
      for (let port = 1000; port < 1008; port++) {
        const { from } = await scene.asked(id, vips[family], port)
        t.equal(from, endpoint({ address: vips[family], port }))
      }
    }
    t.equal((await scene.connections()).length, 8, 'each service has one connection')
    const [server] = scene.net.servers
    const direct = { address: server?.[family] ?? '', port: ports.echo }
    const known = new Set<string>()
    for (const key of keys.slice(0, 8)) {
      const view = scene.director.service(key).servers.find(({ active }) => active === 1)
      known.add(view?.address ?? '')
    }
    t.notOk(known.has(''), 'which a server of its own service has')
    for (const port of [1008, 1009]) t.match(await scene.asked(id, vips[family], port), { name: /^server\d$/ })
    t.equal((await scene.connections()).length, 8, 'the services longest not sent to give way')
    await user.close(id)
    t.same(await scene.connections(), [])
    const { id: other } = await user.datagrams(family === 'ipv4' ? 4 : 6)
    t.same(await scene.asked(other, direct.address, direct.port), { name: 'server0', from: endpoint(direct) })
    await user.close(other)
  }
  t.same(scene.director.check(), [])
})

t.test('an IPv6 socket sends to IPv4 services by their mapped addresses', root, async (t) => {
  const scene = await SocketScene.start(t)
  const mapped = `::ffff:${vips.ipv4}`
  scene.serve(service.ipv4, scene.servers('ipv4'))
  const { id } = await scene.user.datagrams(6)
  t.match(await scene.asked(id, mapped, 53), { name: /^server\d$/, from: `[${mapped}]:53` })
  t.equal((await scene.user.connect(id, mapped, 53)).remote, `[${mapped}]:53`)
  t.match(await scene.asked(id), { name: /^server\d$/, from: `[${mapped}]:53` })
})

t.test('a server that is gone or quiesced is left with the next datagram', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director, user } = scene
  for (const family of families) {
    const key = service[family]
    const specs = scene.servers(family)
    scene.serve(key, specs)
    const { id } = await user.datagrams(family === 'ipv4' ? 4 : 6)
    const specOf = (name: string) => {
      const spec = specs[scene.net.servers.findIndex((each) => each.name === name)]
      if (spec === undefined) throw new Error(`no ${name}`)
      return spec
    }
    const { name } = await scene.asked(id, vips[family], 53)
    t.equal((await scene.asked(id, vips[family], 53)).name, name, 'it stays with its server')
    director.table((table) => table.editServer(key, { ...specOf(name), weight: 0 }))
    const second = await scene.asked(id, vips[family], 53)
    t.not(second.name, name, 'quiesced')
    director.table((table) => table.deleteServer(key, specOf(second.name)))
    const third = await scene.asked(id, vips[family], 53)
    t.not(third.name, second.name, 'gone')
    t.equal((await scene.connections()).length, 1)
    director.table((table) => table.deleteServer(key, specOf(third.name)))
    t.equal((await scene.asked(id, vips[family], 53)).name, 'ECONNREFUSED', 'none left')
    t.same(await scene.connections(), [])
    await user.close(id)
  }
  t.same(director.check(), [])
})

t.test('without a usable server connect() fails at once, refused, over UDP too', root, async (t) => {
  const scene = await SocketScene.start(t)
  for (const family of families) {
    scene.serve(service[family], [])
    const { id } = await scene.user.datagrams(family === 'ipv4' ? 4 : 6)
    t.equal((await scene.user.connect(id, vips[family], 53)).error, 'ECONNREFUSED')
  }
})

t.test('UDP is left to packets where only TCP is wanted', root, async (t) => {
  const scene = await SocketScene.start(t, { protocols: 'tcp' })
  scene.serve(service.ipv4, scene.servers('ipv4'))
  scene.serve(virtual(vips.ipv4, 80), scene.servers('ipv4'))
  const { id } = await scene.user.datagrams(4)
  await scene.user.send(id, 'x', vips.ipv4, 53)
  t.same(scene.loads(service.ipv4, 'ipv4'), idle)
  t.match((await scene.called(vips.ipv4, 80)).name, /^server\d$/)
})

t.test('sockets that are connected to a server that is gone are ended, others forget it', root, async (t) => {
  const scene = await SocketScene.start(t, { scope: 'all' })
  const { director, user } = scene
  const elsewhere = await scene.another('client0')
  const end = (everywhere: boolean, known = 0) => director.within(() => endStuckSockets(everywhere, known))
  for (const family of families) {
    const tcp = virtual(vips[family], 80)
    const number = family === 'ipv4' ? 4 : 6
    const [first, second] = scene.servers(family)
    if (first === undefined || second === undefined) throw new Error('no servers')
    for (const key of [tcp, service[family]]) scene.serve(key, [first])
    const stream = await user.stream(vips[family], 80)
    const far = await elsewhere.stream(vips[family], 80)
    const connected = await user.datagrams(number)
    await user.connect(connected.id, vips[family], 53)
    const free = await user.datagrams(number)
    t.match(await scene.asked(free.id, vips[family], 53), { name: 'server0' })
    t.same(end(true), { ended: 0, left: 0 }, 'none is stuck')
    for (const key of [tcp, service[family]]) {
      director.table((table) => {
        table.addServer(key, second)
        table.deleteServer(key, first)
      })
    }
    if (endsSockets) {
      t.same(end(false), { ended: 2, left: 1 }, 'a stream, and connected datagrams, of this namespace')
      await waitFor('the stream to end', async () => (await user.look(stream.id)).error === 'ECONNABORTED')
      await waitFor('the datagrams to end', async () => (await user.look(connected.id)).error !== undefined)
      t.equal((await elsewhere.look(far.id)).error, undefined)
      t.same(end(true, 1), { ended: 0, left: 1 }, 'as many as were left last')
      t.same(end(true), { ended: 1, left: 0 }, 'and in all namespaces')
      await waitFor('the far stream to end', async () => (await elsewhere.look(far.id)).error === 'ECONNABORTED')
    } else {
      t.same(end(true), { ended: 0, left: 3 })
    }
    t.match(await scene.asked(free.id, vips[family], 53), { name: 'server1' })
    t.equal((await scene.connections()).length, endsSockets ? 1 : 4)
    await elsewhere.close(far.id)
    for (const { id } of [stream, connected, free]) await user.close(id)
    t.same(await scene.connections(), [])
  }
  t.same(director.check(), [])
})

t.test("ending a socket's connection ends the socket, where the kernel can", root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director, user } = scene
  const endSockets = () => endStuckSockets(false, 0)
  for (const family of families) {
    const tcp = virtual(vips[family], 80)
    for (const key of [tcp, service[family]]) scene.serve(key, scene.servers(family))
    const stream = await user.stream(vips[family], 80)
    const other = await user.stream(vips[family], 80)
    const { local } = await user.look(stream.id)
    const views = director.table((table) => [...table.connections()])
    const found = views.find(({ client }) => endpoint(client) === local)
    if (found === undefined) throw new Error(`no connection of ${local}`)
    const end = () => director.table((table) => table.endConnection(found, { endSockets }))
    if (!endsSockets) {
      t.throws(end, { code: 'UNSUPPORTED' })
      t.same(scene.loads(tcp, family).sort(), ['0 0', '1 0', '1 0'], 'it goes on')
    } else {
      t.throws(
        () => director.table((table) => table.endConnection(found)),
        { code: 'UNSUPPORTED' },
        'nobody ends sockets',
      )
      t.equal((await user.look(stream.id)).error, undefined)
      t.same(endStuckOf(director), { ended: 0, left: 0 }, 'the mark was taken back')
      end()
      await waitFor('the stream to end', async () => (await user.look(stream.id)).error === 'ECONNABORTED')
      t.throws(end, { code: 'NO_CONNECTION' })
      t.same(scene.loads(tcp, family).sort(), ['0 0', '0 0', '1 0'], 'the other goes on')
    }
    const free = await user.datagrams(family === 'ipv4' ? 4 : 6)
    const before = await scene.asked(free.id, vips[family], 53)
    t.equal((await scene.asked(free.id, vips[family], 53)).name, before.name)
    const [sent] = director.table((table) => [...table.connections()].filter(({ protocol }) => protocol === 'udp'))
    if (sent === undefined) throw new Error('no connection of datagrams')
    if (endsSockets) {
      director.table((table) => table.endConnection(sent, { endSockets }))
      t.not((await scene.asked(free.id, vips[family], 53)).name, before.name, 'datagrams go to the next server')
    }
    for (const { id } of [stream, other, free]) await user.close(id)
    t.same(await scene.connections(), [])
  }
  t.same(director.check(), [])
})

/** What is stuck in the director's namespace now. */
function endStuckOf(director: SocketScene['director']) {
  return director.within(() => endStuckSockets(false, 0))
}
