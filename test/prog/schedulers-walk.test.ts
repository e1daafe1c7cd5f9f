/** Schedulers that look at every server: thousands of servers, and the distribution of the one that draws. */
import t, { type Test } from 'tap'
import { LbBypassMode, LbServerStateFlag } from '../../src/abi/generated.ts'
import type { Scheduler, ServerSpec, ServiceKey } from '../../src/model/types.ts'
import { real, virtual } from '../helpers/director.ts'
import { MemoModel } from '../helpers/memo-model.ts'
import { Datapath } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { type Candidate, choose, walkSchedulers } from '../helpers/scheduler-model.ts'
import { seeded } from '../helpers/table-specs.ts'
import { needsRoot } from '../helpers/topology.ts'

const web = virtual('10.9.0.1', 80)
const dns = virtual('10.9.0.1', 53, 'udp')

/** Server 10.2.<n> of a service. */
function serverOf(n: number, weight = 1): ServerSpec {
  return real(`10.2.${n >> 8}.${n & 255}`, 8080, weight)
}

function fill(datapath: Datapath, key: ServiceKey, scheduler: Scheduler, servers: readonly ServerSpec[]): void {
  datapath.clear()
  datapath.maps.config.setBypass(0, LbBypassMode.BYPASS_ALWAYS)
  const service = { key, scheduler, schedulerFlags: [], onePacket: key.kind === 'address' && key.protocol === 'udp' }
  datapath.table.apply('command', [{ service, servers }])
}

/** Sets what the datapath counted for a server. */
function setState(datapath: Datapath, id: number, { active, inactive, overload }: Omit<Candidate, 'name' | 'weight'>) {
  const { serverStates } = datapath.maps
  serverStates.setActive(id, active)
  serverStates.setInactive(id, inactive)
  serverStates.setFlags(id, overload ? LbServerStateFlag.SERVER_OVERLOAD : 0)
}

const nameOf = ({ address, port }: { readonly address: string; readonly port: number }): string => `${address}:${port}`

/** The servers of the only service, in the order of the list, each with some load or none. */
function burden(datapath: Datapath, random: (limit: number) => number): Candidate[] {
  return (datapath.table.services()[0]?.servers ?? []).map(({ id, address, port, weight }) => {
    const busy = { active: 1 + random(6), inactive: random(300), overload: random(5) === 0 }
    setState(datapath, id, busy)
    return { name: nameOf({ address, port }), weight, ...busy }
  })
}

/** Opens connections one by one, each from a client of its own; says where the datapath and a model differ. */
function compare(host: Host, subnet: number, choose: () => Candidate | undefined): string[] {
  const differences: string[] = []
  for (let n = 0; n < 40; n++) {
    const flow = { client: `10.1.${subnet}.${n + 1}:1000`, virtual: '10.9.0.1:80', server: '' }
    const got = Host.server(host.tcp('c:S', flow))
    const expected = choose()
    if (got !== expected?.name) differences.push(`${n}: ${got}, not ${expected?.name}`)
  }
  return differences
}

/** What chooses among these servers, and counts what it chose. */
function judge(scheduler: Scheduler, servers: readonly Candidate[]): () => Candidate | undefined {
  if (scheduler === 'lblc' || scheduler === 'lblcr') {
    const model = new MemoModel(scheduler)
    model.servers.push(...servers.map((server) => ({ ...server, upper: 0, listed: true })))
    return () => model.connect('10.9.0.1')
  }
  const walk = walkSchedulers.find((name) => name === scheduler)
  if (walk === undefined) throw new Error(`no model of ${scheduler}`)
  return () => {
    const server = choose(walk, servers)
    if (server !== undefined) server.active++
    return server
  }
}

