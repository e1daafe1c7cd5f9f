/** Processes that call services over TCP: their sockets get a server's address in the place of the service's. */
import t from 'tap'
import { endpoint, virtual } from '../helpers/director.ts'
import { families, type FamilyName, SocketScene, vips } from '../helpers/socket-scene.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { makeGroup, SocketUser } from '../helpers/socket-user.ts'
import { needsRoot, ports, topology } from '../helpers/topology.ts'

t.setTimeout(900_000)

const root = { skip: needsRoot }
const service = { ipv4: virtual(vips.ipv4, 80), ipv6: virtual(vips.ipv6, 80) } as const
const vip = (family: FamilyName) => endpoint({ address: vips[family], port: 80 })

t.test('sockets go to the servers in turn, and count as active until they are closed', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { net, director, user } = scene
  for (const family of families) {
    const key = service[family]
    scene.serve(key, scene.servers(family))
    const sockets = []
    const names = new Set<string>()
    const locals = new Set<string>()
    for (let i = 0; i < 3; i++) {
      const { id, name } = await scene.called(vips[family], 80)
      const { remote, local } = await user.look(id)
      t.equal(remote, vip(family), `${family}: getpeername() names the service`)
      t.notMatch(local, vips[family])
      names.add(name)
      sockets.push(id)
      locals.add(local)
    }
    t.same(names, new Set(net.servers.map(({ name }) => name)), `${family}: each server once`)
    t.same(scene.loads(key, family), ['1 0', '1 0', '1 0'], `${family}: active as long as they are open`)
    const lines = await scene.connections()
    t.equal(lines.length, 3)
    for (const line of lines)
      t.match(line, new RegExp(`^TCP 15:00 ESTABLISHED \\S+ ${vip(family).replace(/[[\].]/g, '.')} `))
    t.same(new Set(lines.map((line) => line.split(' ')[3])), locals, `${family}: clients are listed by their addresses`)
    for (const id of sockets) await user.close(id)
    t.same(scene.loads(key, family), ['0 0', '0 0', '0 0'], `${family}: closed`)
    t.same(await scene.connections(), [])
    const made = director.service(key).servers.map(({ counters }) => counters.conns)
    t.same(made, [1n, 1n, 1n], `${family}: counted once`)
  }
  t.same(director.check(), [])
})

t.test('an IPv6 socket that calls an IPv4 address gets a server of the IPv4 service', root, async (t) => {
  const scene = await SocketScene.start(t)
  scene.serve(service.ipv4, scene.servers('ipv4'))
  const mapped = `::ffff:${vips.ipv4}`
  const { id, name } = await scene.called(mapped, 80)
  t.match(name, /^server\d$/)
  t.equal((await scene.user.look(id)).remote, `[${mapped}]:80`, 'the peer is the mapped address')
  t.equal(scene.loads(service.ipv4, 'ipv4').filter((load) => load === '1 0').length, 1)
})

t.test('what is no service is called as it is', root, async (t) => {
  const scene = await SocketScene.start(t)
  const [server] = scene.net.servers
  for (const family of families) {
    scene.serve(service[family], scene.servers(family))
    const address = server?.[family] ?? ''
    const { id, name } = await scene.called(address, ports.echo)
    t.equal(name, 'server0')
    t.equal((await scene.user.look(id)).remote, endpoint({ address, port: ports.echo }))
  }
  t.same(await scene.connections(), [])
})

t.test('without a usable server connect() fails at once, refused', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director } = scene
  for (const family of families) {
    const key = service[family]
    scene.serve(key, [])
    t.equal((await scene.called(vips[family], 80)).name, 'ECONNREFUSED', `${family}: no server`)
    director.table((table) => {
      for (const server of scene.servers(family, { weight: 0 })) table.addServer(key, server)
    })
    t.equal((await scene.called(vips[family], 80)).name, 'ECONNREFUSED', `${family}: all of weight 0`)
    t.same(scene.loads(key, family), ['0 0', '0 0', '0 0'])
  }
  t.equal(director.verdict('REFUSE_NO_SERVER'), 4)
})

t.test('the scheduler weighs open sockets, and thresholds count them', root, async (t) => {
  const scene = await SocketScene.start(t)
  const key = service.ipv4
  const [first, second] = scene.servers('ipv4', { upper: 2 })
  if (first === undefined || second === undefined) throw new Error('no servers')
  scene.serve(key, [first, second], 'lc')
  const one = await scene.called(vips.ipv4, 80)
  const two = await scene.called(vips.ipv4, 80)
  t.not(one.name, two.name, 'the least loaded one')
  await scene.user.close(one.id)
  const again = await scene.called(vips.ipv4, 80)
  t.equal(again.name, one.name, 'the one whose socket was closed')
  await scene.called(vips.ipv4, 80)
  await scene.called(vips.ipv4, 80)
  t.same(scene.loads(key, 'ipv4'), ['2 0', '2 0', '-'])
  t.equal((await scene.called(vips.ipv4, 80)).name, 'ECONNREFUSED', 'both have as many as they may')
  await scene.user.close(two.id)
  t.equal((await scene.called(vips.ipv4, 80)).name, two.name, 'it has room again')
})

