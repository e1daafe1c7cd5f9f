/** What the tunables of IPVS do to packets and connections; those that the recordings of states.test.ts tell of are there. */
import t, { type Test } from 'tap'
import { LbConnFlag, LbState } from '../../src/abi/generated.ts'
import { initialSettings, type SettingsChange } from '../../src/model/settings.ts'
import { Datapath } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { addService, keyOf } from '../helpers/prog-rows.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const web = 'tcp 10.9.0.1:80'
const dns = 'udp 10.9.0.1:53'
const virtual = '10.9.0.1:80'
const servers = ['10.2.0.11:80', '10.2.0.12:80'] as const

/** A new table with two servers in turn, the second first. */
class Scene {
  readonly datapath: Datapath
  readonly host: Host

  constructor(datapath: Datapath, xdp = false) {
    this.datapath = datapath
    this.host = new Host(datapath, { xdp })
    datapath.clear()
    addService(datapath, { at: web, servers: [...servers] })
    addService(datapath, { at: dns, servers: ['10.2.0.11:53', '10.2.0.12:53'] })
  }

  set(tunables: SettingsChange['tunables'] = {}): void {
    this.datapath.table.changeSettings({ tunables })
  }

  /** Segments of one connection; the server that the last of them reached. */
  segments(client: string, ...events: readonly string[]): string | undefined {
    const server = this.datapath.table.connections()
    const known = [...server].find((each) => `${each.client.address}:${each.client.port}` === client)
    const flow = { client, virtual, server: known === undefined ? servers[0] : `${known.server.address}:80` }
    return events.map((event) => Host.server(this.host.tcp(event, flow))).at(-1)
  }

  open(client: string): string | undefined {
    const server = this.segments(client, 'c:S')
    this.segments(client, 's:SA', 'c:A')
    return server
  }

  states(): string[] {
    return Array.from(this.datapath.table.connections(), ({ state }) => state)
  }
}

const reuse = async (t: Test, datapath: Datapath) => {
  const finWait = (scene: Scene) => {
    scene.open('10.1.0.1:1000')
    const { conns } = datapath.maps
    const [index = 0] = datapath.entries()
    conns.setState(index, LbState.TCP_FIN_WAIT)
    conns.setFlags(index, conns.flags(index) | LbConnFlag.CONN_NOOUTPUT)
  }
  for (const [mode, server] of [
    [0, servers[1]],
    [1, servers[1]],
    [2, servers[0]],
    [3, servers[0]],
  ] as const) {
    await t.test(
      `conn_reuse_mode ${mode}: a SYN in FIN_WAIT where replies are not seen goes to ${server}`,
      async (t) => {
        const scene = new Scene(datapath)
        finWait(scene)
        scene.set({ conn_reuse_mode: mode })
        t.equal(scene.segments('10.1.0.1:1000', 'c:S'), server)
        t.equal(scene.states().length, 1)
      },
    )
  }
  await t.test('conn_reuse_mode 2: in FIN_WAIT with replies seen the server is kept', async (t) => {
    const scene = new Scene(datapath)
    scene.set({ conn_reuse_mode: 2 })
    t.equal(scene.open('10.1.0.1:1000'), servers[1])
    scene.segments('10.1.0.1:1000', 's:FA')
    t.same(scene.states(), ['FIN_WAIT'])
    t.equal(scene.segments('10.1.0.1:1000', 'c:S'), servers[1])
  })
}

const nodest = async (t: Test, datapath: Datapath) => {
  await t.test(
    'expire_nodest_conn: a SYN on a connection to a quiesced server is scheduled anew, data are not',
    async (t) => {
      for (const value of [0, 1]) {
        const scene = new Scene(datapath)
        scene.set({ expire_nodest_conn: value })
        t.equal(scene.open('10.1.0.1:1000'), servers[1])
        const server = {
          family: 4,
          address: '10.2.0.12',
          port: 80,
          weight: 0,
          method: 'masq',
          upper: 0,
          lower: 0,
        } as const
        datapath.table.editServer(keyOf(web), server)
        t.equal(scene.segments('10.1.0.1:1000', 'c:PA'), servers[1], 'data')
        t.equal(scene.segments('10.1.0.1:1000', 'c:S'), servers[value === 1 ? 0 : 1], `a SYN, with ${value}`)
      }
    },
  )
  for (const xdp of [false, true]) {
    await t.test(
      `expire_nodest_conn: with${xdp ? '' : 'out'} XDP a datagram of a removed server's finds another`,
      async (t) => {
        const scene = new Scene(datapath, xdp)
        const send = () => Host.server(scene.host.udp('10.1.0.1:1000', '10.9.0.1:53'))
        t.equal(send(), '10.2.0.12:53')
        datapath.table.deleteServer(keyOf(dns), { family: 4, address: '10.2.0.12', port: 53 })
        t.equal(send(), undefined, 'as long as it is 0: none')
        // Not by changeSettings(), which would sweep: the packet is to come first.
        datapath.maps.config.setExpireNodestConn(0, 1)
        t.equal(send(), '10.2.0.11:53')
      },
    )
  }
  await t.test(
    'expire_nodest_conn: connections of a removed service are gone with it, and so are its servers',
    async (t) => {
      const scene = new Scene(datapath)
      scene.set({ expire_nodest_conn: 1 })
      scene.open('10.1.0.1:1000')
      scene.host.udp('10.1.0.1:1000', '10.9.0.1:53')
      datapath.table.deleteService(keyOf(web))
      t.same(scene.states(), ['UDP'])
      datapath.table.clear()
      t.same(scene.states(), [])
    },
  )
}

