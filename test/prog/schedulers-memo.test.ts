/** lblc and lblcr remember: what they do with it while a service changes, how it ends, what it holds on to. */
import t, { type Test } from 'tap'
import { LbBypassMode, LbMemoArray, LbMemoPoolArray } from '../../src/abi/generated.ts'
import type { Scheduler, ServerSpec, ServiceKey } from '../../src/model/types.ts'
import { real } from '../helpers/director.ts'
import { type Known, MemoModel } from '../helpers/memo-model.ts'
import { Datapath } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { seeded } from '../helpers/table-specs.ts'
import { needsRoot } from '../helpers/topology.ts'

const marked: ServiceKey = { kind: 'fwmark', family: 4, mark: 7 }
const addresses = ['10.9.0.1', '10.9.0.2', '10.9.0.3', '10.9.7.7']

function serverOf(n: number, weight = 1, upper = 0): ServerSpec {
  return { ...real(`10.2.0.${n}`, 80, weight), upper }
}

const nameOf = ({ address, port }: ServerSpec): string => `${address}:${port}`

/** A service by mark, so that packets to any address are its. */
class World {
  readonly datapath: Datapath
  readonly host: Host
  #clients = 0

  constructor(datapath: Datapath, scheduler: Scheduler, servers: readonly ServerSpec[] = []) {
    datapath.clear()
    datapath.maps.config.setBypass(0, LbBypassMode.BYPASS_ALWAYS)
    this.datapath = datapath
    this.host = new Host(datapath, { xdp: false })
    this.host.markOf = (to) => (to.startsWith('10.9.') ? 7 : 0)
    datapath.table.apply('command', [{ service: this.#spec(scheduler), servers }])
  }

  #spec(scheduler: Scheduler) {
    return { key: marked, scheduler, schedulerFlags: [], onePacket: false }
  }

  /** Another scheduler, or a mere edit. */
  setScheduler(scheduler: Scheduler): void {
    this.datapath.table.editService(this.#spec(scheduler))
  }

  /** A connection from a client of its own; the server that it is established with. */
  connect(to: string): { server: string | undefined; close: () => void } {
    const n = this.#clients++
    const flow = { client: `10.1.${n >> 8}.${n & 255}:1000`, virtual: `${to}:80` }
    const server = Host.server(this.host.tcp('c:S', { ...flow, server: '' }))
    const open = { ...flow, server: server ?? '' }
    if (server !== undefined) for (const event of ['s:SA', 'c:A']) this.host.tcp(event, open)
    return { server, close: () => this.host.tcp('c:FA', open) }
  }

  get memos(): LbMemoArray {
    return new LbMemoArray(this.datapath.handles.buffer('lb_memos'))
  }

  get pool(): LbMemoPoolArray {
    return new LbMemoPoolArray(this.datapath.handles.buffer('lb_memo_pool'))
  }

  /** Records that are entries. */
  entries(): number[] {
    const { memos } = this
    return Array.from({ length: this.pool.high(0) }, (_, i) => i + 1).filter((id) => memos.service(id) !== 0)
  }

  /** Servers of an entry, the newest first. */
  members(entry: number): number[] {
    const { memos } = this
    const found: number[] = []
    for (let id = entry; id !== 0; id = memos.more(id)) {
      for (let k = memos.count(id) - 1; k >= 0; k--) found.push(memos.server(id, k))
    }
    return found
  }

  /** Where counts and records disagree. */
  problems(): string[] {
    const { maps } = this.datapath
    const { memos } = this
    const counts = new Map<number, number>()
    let records = 0
    for (const entry of this.entries()) {
      for (let id = entry; id !== 0; id = memos.more(id)) records++
      for (const id of this.members(entry)) counts.set(id, (counts.get(id) ?? 0) + 1)
    }
    const found = records === this.pool.used(0) ? [] : [`${records} records are used, not ${this.pool.used(0)}`]
    for (let id = 1; id < maps.book.serverHigh(0); id++) {
      const [is, due] = [maps.serverStates.memos(id), counts.get(id) ?? 0]
      if (is !== due) found.push(`server ${id} is remembered ${due} times and counts ${is}`)
    }
    return found
  }
}

/** A game of random edits and connections, played by the model and by the datapath. */
class Game {
  readonly world: World
  readonly model: MemoModel
  readonly #scheduler: 'lblc' | 'lblcr'
  readonly #random: (limit: number) => number
  #open: { readonly server: Known; readonly close: () => void }[] = []

  constructor(datapath: Datapath, scheduler: 'lblc' | 'lblcr', seed: number) {
    this.world = new World(datapath, scheduler)
    this.model = new MemoModel(scheduler)
    this.#scheduler = scheduler
    this.#random = seeded(seed)
  }

  /** Opens a connection; undefined if it went where the model's did. */
  connect(): string | undefined {
    const address = addresses[this.#random(addresses.length)] ?? ''
    const { server, close } = this.world.connect(address)
    const expected = this.model.connect(address)
    if (server !== expected?.name) return `${address}: to ${server}, not ${expected?.name}`
    if (expected !== undefined) {
      this.#open.push({ server: expected, close })
    }
    return undefined
  }

  /** Changes something: mostly a server. */
  change(): void {
    const random = this.#random
    const spec = serverOf(1 + random(9), random(4) === 0 ? 0 : 1 + random(4), random(3) === 0 ? 1 + random(5) : 0)
    const server = this.model.servers.find(({ name }) => name === nameOf(spec))
    const what = random(14)
    if (what < 8) this.#changeServer(spec, server, what < 3)
    else if (what === 8 && random(3) === 0) this.#reschedule()
    else if (what === 9 && random(3) === 0) this.#settle()
    else this.#closeSome()
  }

  #changeServer(spec: ServerSpec, server: Known | undefined, remove: boolean): void {
    const { table } = this.world.datapath
    if (server === undefined) {
      table.addServer(marked, spec)
      this.model.add(nameOf(spec), spec.weight, spec.upper)
    } else if (remove) {
      table.deleteServer(marked, spec)
      this.model.remove(server)
    } else {
      table.editServer(marked, spec)
      this.model.edit(server, spec.weight, spec.upper)
    }
  }

  #reschedule(): void {
    this.world.setScheduler('rr')
    this.world.setScheduler(this.#scheduler)
    this.model.forget()
  }

  #settle(): void {
    this.world.host.age(100_000)
    this.model.settle()
    this.#open = []
  }

  /** A removed server's connections go on as they are: their packets are dropped. */
  #closeSome(): void {
    this.#open = this.#open.filter(({ server, close }) => {
      if (!server.listed || this.#random(3) !== 0) return true
      close()
      server.active--
      server.inactive++
      return false
    })
  }
}