t.test(
  'a persistent service keeps a namespace, or an address that sockets are bound to, at one server',
  root,
  async (t) => {
    const scene = await SocketScene.start(t)
    const persistence = { timeoutS: 300, mask: '255.255.255.255' }
    scene.serve(service.ipv4, scene.servers('ipv4'), 'rr', { persistence })
    const names = new Set<string>()
    for (let i = 0; i < 3; i++) names.add((await scene.called(vips.ipv4, 80)).name)
    t.equal(names.size, 1, 'the namespace')
    const bound = await scene.user.stream(vips.ipv4, 80, '10.1.0.1')
    const name = (await scene.user.received(bound.id)).received[0]?.text.trim() ?? ''
    t.notOk(names.has(name), 'an address is another client')
    const templates = (await scene.connections()).filter((line) => line.includes(' ASSURED '))
    t.equal(templates.length, 2)
    t.equal(templates.filter((line) => line.includes(' 10.1.0.1:0 ')).length, 1)
    t.same(scene.director.check(), [])
  },
)

t.test('sockets go on to the same address for services that share templates', root, async (t) => {
  const scene = await SocketScene.start(t)
  const persistence = { timeoutS: 300, mask: '255.255.255.255', group: { id: 7, port: 0 } }
  const other = virtual(vips.ipv4, 443)
  for (const key of [service.ipv4, other]) scene.serve(key, scene.servers('ipv4'), 'rr', { persistence })
  const names = new Set<string>()
  for (const port of [80, 443, 80, 443]) names.add((await scene.called(vips.ipv4, port)).name)
  t.equal(names.size, 1)
  t.same(scene.loads(service.ipv4, 'ipv4').sort(), ['0 0', '0 0', '2 0'])
  t.same(scene.loads(other, 'ipv4').sort(), ['0 0', '0 0', '2 0'])
  t.same(scene.director.check(), [])
})

t.test('connections end with the process', root, async (t) => {
  const scene = await SocketScene.start(t)
  scene.serve(service.ipv4, scene.servers('ipv4'))
  const other = await scene.another('director')
  for (let i = 0; i < 3; i++) await scene.called(vips.ipv4, 80, other)
  t.same(scene.loads(service.ipv4, 'ipv4'), ['1 0', '1 0', '1 0'])
  await other.kill()
  t.same(scene.loads(service.ipv4, 'ipv4'), ['0 0', '0 0', '0 0'])
})

t.test('nothing but its closing ends the connection of a socket', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director } = scene
  scene.serve(service.ipv4, scene.servers('ipv4'))
  await director.must('--set 1 1 1')
  director.table((table) => table.changeSettings({ tunables: { expire_nodest_conn: 1 } }))
  const sockets = []
  for (let i = 0; i < 3; i++) sockets.push(await scene.called(vips.ipv4, 80))
  await director.must('-C')
  t.equal((await scene.connections()).length, 3, 'its servers are gone')
  scene.serve(service.ipv4, scene.servers('ipv4'))
  t.same(scene.loads(service.ipv4, 'ipv4'), ['1 0', '1 0', '1 0'], 'and are back')
  for (const { id } of sockets) await scene.user.close(id)
  t.same(scene.loads(service.ipv4, 'ipv4'), ['0 0', '0 0', '0 0'])
  t.same(director.check(), [])
})

t.test('sockets of other namespaces are left to their packets, unless all are wanted', root, async (t) => {
  const scene = await SocketScene.start(t)
  const client = await scene.another('client0')
  for (const family of families) {
    const address = scene.net.clients[0]?.[family] ?? ''
    const ofClient = family === 'ipv4' ? ` ${address}:` : ` [${address}]:`
    scene.balance({ scope: 'host' })
    scene.serve(service[family], scene.servers(family))
    t.match((await scene.called(vips[family], 80, client)).name, /^server\d$/)
    t.equal(
      (await scene.connections()).filter((line) => line.includes(ofClient)).length,
      1,
      `${family}: by its packets`,
    )
    scene.balance({ scope: 'all' })
    const key = virtual(vips[family], 81)
    scene.serve(key, scene.servers(family))
    const { id, name } = await scene.called(vips[family], 81, client)
    t.match(name, /^server\d$/)
    t.equal((await client.look(id)).remote, endpoint({ address: vips[family], port: 81 }))
    t.equal((await scene.connections()).filter((line) => line.includes(ofClient)).length, 2)
    await client.close(id)
    t.same(scene.loads(key, family), ['0 0', '0 0', '0 0'], `${family}: by its socket, with which it ends`)
  }
})