const floods = async (t: Test, datapath: Datapath) => {
  const opened = (scene: Scene, count: number): number => {
    const results = Array.from({ length: count }, (_, i) => scene.segments(`10.1.0.1:${2000 + i}`, 'c:S'))
    return results.filter((server) => server !== undefined).length
  }
  await t.test('drop_packet 3 drops one new connection in am_droprate, and no other packet', async (t) => {
    const scene = new Scene(datapath)
    scene.open('10.1.0.2:1000')
    scene.set({ drop_packet: 3, am_droprate: 4 })
    t.equal(opened(scene, 12), 9)
    for (let i = 0; i < 8; i++) t.equal(scene.segments('10.1.0.2:1000', 'c:PA'), servers[1])
    t.equal(datapath.verdicts().DROP_DEFENCE, 3)
    scene.set({ drop_packet: 0 })
    t.equal(opened(scene, 12), 12)
  })
  await t.test('mode 1 acts while less than amemthresh is left of the connection table, and is 2 then', async (t) => {
    const scene = new Scene(datapath)
    const mode = () => datapath.table.settings().tunables.drop_packet
    const pages = datapath.handles.rodata.connMax / 64
    scene.set({ drop_packet: 1, amemthresh: pages / 2 })
    t.equal(mode(), 1)
    t.equal(opened(scene, 12), 12)
    // With a page less left than there are: one in two.
    scene.set({ amemthresh: 2 * (pages - 1) })
    t.equal(mode(), 2)
    const reached = new Set(Array.from({ length: 40 }, (_, i) => scene.segments(`10.1.0.4:${i + 1}`, 'c:S') ?? ''))
    t.equal(reached.has(''), true)
    const made = scene.states().length - 12
    t.ok(made >= 20 && made <= 25, `${made} of 40`)
    scene.set({ amemthresh: pages / 2 })
    t.equal(mode(), 1)
  })
  await t.test(
    'drop_entry 3 ends half-open connections before their time, established ones that are not idle never',
    async (t) => {
      const scene = new Scene(datapath)
      for (let i = 0; i < 20; i++) scene.open(`10.1.0.3:${1000 + i}`)
      opened(scene, 1000)
      scene.set({ drop_entry: 3 })
      await waitFor('half-open connections that end', () => (datapath.verdicts().EXPIRED_EARLY ?? 0) > 20)
      scene.set({ drop_entry: 0 })
      const states = scene.states()
      t.equal(states.filter((state) => state === 'ESTABLISHED').length, 20)
      t.equal(states.filter((state) => state === 'SYN_RECV').length, 1000 - (datapath.verdicts().EXPIRED_EARLY ?? 0))
      const counts = datapath.table.service(keyOf(web))?.servers.map(({ active }) => active) ?? []
      t.equal(counts[0] !== undefined && counts[1] !== undefined && counts[0] + counts[1], states.length)
    },
  )
  await t.test(
    'drop_entry 3 ends connections idle for a minute, unless their client sent more than 8 packets',
    async (t) => {
      const scene = new Scene(datapath)
      for (let i = 0; i < 200; i++) scene.open(`10.1.0.3:${1000 + i}`)
      for (let i = 0; i < 20; i++) scene.segments(`10.1.0.3:${1000 + i}`, ...new Array<string>(7).fill('c:PA'))
      scene.host.age(61)
      scene.set({ drop_entry: 3 })
      await waitFor('idle connections that end', () => scene.states().length < 195)
      scene.set({ drop_entry: 0 })
      const ports = new Set(Array.from(datapath.table.connections(), ({ client }) => client.port))
      t.ok(
        Array.from({ length: 20 }, (_, i) => ports.has(1000 + i)).every((present) => present),
        'those with nine packets are all there',
      )
    },
  )
}

const estimation = async (t: Test, datapath: Datapath) => {
  await t.test('run_estimation 0: rates stand still', async (t) => {
    const scene = new Scene(datapath)
    scene.set({ run_estimation: 0 })
    for (let i = 0; i < 100; i++) scene.host.udp(`10.1.0.1:${1000 + i}`, '10.9.0.1:53')
    const since = datapath.handles.clock().ktimeNs
    const period = 2_200_000_000n
    await waitFor('the time of an estimation', () => datapath.handles.clock().ktimeNs - since > period)
    t.equal(datapath.table.service(keyOf(dns))?.rates.conns, 0n)
    scene.set({ run_estimation: 1 })
    await waitFor('the estimation', () => (datapath.table.service(keyOf(dns))?.rates.conns ?? 0n) > 0n)
  })
}

t.test('tunables', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  const { masqueradePorts, ...settings } = datapath.table.settings()
  t.same(settings, initialSettings, 'of a new table')
  t.match(masqueradePorts, { first: Number, last: Number }, 'which has ports for masqueraded connections')
  await reuse(t, datapath)
  await nodest(t, datapath)
  await floods(t, datapath)
  await estimation(t, datapath)
})
