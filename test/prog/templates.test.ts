/** What must hold of persistence templates whatever happens: their counts, their place in the table, their end. */
import t, { type Test } from 'tap'
import type { ServiceSpec } from '../../src/model/types.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { real, service } from '../helpers/director.ts'
import { Datapath } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { datagram } from '../helpers/prog-flow.ts'
import { connectionTexts, keyOf } from '../helpers/prog-rows.ts'
import { random } from '../helpers/random.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

const seed = Number(process.env.BPVS_LIVES_SEED ?? 4711) || 1

/** A persistent service: "udp 10.9.0.1:53", 300 s, each client by itself unless given. */
function persistent(at: string, timeoutS = 300, mask?: string | number): ServiceSpec {
  const key = keyOf(at)
  return { ...service(key), persistence: { timeoutS, mask: mask ?? (key.family === 4 ? '255.255.255.255' : 128) } }
}

/** Adds a service with servers of the network 10.2.0.0 or fd00:2::, numbered. */
function add(datapath: Datapath, spec: ServiceSpec, servers: readonly number[]): void {
  datapath.table.addService(spec)
  for (const n of servers) datapath.table.addServer(spec.key, serverOf(spec, n))
}

function serverOf({ key }: ServiceSpec, n: number) {
  return real(key.family === 4 ? `10.2.0.${n}` : `fd00:2::${n}`, 8000 + n)
}

function sound(t: Test, datapath: Datapath, expected: { connections: number; templates: number }): void {
  const { problems, connections, templates } = tableShape(datapath)
  t.same(problems, [], 'the table is consistent')
  t.same({ connections, templates }, expected, 'and has as many connections and templates as it should')
}

/** Contradictions in the table; what was only the sweeper at work is gone at a second look. */
function lasting(datapath: Datapath): readonly string[] {
  const { problems } = tableShape(datapath)
  return problems.length === 0 ? problems : tableShape(datapath).problems
}

/** Locks or unlocks every line of the connection index. */
function lockLines(datapath: Datapath, locked: number): void {
  for (let line = 0; line < datapath.lines.length; line++) datapath.lines.setLock(line, locked)
}

const lives = async (t: Test, datapath: Datapath) => {
  const host = new Host(datapath, { xdp: false })
  const at = 'udp 10.9.0.1:53'

  await t.test(
    'a template is not swept while it has connections, and gets another minute when it is due',
    async (t) => {
      datapath.clear()
      add(datapath, persistent(at, 3), [11, 12])
      host.udp('10.1.0.1:1000', '10.9.0.1:53')
      const server = '10.2.0.12:8012'
      host.age(4)
      t.match(connectionTexts(datapath), [
        /^NONE 5[789] 10.1.0.1:0 10.9.0.1:53 10.2.0.12:8012$/,
        /^UDP 29[3456] 10.1.0.1:1000 10.9.0.1:53 10.2.0.12:8012$/,
      ])
      host.age(120)
      t.match(connectionTexts(datapath)[0], /^NONE 5[6789] 10.1.0.1:0 /)
      t.equal(Host.server(host.udp('10.1.0.1:1001', '10.9.0.1:53')), server, 'and still leads to the same server')
      t.match(connectionTexts(datapath)[0], /^NONE 5[89] 10.1.0.1:0 /, 'renewed, but to a minute, not to 3 s')
      sound(t, datapath, { connections: 2, templates: 1 })
    },
  )

  await t.test('it ends when it is due and its connections have ended', async (t) => {
    datapath.clear()
    add(datapath, persistent(at, 400), [11, 12])
    host.udp('10.1.0.1:1000', '10.9.0.1:53')
    host.age(310)
    sound(t, datapath, { connections: 0, templates: 1 })
    host.age(85)
    sound(t, datapath, { connections: 0, templates: 1 })
    host.age(10)
    sound(t, datapath, { connections: 0, templates: 0 })
    t.equal(datapath.table.service(keyOf(at))?.servers[1]?.persistent, 0)
  })

  await t.test('one that is over is not used before it is swept', async (t) => {
    datapath.clear()
    add(datapath, persistent(at, 400), [11, 12])
    host.udp('10.1.0.1:1000', '10.9.0.1:53')
    host.age(310)
    datapath.expire(0)
    t.equal(Host.server(host.udp('10.1.0.1:1001', '10.9.0.1:53')), '10.2.0.11:8011', 'the next server in turn')
    datapath.handles.sweep()
    sound(t, datapath, { connections: 1, templates: 1 })
  })

  await t.test('no packet is taken for one of a template', async (t) => {
    datapath.clear()
    add(datapath, persistent(at), [11])
    host.udp('10.1.0.1:1000', '10.9.0.1:53')
    const packet = datagram({ leg: 'from server', from: '10.2.0.11:8011', to: '10.1.0.1:0' })
    const out = datapath.run({ at: 'ingress', side: 'servers', packet })
    t.equal(out.action, 'pass')
    host.udp('10.1.0.1:0', '10.9.0.1:53')
    sound(t, datapath, { connections: 2, templates: 1 })
  })
}

