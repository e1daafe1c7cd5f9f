/** Ending one connection, or template, because somebody asks for it. */
import t, { type Test } from 'tap'
import type { ConnectionKey } from '../../src/model/types.ts'
import { parseConnectionName } from '../../src/api/admin/names.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { decode } from '../helpers/decode.ts'
import { real, service } from '../helpers/director.ts'
import { Datapath, type Side } from '../helpers/prog.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { Host } from '../helpers/prog-host.ts'
import { both, everybody, families, given, own, packet, server, vip, wrap } from '../helpers/prog-policy.ts'
import { addService, connectionTexts, countTexts, keyOf } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

/** The table is consistent, once what is due was swept, and has so many connections and templates. */
function sound(t: Test, datapath: Datapath, expected: { connections: number; templates?: number }): void {
  datapath.handles.sweep()
  const { problems, connections, templates } = tableShape(datapath)
  t.same(problems, [], 'the table is consistent')
  t.same({ connections, templates }, { templates: 0, ...expected })
}

/** Ends what has this name. */
function end(datapath: Datapath, name: string): void {
  datapath.table.endConnection(parseConnectionName(name))
}

const connections = async (t: Test, datapath: Datapath) => {
  const host = new Host(datapath, { xdp: false })

  for (const family of both) {
    await t.test(`${family}: who says something next of a connection that was ended is told so`, async (t) => {
      datapath.clear()
      const { client, virtual, server } = families[family]
      const name = `tcp-${client}-1000-${virtual}-80`
      const flow = { client: wrap(client, 1000), virtual: wrap(virtual, 80), server: wrap(server, 8080) }
      addService(datapath, { at: `tcp ${flow.virtual}`, servers: [flow.server] })
      for (const event of ['c:S', 's:SA', 'c:A']) host.tcp(event, flow)
      host.tcp('c:S', { ...flow, client: flow.client.replace('1000', '1001') })
      end(datapath, name)
      sound(t, datapath, { connections: 1 })
      t.same(countTexts(datapath, `tcp ${flow.virtual}`), ['1/0'])
      const answer = host.tcp('c:A', flow)
      t.equal(answer.at, 'client')
      t.equal(decode(answer.packet)['tcp.flags'], 'R')
      const reply = host.tcp('s:A', flow)
      t.match([reply.at, reply.by], ['client', 'stack'], 'the server is not translated: the client resets it')
      t.throws(() => end(datapath, name), { code: 'NO_CONNECTION' })
      host.tcp('c:S', flow)
      sound(t, datapath, { connections: 2 })
    })
  }

  await t.test('of a client with more connections than its line has room for, any one can be ended', async (t) => {
    datapath.clear()
    for (let n = 1; n <= 40; n++) addService(datapath, { at: `udp 10.9.0.${n}:53`, servers: [`10.2.0.11:${8000 + n}`] })
    const ask = (n: number) => host.udp('10.1.0.1:1000', `10.9.0.${n}:53`)
    for (let n = 1; n <= 40; n++) ask(n)
    for (let n = 1; n <= 40; n += 2) end(datapath, `udp-10.1.0.1-1000-10.9.0.${n}-53`)
    sound(t, datapath, { connections: 20 })
    for (let n = 1; n <= 40; n++) t.same(countTexts(datapath, `udp 10.9.0.${n}:53`), [n % 2 === 0 ? '0/1' : '0/0'])
    ask(1)
    sound(t, datapath, { connections: 21 })
  })

  await t.test('what took the place of a connection meanwhile stays', async (t) => {
    datapath.clear()
    const at = 'udp 10.9.0.1:53'
    addService(datapath, { at, servers: ['10.2.0.11:53', '10.2.0.12:53'] })
    const ask = () => host.udp('10.1.0.1:1000', '10.9.0.1:53')
    t.equal(Host.server(ask()), '10.2.0.12:53')
    const check = () => {
      host.age(400)
      t.equal(Host.server(ask()), '10.2.0.11:53', 'another connection of the same ends')
    }
    const key: ConnectionKey = parseConnectionName('udp-10.1.0.1-1000-10.9.0.1-53')
    t.throws(() => datapath.table.endConnection(key, { check }), { code: 'NO_CONNECTION' })
    sound(t, datapath, { connections: 1 })
    t.equal(datapath.table.connection(key)?.server.address, '10.2.0.11')
  })

  await t.test('a check that throws leaves it as it is', async (t) => {
    const key = parseConnectionName('udp-10.1.0.1-1000-10.9.0.1-53')
    const check = () => {
      throw new Error('no')
    }
    t.throws(() => datapath.table.endConnection(key, { check }), { message: 'no' })
    t.ok(datapath.table.connection(key))
  })

  await t.test('a line that stays locked is told of', async (t) => {
    const lock = (locked: number) => {
      for (let line = 0; line < datapath.lines.length; line++) datapath.lines.setLock(line, locked)
    }
    lock(1)
    t.throws(() => end(datapath, 'udp-10.1.0.1-1000-10.9.0.1-53'), { code: 'NATIVE' })
    lock(0)
    end(datapath, 'udp-10.1.0.1-1000-10.9.0.1-53')
    sound(t, datapath, { connections: 0 })
  })
}

