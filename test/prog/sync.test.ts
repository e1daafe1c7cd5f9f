/** What a backup makes of what another director tells: connections that go on here. */
import t, { type Test } from 'tap'
import { LbConnFlag, LbFwd } from '../../src/abi/generated.ts'
import { Backup } from '../../src/sync/backup.ts'
import { connFlags, type SyncRecord } from '../../src/sync/message.ts'
import type { SyncDaemon } from '../../src/sync/options.ts'
import { SyncState } from '../../src/sync/state.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { real } from '../helpers/director.ts'
import { Datapath } from '../helpers/prog.ts'
import { type Arrival, endsOf, Host } from '../helpers/prog-host.ts'
import { datagram } from '../helpers/prog-flow.ts'
import { addService, connectionTexts, countTexts, keyOf } from '../helpers/prog-rows.ts'
import { random } from '../helpers/random.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { type RecordOptions, syncMessage, syncRecord } from '../helpers/sync-records.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

const daemon: SyncDaemon = {
  role: 'backup',
  syncId: 0,
  interface: 'cl0',
  maxLength: 65_507,
  group: '224.0.0.81',
  port: 8848,
  ttl: 1,
}
const { INACTIVE, TEMPLATE } = connFlags

/** A backup on a fresh table, with a clock that moves when told. */
class Scene {
  readonly datapath: Datapath
  readonly host: Host
  readonly state: SyncState
  nowMs = 0
  readonly #backup: Backup

  constructor(datapath: Datapath, services: readonly Parameters<typeof addService>[1][]) {
    datapath.clear()
    this.datapath = datapath
    for (const service of services) addService(datapath, service)
    this.host = new Host(datapath, { xdp: false })
    this.state = new SyncState(datapath.handles, 'backup')
    this.#backup = new Backup(datapath.maps, daemon, this.state, () => this.nowMs)
  }

  hear(...records: readonly SyncRecord[]): void {
    this.receive(syncMessage(records))
  }

  receive(message: Uint8Array): void {
    this.#backup.receive(message)
  }

  step(): void {
    this.#backup.step()
  }

  sound(t: Test, expected: { connections: number; templates?: number }): void {
    const { problems, connections, templates } = tableShape(this.datapath)
    t.same(problems, [], 'the table is consistent')
    t.same({ connections, templates }, { templates: 0, ...expected })
  }
}