const failures = async (t: Test, datapath: Datapath) => {
  const host = new Host(datapath, { xdp: false })
  const at = 'udp 10.9.0.1:53'

  await t.test('a connection that cannot be added is not counted by its template', async (t) => {
    datapath.clear()
    add(datapath, persistent(at), [11])
    host.udp('10.1.0.1:1000', '10.9.0.1:53')
    // The template's line stays open; so does that of the connection, which another port may have, too.
    for (let line = 0; line < datapath.lines.length; line++) {
      const used = [0, 1, 2, 3, 4, 5, 6].some((slot) => datapath.lines.slot(line, slot) !== 0n)
      if (!used) datapath.lines.setLock(line, 1)
    }
    for (let port = 2000; port < 2020; port++) host.udp(`10.1.0.1:${port}`, '10.9.0.1:53')
    lockLines(datapath, 0)
    t.ok((datapath.verdicts().DROP_BUSY ?? 0) >= 19, 'they were dropped')
    t.same(tableShape(datapath).problems, [])
  })

  await t.test('a template whose line stays locked costs the packet, and nothing else', async (t) => {
    datapath.clear()
    add(datapath, persistent(at), [11])
    lockLines(datapath, 1)
    t.equal(host.udp('10.1.0.1:1000', '10.9.0.1:53').at, 'nobody')
    lockLines(datapath, 0)
    t.same(datapath.verdicts(), { DROP_BUSY: 1 })
    sound(t, datapath, { connections: 0, templates: 0 })
  })
}

const spilling = async (t: Test, datapath: Datapath) => {
  for (const family of [4, 6] as const) {
    await t.test(`a client has templates for 60 services (IPv${family})`, async (t) => {
      datapath.clear()
      const host = new Host(datapath, { xdp: false })
      const client = (port: number) => (family === 4 ? `10.1.0.1:${port}` : `[fd00:1::1]:${port}`)
      const vip = (n: number) => (family === 4 ? `10.9.1.${n}:53` : `[fd00:9::${n}]:53`)
      const all = Array.from({ length: 60 }, (_, i) => i + 1)
      const specs = all.map((n) => persistent(`udp ${vip(n)}`))
      for (const spec of specs) add(datapath, spec, [11, 12, 13])
      const ask = (port: number) => all.map((n) => Host.server(host.udp(client(port + n), vip(n))))
      const first = ask(1000)
      t.same(ask(2000), first, 'all are found again')
      sound(t, datapath, { connections: 120, templates: 60 })
      t.ok(tableShape(datapath).spilled > 40, "most of them outside of their client's line")
      for (const spec of specs) datapath.table.deleteServer(spec.key, serverOf(spec, 13))
      const second = ask(3000)
      t.not(second.join(), first.join())
      t.same(ask(4000), second, 'void ones are not found')
      sound(t, datapath, { connections: 240, templates: 60 + first.filter((each) => each?.endsWith('8013')).length })
      host.age(700)
      sound(t, datapath, { connections: 0, templates: 0 })
    })
  }
}

