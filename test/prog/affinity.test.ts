/** Services that share persistence templates: clients go on to the same address, whichever service they ask. */
import t, { type Test } from 'tap'
import type { Persistence, ServiceSpec } from '../../src/model/types.ts'
import { parseConnectionName } from '../../src/api/admin/names.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { real, service } from '../helpers/director.ts'
import { Datapath } from '../helpers/prog.ts'
import { segment } from '../helpers/prog-flow.ts'
import { Host } from '../helpers/prog-host.ts'
import { connectionTexts, keyOf } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

const id = 0x0a600001

const places = {
  4: { vip: '10.9.0.1', other: '10.9.0.2', client: '10.1.0', servers: '10.2.0.', shown: '10.96.0.1' },
  6: {
    vip: 'fd00:9::1',
    other: 'fd00:9::2',
    client: 'fd00:1:',

    servers: 'fd00:2::',
    shown: '::10.96.0.1',
  },
} as const

/** A table with services that share. */
class Sharing {
  readonly #datapath: Datapath
  readonly #host: Host
  readonly #family: 4 | 6

  constructor(datapath: Datapath, family: 4 | 6) {
    this.#datapath = datapath
    this.#host = new Host(datapath, { xdp: false })
    this.#family = family
    datapath.clear()
  }

  wrap(address: string, port: number): string {
    return this.#family === 4 ? `${address}:${port}` : `[${address}]:${port}`
  }

  /** A service at "tcp 80", with servers by the last part of their addresses, at this port. */
  add(at: string, servers: readonly number[], serverPort: number, group?: Persistence['group']): ServiceSpec {
    const [protocol, port] = at.split(' ')
    const key = keyOf(`${protocol} ${this.wrap(places[this.#family].vip, Number(port))}`)
    const mask = this.#family === 4 ? '255.255.255.255' : 128
    const persistence = { timeoutS: 300, mask, ...(group === undefined ? {} : { group }) }
    const spec = { ...service(key), persistence }
    this.#datapath.table.addService(spec)
    for (const n of servers)
      this.#datapath.table.addServer(key, real(`${places[this.#family].servers}${n}`, serverPort))
    return spec
  }