const tcp4 = { at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:8080', '10.2.0.12:8080'] }
const tcp6 = { at: 'tcp [fd00:9::1]:80', servers: ['[fd00:2::11]:8080', '[fd00:2::12]:8080'] }
const udp4 = { at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53', '10.2.0.12:53'] }

function told(server: string, options?: RecordOptions): SyncRecord {
  return syncRecord(`tcp 10.1.0.1:4000 10.9.0.1:80 ${server}`, options)
}

/** Where a client's segment on the connection told() gets to. */
function reached(scene: Scene, event: string, server = '10.2.0.11:8080'): string | undefined {
  return Host.server(scene.host.tcp(event, { client: '10.1.0.1:4000', virtual: '10.9.0.1:80', server }))
}

const tests = async (t: Test, datapath: Datapath) => {
  await t.test('a connection goes on at the server that it has, in both directions, IPv4 and IPv6', async (t) => {
    for (const { service, client, virtual, server } of [
      { service: tcp4, client: '10.1.0.1:4000', virtual: '10.9.0.1:80', server: '10.2.0.11:8080' },
      { service: tcp6, client: '[fd00:1::1]:4000', virtual: '[fd00:9::1]:80', server: '[fd00:2::11]:8080' },
    ]) {
      const scene = new Scene(datapath, [service])
      scene.hear(syncRecord(`tcp ${client} ${virtual} ${server}`))
      t.same(countTexts(datapath, service.at), ['0/0', '1/0'], 'the server that was added first has it')
      const flow = { client, virtual, server }
      t.equal(Host.server(scene.host.tcp('c:A', flow)), server)
      const back: Arrival = scene.host.tcp('s:A', flow)
      t.equal(back.at, 'client')
      t.ok(virtual.includes(endsOf(back.packet).from), 'the answer comes from the virtual address')
      t.equal(datapath.table.service(keyOf(service.at))?.counters.conns, 0n, 'it was counted by the other director')
      scene.sound(t, { connections: 1 })
    }
  })

  await t.test('states, activity and time are those told', async (t) => {
    const rows: readonly (readonly [string, RecordOptions, string, string])[] = [
      ['tcp', { state: 1 }, 'ESTABLISHED 899', '1/0'],
      ['tcp', { state: 4, flags: INACTIVE, timeoutS: 120 }, 'FIN_WAIT 119', '0/1'],
      ['tcp', { state: 5, flags: INACTIVE, timeoutS: 100 }, 'TIME_WAIT 100', '0/1'],
      ['tcp', { state: 6, flags: INACTIVE, timeoutS: 0 }, 'CLOSE 9', '0/1'],
      ['udp', { flags: INACTIVE, timeoutS: 300 }, 'UDP 299', '0/1'],
      ['tcp', { timeoutS: 0xffffffff }, `ESTABLISHED ${2 ** 26}`, '1/0'],
    ]
    for (const [protocol, options, state, counts] of rows) {
      const at = `${protocol} 10.9.0.1:80`
      const scene = new Scene(datapath, [{ at, servers: ['10.2.0.11:8080'] }])
      scene.hear(syncRecord(`${protocol} 10.1.0.1:4000 10.9.0.1:80 10.2.0.11:8080`, options))
      const ends = '10.1.0.1:4000 10.9.0.1:80 10.2.0.11:8080'
      t.same(connectionTexts(datapath), [`${state} ${ends}`], state)
      t.same(countTexts(datapath, at), [counts], state)
      scene.sound(t, { connections: 1 })
    }
  })

  await t.test('what IPVS told of connections of services of every kind is listed as it listed them', async (t) => {
    interface Scenario {
      readonly name: string
      readonly connections: string
      readonly messages: readonly string[]
    }
    const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>('sync')
    const to = '10.2.0.11'
    const tables: Readonly<Record<string, Parameters<typeof addService>[1]>> = {
      tcp4: { at: 'tcp 10.9.0.1:80', servers: [`${to}:8080`] },
      tcp6: { at: 'tcp [fd00:9::1]:80', servers: ['[fd00:2::11]:8080'] },
      udp: { at: 'udp 10.9.0.1:53', servers: [`${to}:5353`] },
      persistent: { at: 'tcp 10.9.0.1:80', servers: [`${to}:8080`], persistent: true },
      persistent6: { at: 'tcp [fd00:9::1]:80', servers: ['[fd00:2::11]:8080'], persistent: true },
      fwmark: { at: 'mark 7', servers: [`${to}:0`] },
      'fwmark-persistent': { at: 'mark 7', servers: [`${to}:0`], persistent: true },
      port0: { at: 'tcp 10.9.0.1:0', servers: [`${to}:0`], persistent: true },
      version0: { at: 'tcp 10.9.0.1:80', servers: [`${to}:8080`] },
    }
    for (const [name, service] of Object.entries(tables)) {
      const recorded = scenarios.find((each) => each.name === name)
      if (recorded === undefined) throw new Error(`no scenario ${name}`)
      const scene = new Scene(datapath, [service])
      for (const message of recorded.messages) scene.receive(Uint8Array.from(Buffer.from(message, 'hex')))
      const lines = recorded.connections.split('\n').map((line) => line.trim().split(/\s+/))
      const ends = (words: readonly string[]): string => words.join(' ')
      const listed = new Set(lines.map(([, , state = '', ...rest]) => ends([state, ...rest])))
      const ours = connectionTexts(datapath).map((text) => text.replace(/ \d+ /, ' '))
      t.ok(ours.length > 0, name)
      t.same(
        ours.filter((text) => !listed.has(text)),
        [],
        `${name}: as listed`,
      )
      t.equal(scene.state.counters().waiting, name === 'udp' ? 1n : 0n, 'only IPv6 has no service in one of them')
      t.same(tableShape(datapath).problems, [])
    }
  })

  await t.test('a connection of this director changes as the other one says', async (t) => {
    const scene = new Scene(datapath, [{ at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:8080'] }])
    for (const event of ['c:S', 's:SA', 'c:A']) reached(scene, event)
    t.same(countTexts(datapath, tcp4.at), ['1/0'])
    scene.hear(told('10.2.0.11:8080', { state: 5, flags: INACTIVE, timeoutS: 120 }))
    t.match(connectionTexts(datapath), [/^TIME_WAIT 119 /])
    t.same(countTexts(datapath, tcp4.at), ['0/1'])
    scene.hear(told('10.2.0.11:8080'))
    t.match(connectionTexts(datapath), [/^ESTABLISHED 899 /])
    t.same(countTexts(datapath, tcp4.at), ['1/0'])
    t.equal(datapath.table.service(keyOf(tcp4.at))?.counters.conns, 1n)
    scene.sound(t, { connections: 1 })
  })

  await t.test('a connection with another server is replaced; news of its end come too late', async (t) => {
    const scene = new Scene(datapath, [tcp4])
    scene.hear(told('10.2.0.11:8080'))
    scene.hear(told('10.2.0.12:8080', { state: 5, flags: INACTIVE }))
    t.match(connectionTexts(datapath), [/^ESTABLISHED .* 10\.2\.0\.11:8080$/])
    scene.hear(told('10.2.0.12:8080'))
    t.match(connectionTexts(datapath), [/^ESTABLISHED .* 10\.2\.0\.12:8080$/])
    t.same(countTexts(datapath, tcp4.at), ['1/0', '0/0'])
    scene.sound(t, { connections: 1 })
  })

  await t.test("a packet makes a connection this director's own", async (t) => {
    const scene = new Scene(datapath, [tcp4, udp4])
    const synced = (): boolean => {
      const [entry = 0] = datapath.entries()
      return (datapath.maps.conns.flags(entry) & LbConnFlag.CONN_SYNC) !== 0
    }
    scene.hear(told('10.2.0.11:8080'))
    t.equal(synced(), true)
    reached(scene, 'c:A')
    t.equal(synced(), false)
    scene.hear(told('10.2.0.11:8080'))
    t.equal(synced(), true, 'until it is told of again')
    reached(scene, 's:A')
    t.equal(synced(), false)
    datapath.clearConnections()
    scene.hear(syncRecord('udp 10.1.0.1:4000 10.9.0.1:53 10.2.0.11:53', { flags: INACTIVE }))
    t.equal(synced(), true)
    scene.host.udp('10.1.0.1:4000', '10.9.0.1:53')
    t.equal(synced(), false)
  })

  await t.test('the first datagrams of a client are counted', async (t) => {
    const scene = new Scene(datapath, [udp4])
    const counts = [1, 2, 3, 4].map(() => {
      scene.host.udp('10.1.0.1:4000', '10.9.0.1:53')
      const reply = datagram({ leg: 'from server', from: '10.2.0.12:53', to: '10.1.0.1:4000' })
      scene.host.travel('servers', reply)
      const [entry = 0] = datapath.entries()
      return datapath.maps.conns.packets(entry)
    })
    t.same(counts, [1, 2, 3, 4])
  })

  await t.test('a connection waits until its server is in the table, but not longer than it lives', async (t) => {
    const scene = new Scene(datapath, [{ at: tcp4.at, servers: [] }])
    const later = syncRecord('tcp 10.1.0.2:4000 10.9.0.2:80 10.2.0.11:8080', { timeoutS: 300 })
    scene.hear(told('10.2.0.11:8080', { timeoutS: 100 }), later)
    t.same(connectionTexts(datapath), [])
    t.equal(scene.state.counters().waiting, 2n)
    scene.nowMs = 60_500
    datapath.table.addServer(keyOf(tcp4.at), real('10.2.0.11', 8080))
    scene.step()
    t.match(connectionTexts(datapath), [/^ESTABLISHED (39|40) 10\.1\.0\.1:4000 /])
    t.equal(scene.state.counters().waiting, 1n)
    t.equal(reached(scene, 'c:A'), '10.2.0.11:8080')
    scene.nowMs = 301_000
    addService(datapath, { at: 'tcp 10.9.0.2:80', servers: ['10.2.0.11:8080'] })
    scene.step()
    t.equal(connectionTexts(datapath).length, 1, 'its time was over')
    t.equal(scene.state.counters().waiting, 0n)
    scene.sound(t, { connections: 1 })
  })

  await t.test('the server is looked for as ip_vs_find_dest() does', async (t) => {
    const scene = new Scene(datapath, [
      { at: 'mark 7', servers: ['10.2.0.11:0', '10.2.0.11:80'] },
      { at: 'tcp 10.9.0.1:80', servers: ['10.2.0.12:0'] },
      { at: 'tcp 10.9.0.1:0', servers: ['10.2.0.13:0'], persistent: true },
      { at: 'tcp 10.9.0.2:21', servers: ['10.2.0.14:0'] },
    ])
    const ports = (at: string): Record<string, string> => {
      const servers = datapath.table.service(keyOf(at))?.servers ?? []
      return Object.fromEntries(servers.map(({ address, port, active }) => [`${address}:${port}`, `${active}`]))
    }
    scene.hear(
      syncRecord('tcp 10.1.0.1:1 10.9.0.1:80 10.2.0.11:80', { fwmark: 7 }),
      syncRecord('tcp 10.1.0.1:2 10.9.0.1:80 10.2.0.11:80', { fwmark: 7, flags: 3 | connFlags.NO_OUTPUT }),
      syncRecord('tcp 10.1.0.1:3 10.9.0.1:80 10.2.0.12:80', { fwmark: 8 }),
      syncRecord('tcp 10.1.0.1:4 10.9.0.1:81 10.2.0.13:81'),
      syncRecord('tcp 10.1.0.1:5 10.9.0.2:20 10.2.0.14:20'),
      syncRecord('tcp 10.1.0.1:6 10.9.0.2:2000 10.2.0.14:2000'),
      syncRecord('tcp 10.1.0.1:7 10.9.0.2:80 10.2.0.14:80'),
    )
    t.same(ports('mark 7'), { '10.2.0.11:80': '1', '10.2.0.11:0': '1' }, 'by mark: NAT by port, others without')
    t.same(ports('tcp 10.9.0.1:80'), { '10.2.0.12:0': '1' }, 'a mark without service leaves the address')
    t.same(ports('tcp 10.9.0.1:0'), { '10.2.0.13:0': '1' })
    t.same(ports('tcp 10.9.0.2:21'), { '10.2.0.14:0': '2' }, 'data connections of FTP')
    t.equal(scene.state.counters().waiting, 1n)
  })

  await t.test('a connection has the method of its server here, whatever the other director had', async (t) => {
    const scene = new Scene(datapath, [{ at: tcp4.at, servers: [] }])
    datapath.table.addServer(keyOf(tcp4.at), { ...real('10.2.0.11', 80), method: 'droute' })
    scene.hear(syncRecord('tcp 10.1.0.1:4000 10.9.0.1:80 10.2.0.11:80'))
    const [entry = -1] = datapath.entries()
    t.equal(datapath.maps.conns.fwd(entry), LbFwd.FWD_DROUTE)
    t.equal(datapath.maps.conns.flags(entry) & LbConnFlag.CONN_NOOUTPUT, LbConnFlag.CONN_NOOUTPUT)
  })

  await t.test('a template leads its clients on to their server', async (t) => {
    const scene = new Scene(datapath, [{ ...tcp4, persistent: true }])
    const template = 'tcp 10.1.0.1:0 10.9.0.1:80 10.2.0.11:8080'
    scene.hear(syncRecord(template, { flags: TEMPLATE | INACTIVE, timeoutS: 250 }))
    t.match(connectionTexts(datapath), [/^NONE 249 10\.1\.0\.1:0 10\.9\.0\.1:80 10\.2\.0\.11:8080$/])
    scene.hear(syncRecord(template, { flags: TEMPLATE | INACTIVE, timeoutS: 250, state: 1 }))
    t.match(connectionTexts(datapath), [/^ASSURED 249 /])
    const persistent = datapath.table.service(keyOf(tcp4.at))?.servers.map((server) => server.persistent)
    t.same(persistent, [0, 1])
    t.equal(reached(scene, 'c:S'), '10.2.0.11:8080', 'the scheduler would have picked the other one')
    scene.sound(t, { connections: 1, templates: 1 })
  })

  await t.test('a message of more connections than one run takes is entered whole', async (t) => {
    const scene = new Scene(datapath, [tcp4])
    const many = Array.from({ length: 200 }, (_, i) => {
      return syncRecord(`tcp 10.1.${i}.1:4000 10.9.0.1:80 10.2.0.1${1 + (i % 2)}:8080`)
    })
    scene.hear(...many)
    t.same(countTexts(datapath, tcp4.at), ['100/0', '100/0'])
    t.match(scene.state.counters(), { messages: 1n, connections: 200n, refused: 0n, failed: 0n })
    scene.sound(t, { connections: 200 })
  })

  await t.test('whatever is told, counts and index stay true', async (t) => {
    const scene = new Scene(datapath, [tcp4, { ...tcp6, persistent: true }, udp4])
    const draw = random(20_260_102)
    const one = (): SyncRecord => {
      const v6 = draw(3) === 0
      const udp = !v6 && draw(3) === 0
      const client = v6 ? `[fd00:1::${1 + draw(9)}]` : `10.1.0.${1 + draw(9)}`
      const virtual = v6 ? '[fd00:9::1]' : '10.9.0.1'
      const server = v6 ? `[fd00:2::1${1 + draw(2)}]` : `10.2.0.1${1 + draw(2)}`
      const template = v6 && draw(2) === 0
      const [port, to] = udp ? [53, 53] : [80, 8080]
      const state = template ? draw(2) : udp ? 0 : draw(11)
      const flags = (template ? TEMPLATE : 0) | (draw(2) === 0 ? INACTIVE : 0)
      const from = template ? 0 : 4000 + draw(4)
      const text = `${udp ? 'udp' : 'tcp'} ${client}:${from} ${virtual}:${port} ${server}:${to}`
      return syncRecord(text, { state, flags, timeoutS: draw(400) })
    }
    for (let round = 0; round < 60; round++) {
      scene.hear(...Array.from({ length: 1 + draw(80) }, one))
      for (let n = 0; n < 5; n++) {
        const client = `10.1.0.${1 + draw(9)}:${4000 + draw(4)}`
        const flow = { client, virtual: '10.9.0.1:80', server: `10.2.0.1${1 + draw(2)}:8080` }
        scene.host.tcp(['c:S', 'c:A', 's:SA', 'c:FA', 's:FA', 'c:R'][draw(6)] ?? 'c:S', flow)
      }
      if (draw(4) === 0) scene.host.age(draw(120))
      const { problems } = tableShape(datapath)
      if (problems.length > 0) t.same(problems, [], `after round ${round}`)
    }
    t.ok(tableShape(datapath).connections > 50)
    datapath.expire(0)
    scene.host.age(4000)
    t.same([...countTexts(datapath, tcp4.at), ...countTexts(datapath, udp4.at)], ['0/0', '0/0', '0/0', '0/0'])
    scene.sound(t, { connections: 0 })
  })
}

t.test('a backup under BPF_PROG_RUN', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  await tests(t, datapath)
  datapath.close()
})