t.test('sockets of a group that is left alone call what they call', root, async (t) => {
  const scene = await SocketScene.start(t)
  scene.serve(service.ipv4, scene.servers('ipv4'))
  const left = makeGroup(t, scene.group)
  const other = await scene.another('director', makeGroup(t, left))
  const call = async (user = other) => (await scene.called(vips.ipv4, 80, user)).name
  t.match(await call(), /^server\d$/, 'balanced')
  t.ok(scene.balance({ leave: [left, `${left}-gone`] }))
  t.equal(await call(), 'ENETUNREACH', 'left alone, as its group is in one that is: nothing leads to the service')
  t.match(await call(scene.user), /^server\d$/, 'others go on')
  t.notOk(scene.balance({ leave: [left] }), 'nothing to change')
  t.ok(scene.balance({ leave: [] }))
  t.match(await call(), /^server\d$/, 'no longer left alone')
})

t.test('what is changed or taken away leaves open sockets as they are', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director } = scene
  scene.serve(service.ipv4, scene.servers('ipv4'))
  const { id } = await scene.called(vips.ipv4, 80)
  const hooks = [
    'connect4',
    'connect6',
    'sendmsg4',
    'sendmsg6',
    'recvmsg4',
    'recvmsg6',
    'getpeername4',
    'getpeername6',
    'sock_release',
    'post_bind4',
    'post_bind6',
  ]
  const listed = () => director.hooks().filter((line) => line.endsWith(' cgroup'))
  t.same(listed(), hooks.map((hook) => `- ${hook} cgroup`).sort())
  t.notOk(scene.balance({}), 'nothing to change')
  t.ok(scene.balance({ scope: 'all', protocols: 'tcp' }), 'other programs')
  t.same(listed().length, hooks.length)
  t.equal((await scene.user.look(id)).remote, vip('ipv4'), 'the socket still names the service')
  t.equal((await scene.connections()).length, 1)
  t.ok(scene.balance({ scope: 'off' }), 'taken away')
  t.same(listed(), [])
  t.same(await scene.connections(), [], 'nobody would end it any more')
  t.same(scene.loads(service.ipv4, 'ipv4'), ['0 0', '0 0', '0 0'])
  t.notOk(scene.balance({ scope: 'off' }))
  await scene.user.close(id)
  t.same(director.check(), [])
  scene.balance({})
  t.match((await scene.called(vips.ipv4, 80)).name, /^server\d$/, 'and back')
  await director.must('--unload')
  t.not(director.pins()?.present, true, 'unloaded with the table')
})

t.test('bpvsd balances sockets where that is asked for, and the next one takes it back', root, async (t) => {
  const group = makeGroup(t)
  const net = await topology(t, { serve: ['echo'] })
  const manifests = new Manifests(t)
  const servers = net.servers.map(({ ipv4 }) => ipv4)
  manifests.write({ name: 'web', address: vips.ipv4, port: 80, targetPort: ports.echo, servers })
  const first = new Daemon(
    net.topology,
    manifests,
    '--socket',
    'host',
    '--socket-group',
    group,
    '--socket-leave',
    'left',
  )
  await first.logged('ready')
  t.match(await first.logged('sockets'), { scope: 'host', protocols: 'all', group })
  const user = await SocketUser.start(t, net.topology, 'director', group)
  t.equal((await user.stream(vips.ipv4, 80)).remote, vip('ipv4'))
  await first.end('SIGTERM')
  t.equal((await user.stream(vips.ipv4, 80)).remote, vip('ipv4'), 'with no bpvsd too')
  const second = new Daemon(net.topology, manifests)
  await second.logged('sockets', (line) => line.scope === 'off')
  t.equal((await user.stream(vips.ipv4, 80)).error, 'ENETUNREACH')
  t.equal(await second.end('SIGTERM'), 0)
})

t.test('many processes at once, with edits between, leave nothing behind', root, async (t) => {
  const scene = await SocketScene.start(t)
  const { director } = scene
  const persistence = { timeoutS: 300, mask: '255.255.255.255' }
  const keys = [virtual(vips.ipv4, 80), virtual(vips.ipv4, 81), virtual(vips.ipv4, 82)] as const
  const servers = scene.servers('ipv4')
  const [first] = servers
  if (first === undefined) throw new Error('no server')
  scene.serve(keys[0], servers, 'wlc')
  scene.serve(keys[1], servers, 'lblcr')
  scene.serve(keys[2], servers, 'rr', { persistence })
  const users = await Promise.all([0, 1, 2, 3].map(() => scene.another('director')))
  const storms = users.flatMap((user) => [80, 81, 82].map((port) => user.storm(vips.ipv4, port, 150)))
  let done = false
  const answered = Promise.all(storms).finally(() => (done = true))
  for (let weight = 1; !done; weight = (weight % 5) + 1) {
    director.table((table) => {
      for (const key of keys) table.editServer(key, { ...first, weight })
    })
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.same(new Set(await answered), new Set([150]), 'each connection came about')
  for (const key of keys) {
    t.same(scene.loads(key, 'ipv4'), ['0 0', '0 0', '0 0'])
    const made = director.service(key).servers.reduce((sum, { counters }) => sum + counters.conns, 0n)
    t.equal(made, 600n)
  }
  t.same(
    (await scene.connections()).filter((line) => !line.includes(' ASSURED ')),
    [],
  )
  t.same(director.check(), [])
})