  /** The server of a new connection, as "11:8080". */
  ask(client: number, at: string, from = 1000): string {
    const [protocol, port] = at.split(' ')
    const { client: prefix, vip, servers } = places[this.#family]
    const source = this.wrap(this.#family === 4 ? `${prefix}.${client}` : `${prefix}:${client}`, from)
    const to = this.wrap(vip, Number(port))
    const arrival =
      protocol === 'udp'
        ? this.#host.udp(source, to)
        : this.#host.travel('clients', segment({ from: source, to, flags: 'S' }))
    const found = Host.server(arrival) ?? 'nobody'
    return found.replace(/[[\]]/g, '').replace(servers, '')
  }

  sound(t: Test, expected: { connections: number; templates: number }): void {
    this.#datapath.handles.sweep()
    const { problems, connections, templates } = tableShape(this.#datapath)
    t.same(problems, [], 'the table is consistent')
    t.same({ connections, templates }, expected)
  }
}

const sharing = async (t: Test, datapath: Datapath, family: 4 | 6) => {
  await t.test('a client goes on to the same address for all ports, each served at its own', async (t) => {
    const scene = new Sharing(datapath, family)
    scene.add('tcp 80', [11, 12, 13], 8080, { id, port: 0 })
    scene.add('tcp 443', [11, 12, 13], 8443, { id, port: 0 })
    scene.add('udp 443', [11, 12, 13], 8443, { id, port: 0 })
    scene.add('tcp 25', [11, 12, 13], 2525)
    for (const [client, server] of [
      [1, 13],
      [2, 12],
      [3, 11],
    ] as const) {
      t.equal(scene.ask(client, 'tcp 80'), `${server}:8080`)
      t.equal(scene.ask(client, 'tcp 443'), `${server}:8443`)
      t.equal(scene.ask(client, 'udp 443'), `${server}:8443`)
    }
    scene.sound(t, { connections: 9, templates: 3 })
    t.equal(scene.ask(2, 'tcp 25'), '13:2525', 'a service that shares nothing has a scheduler and templates of its own')
    const { shown, servers } = places[family]
    const listed = `${scene.wrap(shown, 0)} ${scene.wrap(`${servers}11`, 0)}`
    t.ok(
      connectionTexts(datapath).some((text) => text.endsWith(listed)),
      'it is listed by the number, and the address alone',
    )
    datapath.table.endConnection(
      parseConnectionName(`template-ip-${family === 4 ? '10.1.0.3' : 'fd00:1::3'}-0-${shown}-0`),
    )
    t.equal(scene.ask(3, 'tcp 443', 2000), '13:8443', 'one that was ended leads nobody anywhere')
  })

  await t.test('with a port it is shared by services of one protocol', async (t) => {
    const scene = new Sharing(datapath, family)
    scene.add('tcp 80', [11, 12, 13], 8080, { id, port: 80 })
    scene.add('tcp 30080', [11, 12, 13], 8080, { id, port: 80 })
    scene.add('udp 80', [11, 12, 13], 8080, { id, port: 80 })
    t.equal(scene.ask(1, 'tcp 80'), '13:8080')
    t.equal(scene.ask(2, 'tcp 80'), '12:8080')
    t.equal(scene.ask(2, 'tcp 30080', 2000), '12:8080')
    t.equal(scene.ask(2, 'udp 80'), '13:8080')
    scene.sound(t, { connections: 4, templates: 3 })
  })

  await t.test(
    'a service that does not have the address keeps clients by itself, and changes nothing for others',
    async (t) => {
      const scene = new Sharing(datapath, family)
      scene.add('tcp 80', [11, 12], 8080, { id, port: 0 })
      scene.add('tcp 443', [13, 14], 8443, { id, port: 0 })
      t.equal(scene.ask(1, 'tcp 80'), '12:8080')
      t.equal(scene.ask(1, 'tcp 443'), '14:8443')
      t.equal(scene.ask(2, 'tcp 80'), '11:8080')
      t.equal(scene.ask(1, 'tcp 443', 2000), '14:8443', 'the client stays')
      t.equal(scene.ask(1, 'tcp 80', 2000), '12:8080')
      scene.sound(t, { connections: 5, templates: 3 })
    },
  )

  await t.test('when the server is gone from the service that began it, another is chosen, for all', async (t) => {
    const scene = new Sharing(datapath, family)
    const web = scene.add('tcp 80', [11, 12], 8080, { id, port: 0 })
    const tls = scene.add('tcp 443', [11, 12], 8443, { id, port: 0 })
    t.equal(scene.ask(1, 'tcp 80'), '12:8080')
    const gone = (spec: ServiceSpec, port: number) =>
      datapath.table.deleteServer(spec.key, real(`${places[family].servers}12`, port))
    gone(tls, 8443)
    t.equal(scene.ask(1, 'tcp 443'), '11:8443')
    t.equal(scene.ask(1, 'tcp 80', 2000), '12:8080', 'it is there for the other port')
    gone(web, 8080)
    t.equal(scene.ask(1, 'tcp 80', 3000), '11:8080')
    t.equal(scene.ask(1, 'tcp 443', 3000), '11:8443')
  })

  await t.test('a server without weight gives way where the tunable says so', async (t) => {
    const scene = new Sharing(datapath, family)
    scene.add('tcp 80', [11, 12], 8080, { id, port: 0 })
    const tls = scene.add('tcp 443', [11, 12], 8443, { id, port: 0 })
    const quiet = { ...real(`${places[family].servers}12`, 8443), weight: 0 }
    datapath.table.editServer(tls.key, quiet)
    t.equal(scene.ask(1, 'tcp 80'), '12:8080')
    t.equal(scene.ask(1, 'tcp 443'), '12:8443')
    datapath.table.changeSettings({ tunables: { expire_quiescent_template: 1 } })
    t.equal(scene.ask(1, 'tcp 443', 2000), '11:8443')
    t.equal(scene.ask(1, 'tcp 80', 2000), '12:8080')
  })

  await t.test('the group of a service is read back, and can be taken from it', async (t) => {
    const scene = new Sharing(datapath, family)
    const spec = scene.add('tcp 80', [11], 8080, { id, port: 7 })
    t.same(datapath.table.service(spec.key)?.persistence, spec.persistence)
    const { group: _, ...without } = spec.persistence as Persistence
    datapath.table.editService({ ...spec, persistence: without })
    t.same(datapath.table.service(spec.key)?.persistence, without)
    for (const bad of [
      { id: 0, port: 0 },
      { id: 2 ** 32, port: 0 },
      { id, port: 65_536 },
    ]) {
      t.throws(() => datapath.table.editService({ ...spec, persistence: { ...without, group: bad } }), {
        code: 'INVALID',
      })
    }
  })
}

t.test('services share persistence', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  for (const family of [4, 6] as const) await t.test(`IPv${family}`, (t) => sharing(t, datapath, family))
})