const masquerade = async (t: Test, datapath: Datapath) => {
  for (const family of both) {
    await t.test(`${family}: with a masqueraded connection what the server answers to is over`, async (t) => {
      datapath.clear()
      given(family, { masquerade: everybody })(datapath)
      const from = wrap(families[family].client, 1000)
      const run = (side: Side, sent: Uint8Array) => datapath.run({ at: 'ingress', side, packet: sent })
      run('clients', packet('udp', { from, to: vip(family) }))
      const [view] = datapath.table.connections()
      if (view === undefined) throw new Error('no connection')
      datapath.table.endConnection(view)
      datapath.expire(0)
      const reply = packet('udp', { leg: 'from server', from: server(family), to: own(family) })
      t.equal(run('servers', reply).action, 'pass', 'it is for the host, which knows nothing of it')
      sound(t, datapath, { connections: 0 })
      t.equal(connectionTexts(datapath).length, 0)
    })
  }
}

const templates = async (t: Test, datapath: Datapath) => {
  const host = new Host(datapath, { xdp: false })
  const persistence = { timeoutS: 300, mask: '255.255.255.0' }
  const add = (at: string) => {
    datapath.clear()
    const key = keyOf(at)
    datapath.table.addService({ ...service(key), persistence })
    for (const n of [11, 12]) datapath.table.addServer(key, real(`10.2.0.${n}`, 53))
  }
  const ask = (port: number) => Host.server(host.udp(`10.1.0.1:${port}`, '10.9.0.1:53'))

  await t.test('a template that is ended leads nobody to its server; its connections go on', async (t) => {
    add('udp 10.9.0.1:53')
    t.equal(ask(1000), '10.2.0.12:53')
    end(datapath, 'template-udp-10.1.0.0-0-10.9.0.1-53')
    t.throws(() => end(datapath, 'template-udp-10.1.0.0-0-10.9.0.1-53'), { code: 'NO_CONNECTION' })
    t.equal(ask(1001), '10.2.0.11:53', 'the next one in turn')
    t.equal(ask(1000), '10.2.0.12:53', 'the connection goes on')
    t.match(
      connectionTexts(datapath).filter((text) => text.includes(':65535')),
      [/^NONE \d+ 10.1.0.0:0 10.9.0.1:65535 10.2.0.12:65535$/],
      'listed as one whose server was removed',
    )
    sound(t, datapath, { connections: 2, templates: 2 })
  })

  await t.test('one without connections is gone', async (t) => {
    add('udp 10.9.0.1:53')
    ask(1000)
    end(datapath, 'udp-10.1.0.1-1000-10.9.0.1-53')
    sound(t, datapath, { connections: 0, templates: 1 })
    end(datapath, 'template-udp-10.1.0.0-0-10.9.0.1-53')
    sound(t, datapath, { connections: 0 })
  })

  await t.test('that of a service by mark is found by its mark', async (t) => {
    add('mark 7')
    const sent = datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53' })
    datapath.run({ at: 'ingress', side: 'clients', packet: sent, mark: 7 })
    const template = [...datapath.table.connections()].find((view) => view.template === true)
    t.match(template, { protocol: 'ip', virtual: { address: '0.0.0.7', port: 0 } })
    end(datapath, 'template-ip-10.1.0.0-0-0.0.0.7-0')
    t.notOk(
      [...datapath.table.connections()].some(({ virtual }) => virtual.address === '0.0.0.7' && virtual.port === 0),
    )
  })

  await t.test('a connection is not taken for a template of the same ends', async (t) => {
    add('udp 10.9.0.1:53')
    const zero = segment({ from: '10.1.0.0:0', to: '10.9.0.1:53', flags: 'S' })
    datapath.run({ at: 'ingress', side: 'clients', packet: zero })
    host.udp('10.1.0.0:0', '10.9.0.1:53')
    sound(t, datapath, { connections: 1, templates: 1 })
    end(datapath, 'udp-10.1.0.0-0-10.9.0.1-53')
    sound(t, datapath, { connections: 0, templates: 1 })
  })
}

t.test('connections are ended by their names', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  await connections(t, datapath)
  await masquerade(t, datapath)
  await templates(t, datapath)
})