const GAMES = 12
const MOVES = 150

async function playGames(t: Test, datapath: Datapath, scheduler: 'lblc' | 'lblcr'): Promise<void> {
  for (let seed = 1; seed <= GAMES; seed++) {
    const game = new Game(datapath, scheduler, seed)
    const differences: string[] = []
    for (let move = 0; move < MOVES && differences.length === 0; move++) {
      game.change()
      for (let n = 0; n < 3; n++) {
        const difference = game.connect()
        if (difference !== undefined) differences.push(`move ${move}: ${difference}`)
      }
    }
    t.same(differences, [], `game ${seed}: every choice is the model's`)
    datapath.handles.sweep()
    t.same(game.world.problems(), [], `game ${seed}: the servers count who remembers them`)
  }
}

/** Servers that an address is remembered with, by name, the newest first. */
function remembered(world: World): string[] {
  const [entry = 0] = world.entries()
  return world.members(entry).map((id) => {
    const [server] = world.datapath.table.services()[0]?.servers.filter((each) => each.id === id) ?? []
    return server?.address ?? 'removed'
  })
}

t.test('lblc and lblcr', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const { maps, table, handles } = datapath
  const ticks = (seconds: number): number => Math.ceil((seconds * handles.rodata.hz) / 2 ** handles.rodata.tickShift)

  for (const scheduler of ['lblc', 'lblcr'] as const) {
    await t.test(`${scheduler} chooses as the model in random games`, (t) => playGames(t, datapath, scheduler))

    await t.test(`${scheduler} forgets an address that was not used for a day, and no sooner`, async (t) => {
      const world = new World(datapath, scheduler, [serverOf(1), serverOf(2)])
      for (const address of addresses) world.connect(address)
      const [old = 0, young = 0] = world.entries()
      world.memos.setUsed(old, (datapath.tick() - ticks(86_400) - 10) >>> 0)
      world.memos.setUsed(young, (datapath.tick() - ticks(86_400) + 100) >>> 0)
      handles.sweep()
      t.equal(world.entries().length, addresses.length - 1)
      t.ok(world.entries().includes(young))
      t.same(world.problems(), [])
    })

    await t.test(`${scheduler} forgets all when the scheduler is changed or the service deleted`, async (t) => {
      const world = new World(datapath, scheduler, [serverOf(1), serverOf(2)])
      world.connect('10.9.0.1')
      world.setScheduler(scheduler)
      handles.sweep()
      t.equal(world.entries().length, 1, 'an edit with the same scheduler is no change')
      world.setScheduler('rr')
      handles.sweep()
      t.same(world.entries(), [])
      world.setScheduler(scheduler)
      world.connect('10.9.0.1')
      table.deleteService(marked)
      handles.sweep()
      t.same(world.entries(), [])
      t.equal(world.pool.used(0), 0)
      t.same(world.problems(), [])
    })

    await t.test(
      `${scheduler}: a removed server is kept as long as it is remembered, and is known again`,
      async (t) => {
        const world = new World(datapath, scheduler, [serverOf(1)])
        world.connect('10.9.0.1')
        const id = table.services()[0]?.servers[0]?.id ?? 0
        world.host.age(100_000)
        table.deleteServer(marked, serverOf(1))
        const longAgo = (): void => maps.servers.setRemoved(id, maps.servers.removed(id) - 200)
        longAgo()
        table.addServer(marked, serverOf(2))
        longAgo()
        table.addServer(marked, serverOf(1))
        table.editServer(marked, serverOf(2, 5))
        t.equal(table.services()[0]?.servers.find(({ address }) => address === '10.2.0.1')?.id, id, 'the same record')
        t.equal(world.connect('10.9.0.1').server, '10.2.0.1:80', 'not the one with the greater weight')
      },
    )

    await t.test(`${scheduler}: what is remembered of removed servers goes before the table is full`, async (t) => {
      const all = Array.from({ length: maps.serverMax - 1 }, (_, n) => real(`10.2.${n >> 8}.${n & 255}`, 80))
      const world = new World(datapath, scheduler, all)
      const address = table.services()[0]?.servers[0]?.address ?? ''
      world.connect('10.9.0.1')
      world.host.age(100_000)
      table.deleteServer(marked, real(address, 80))
      t.ok(table.addServer(marked, real('10.2.200.1', 80)) === undefined, 'takes its id')
      t.same(world.entries(), [])
    })
  }

  await t.test('lblcr: a set that was left alone for a day loses its most loaded server', async (t) => {
    const world = new World(
      datapath,
      'lblcr',
      [1, 2, 3, 4, 5, 6, 7].map((n) => serverOf(n)),
    )
    for (let n = 0; n < 20; n++) world.connect('10.9.0.1')
    const before = remembered(world)
    t.equal(before.length, 7, 'busy servers made the set grow to all')
    const [entry = 0] = world.entries()
    const leaves: string[] = []
    for (let size = before.length; size > 1; size--) {
      const busiest = before.filter((address) => !leaves.includes(address)).at(-size) ?? ''
      const id = table.services()[0]?.servers.find(({ address }) => address === busiest)?.id ?? 0
      maps.serverStates.setInactive(id, 100_000)
      leaves.push(busiest)
      world.memos.setChanged(entry, (datapath.tick() - ticks(86_400) + 100) >>> 0)
      world.connect('10.9.0.1')
      t.equal(remembered(world).length, size, 'not yet')
      world.memos.setChanged(entry, (datapath.tick() - ticks(86_400) - 10) >>> 0)
      world.connect('10.9.0.1')
      t.same(
        remembered(world),
        before.filter((address) => !leaves.includes(address)),
        `${busiest} is gone, the others are in order`,
      )
      t.same(world.problems(), [])
      maps.serverStates.setInactive(id, 0)
    }
    world.memos.setChanged(entry, (datapath.tick() - ticks(86_400) - 10) >>> 0)
    world.connect('10.9.0.1')
    t.equal(remembered(world).length >= 1, true, 'the last one stays')
  })

  await t.test('with no room to remember, connections are scheduled all the same, and it is counted', async (t) => {
    const world = new World(datapath, 'lblc', [serverOf(1), serverOf(2)])
    const room = world.memos.length - 1
    for (let n = 0; n < room + 5; n++) t.ok(world.connect(`10.9.${n >> 8}.${n & 255}`).server, 'got a server')
    t.same(datapath.verdicts(), { MEMO_FULL: 5 })
    t.equal(world.entries().length, room)
    for (const id of world.entries().slice(0, 100)) world.memos.setUsed(id, (datapath.tick() - ticks(361)) >>> 0)
    handles.sweep()
    t.equal(world.entries().length, room - 100, 'where little room is left, six minutes are enough')
    t.ok(world.connect('10.9.100.1').server)
    t.same(datapath.verdicts(), { MEMO_FULL: 5 })
    t.same(world.problems(), [])
  })
})