/** Random clients, edits and hours; the table has to be sound all along, and empty at the end. */
async function randomLives(t: Test, datapath: Datapath, steps: number): Promise<void> {
  datapath.clear()
  const pick = random(seed)
  const among = <T>(list: readonly T[]): T => list[pick(list.length)] as T
  const specs = [
    persistent('tcp 10.9.0.1:80', 60, '255.255.255.252'),
    persistent('udp 10.9.0.1:53', 5),
    persistent('tcp 10.9.0.2:21', 100),
    persistent('udp [fd00:9::1]:53', 400, 125),
    persistent('tcp 10.9.0.3:0', 30),
    { ...persistent('udp 10.9.0.4:53', 20), onePacket: true },
  ]
  for (const spec of specs) add(datapath, spec, [11, 12, 13])
  const host = new Host(datapath, { xdp: false })
  const actions: (() => void)[] = [
    () => host.age(among([1, 2, 10, 61, 130])),
    () => {
      const { key } = among(specs)
      const servers = datapath.table.service(key)?.servers ?? []
      if (servers.length > 1) datapath.table.deleteServer(key, among(servers))
    },
    () => {
      const spec = among(specs)
      const server = serverOf(spec, among([11, 12, 13]))
      const is = datapath.table.service(spec.key)?.servers.some((each) => each.address === server.address) === true
      if (is) datapath.table.editServer(spec.key, { ...server, weight: pick(3), upper: pick(4) })
      else datapath.table.addServer(spec.key, server)
    },
    () => datapath.maps.config.setExpireQuiescentTemplate(0, pick(2)),
    () => {
      const { persistence, ...plain } = among(specs)
      if (persistence === undefined) return
      const keep = pick(3) > 0 || (plain.key.kind === 'address' && plain.key.port === 0)
      datapath.table.editService(keep ? { ...plain, persistence } : plain)
    },
  ]
  const speak = (): void => {
    const { key } = among(specs)
    if (key.kind !== 'address') return
    const four = key.family === 4
    const client = `${four ? `10.1.0.${1 + pick(9)}` : `[fd00:1::${1 + pick(9)}]`}:${1000 + pick(20)}`
    const virtual = `${four ? key.address : `[${key.address}]`}:${key.port === 0 ? 80 + pick(3) : key.port}`
    if (key.protocol === 'udp') {
      const server = Host.server(host.udp(client, virtual))
      if (server !== undefined && pick(2) > 0) host.answer(server, client)
      return
    }
    const server = Host.server(host.tcp('c:S', { client, virtual, server: '' }))
    if (server === undefined) return
    for (const event of among([[], ['s:SA', 'c:A'], ['s:SA', 'c:A', 'c:FA', 's:FA', 'c:A'], ['s:SA', 'c:R']])) {
      host.tcp(event, { client, virtual, server })
    }
  }
  for (let step = 0; step < steps; step++) {
    if (pick(8) > 0) speak()
    else among(actions)()
    const problems = lasting(datapath)
    if (problems.length > 0) {
      t.fail(`step ${step}: ${problems.join('; ')}`)
      return
    }
  }
  t.ok(tableShape(datapath).templates > 0, 'there are templates at the end')
  host.age(2000)
  sound(t, datapath, { connections: 0, templates: 0 })
}

t.test('templates', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t, { connections: 2048 })
  await t.test('live as long as they should', (t) => lives(t, datapath))
  await t.test('count no connection that is not there', (t) => failures(t, datapath))
  await t.test('overflow a line', (t) => spilling(t, datapath))
  await t.test(`are counted right over random lives (BPVS_LIVES_SEED=${seed})`, (t) => randomLives(t, datapath, 1500))
})