t.test('a service of thousands of servers', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t, { servers: 16384, cells: 16384 })
  const host = new Host(datapath, { xdp: true })
  for (const count of [4096, 10_000]) {
    const random = seeded(count)
    const servers = Array.from({ length: count }, (_, n) => serverOf(n, random(8) === 0 ? 0 : 1 + random(2 ** 20)))
    fill(datapath, web, 'rr', servers)
    for (const [n, scheduler] of [...walkSchedulers, 'lblc' as const, 'lblcr' as const].entries()) {
      await t.test(`${scheduler} chooses exactly among ${count} servers of any weight and load`, async (t) => {
        datapath.table.editService({ key: web, scheduler, schedulerFlags: [], onePacket: false })
        const candidates = burden(datapath, random)
        t.equal(candidates.length, count)
        t.same(compare(host, n, judge(scheduler, candidates)), [])
      })
    }
    await t.test(`nq finds the only idle one of ${count} servers, the last of the list`, async (t) => {
      datapath.table.editService({ key: web, scheduler: 'nq', schedulerFlags: [], onePacket: false })
      burden(datapath, random)
      const last = datapath.table.services()[0]?.servers.findLast(({ weight }) => weight > 0)
      setState(datapath, last?.id ?? 0, { active: 0, inactive: 0, overload: false })
      const flow = { client: '10.1.100.1:1000', virtual: '10.9.0.1:80', server: '' }
      t.equal(Host.server(host.tcp('c:S', flow)), `${last?.address}:${last?.port}`)
    })
    await t.test(`rr and wrr find their next among ${count} servers`, async (t) => {
      const names = (datapath.table.services()[0]?.servers ?? []).filter(({ weight }) => weight > 0).map(nameOf)
      for (const { id } of datapath.table.services()[0]?.servers ?? []) {
        setState(datapath, id, { active: 0, inactive: 0, overload: false })
      }
      datapath.table.editService({ key: web, scheduler: 'rr', schedulerFlags: [], onePacket: false })
      const got = Array.from({ length: 300 }, (_, n) => {
        const flow = { client: `10.1.${110 + (n >> 8)}.${n & 255}:1000`, virtual: '10.9.0.1:80', server: '' }
        return Host.server(host.tcp('c:S', flow))
      })
      t.strictSame(got, names.slice(0, 300))
      datapath.table.editService({ key: web, scheduler: 'wrr', schedulerFlags: [], onePacket: false })
      const heaviest = datapath.table.services()[0]?.servers.reduce((one, two) => (two.weight > one.weight ? two : one))
      const flow = { client: '10.1.200.1:1000', virtual: '10.9.0.1:80', server: '' }
      t.equal(Host.server(host.tcp('c:S', flow)), heaviest && nameOf(heaviest))
    })
    await t.test(`twos draws from all of ${count} servers`, async (t) => {
      const equal = Array.from({ length: count }, (_, n) => serverOf(n))
      fill(datapath, dns, 'twos', equal)
      const drawn = Array.from({ length: 200 }, () => draw(host))
      const half = drawn.filter((name) => Number(name.split('.')[2]) < count / 512).length
      t.ok(half > 50 && half < 150, `${half} of 200 are of the list's second half`)
    })
  }
})

/** The server of a datagram that leaves no connection. */
function draw(host: Host): string {
  return Host.server(host.udp('10.1.0.1:1000', '10.9.0.1:53')) ?? 'nobody'
}

interface Row {
  readonly name: string
  /** From the head of the list on: weight, and load. */
  readonly servers: readonly (readonly [weight: number, active: number, overload?: true])[]
  /** How often each is chosen. */
  readonly shares: readonly number[]
}

const rows: readonly Row[] = [
  {
    name: 'idle servers are chosen by weight, the head of the list by one more',
    servers: [
      [1, 0],
      [2, 0],
      [5, 0],
    ],
    shares: [2 / 9, 2 / 9, 5 / 9],
  },
  {
    name: 'a busy server is chosen only if both draws meet it',
    servers: [
      [1, 9],
      [1, 0],
    ],
    shares: [4 / 9, 5 / 9],
  },
  {
    name: 'busy is who has more connections for its weight',
    servers: [
      [10, 10],
      [4, 8],
    ],
    shares: [1 - (4 / 15) ** 2, (4 / 15) ** 2],
  },
  {
    name: 'overloaded and quiesced servers are not drawn, nor do their weights count',
    servers: [
      [0, 0],
      [7, 0, true],
      [2, 0],
      [3, 0],
    ],
    shares: [0, 0, 3 / 6, 3 / 6],
  },
]

const DRAWS = 6000
/** Standard deviations: a sound scheduler is beyond them once in a thousand million runs. */
const FAR = 6

function checkShares(t: Test, host: Host, row: Row): void {
  const counts = new Map<string, number>()
  for (let n = 0; n < DRAWS; n++) {
    const name = draw(host)
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  for (const [n, share] of row.shares.entries()) {
    const count = counts.get(`10.2.0.${n + 1}:8080`) ?? 0
    const bound = FAR * Math.sqrt(DRAWS * share * (1 - share))
    t.ok(Math.abs(count - DRAWS * share) <= bound, `server ${n + 1}: ${count}, about ${Math.round(DRAWS * share)}`)
  }
  t.equal(counts.get('nobody'), undefined)
}

t.test('twos: the better of two draws by weight', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const host = new Host(datapath, { xdp: false })
  for (const row of rows) {
    await t.test(row.name, async (t) => {
      const servers = row.servers.map(([weight], n) => serverOf(n + 1, weight)).reverse()
      fill(datapath, dns, 'twos', servers)
      for (const [n, { id }] of (datapath.table.services()[0]?.servers ?? []).entries()) {
        const [, active = 0, overload = false] = row.servers[n] ?? []
        setState(datapath, id, { active, inactive: 0, overload })
      }
      checkShares(t, host, row)
    })
  }
  await t.test('nobody is left to draw: refused', async (t) => {
    fill(datapath, dns, 'twos', [serverOf(1, 0)])
    t.equal(draw(host), 'nobody')
    t.same(datapath.verdicts(), { REFUSE_NO_SERVER: 1 })
  })
})
