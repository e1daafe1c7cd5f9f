/**
 * A hundred thousand requests while the table is edited all the time: none is lost but those that were open on a server
 * which was removed without warning, and the counters of the listing add up.
 */
import { setTimeout as pace } from 'node:timers/promises'
import t from 'tap'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import type { ServerView, ServiceKey } from '../../src/model/types.ts'
import { Accounting, type Traffic } from '../helpers/accounting.ts'
import { applyChange, type Change, type Edit, Restless } from '../helpers/churn.ts'
import { Director, endpoint, real, service, total, virtual } from '../helpers/director.ts'
import { Swarm, type SwarmResult } from '../helpers/swarm.ts'
import { needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const clients = 8
const edited = [virtual('10.96.0.1', 80), virtual('fd00:96::1', 80)] as const
/** The service that bpvsadm edits, while the engine edits the others. */
const commanded = virtual('10.96.0.2', 8000)
const keys: readonly ServiceKey[] = [...edited, commanded]
const targets = [
  { address: '10.96.0.1', port: 80 },
  { address: 'fd00:96::1', port: 80 },
  { address: '10.96.0.2', port: 8000 },
]

class Scene {
  readonly net: TestNet
  readonly director: Director
  readonly table: ReconcilingTable
  readonly restless: readonly Restless[]
  readonly edits: Partial<Record<Edit | 'by bpvsadm' | 'without warning', number>> = {}
  readonly witnesses: readonly Accounting[]

  private constructor(net: TestNet, director: Director, table: ReconcilingTable, witnesses: readonly Accounting[]) {
    this.net = net
    this.director = director
    this.table = table
    this.witnesses = witnesses
    this.restless = keys.map((key, n) => new Restless(key, this.#servers(key), 7 + n))
    for (const key of keys) {
      table.addService(service(key, 'wlc'))
      for (const server of this.#servers(key).slice(0, 3)) table.addServer(key, server)
    }
  }

  static async make(t: Tap): Promise<Scene> {
    const net = await topology(t, { clients, servers: 6, serve: ['http'] })
    const flows = targets.map((target) => ({ ...target, protocol: 'tcp' as const }))
    const witnesses = await Promise.all(net.clients.map(({ name }) => Accounting.start(net.topology, name, flows)))
    const director = new Director(net.topology)
    const table = director.open()
    t.teardown(async () => table.close())
    return new Scene(net, director, table, witnesses)
  }

  #servers(key: ServiceKey): ReturnType<typeof real>[] {
    return this.net.servers.map(({ ipv4, ipv6 }) => real(key.family === 4 ? ipv4 : ipv6, ports.http))
  }

  listed(key: ServiceKey): readonly ServerView[] {
    return this.table.service(key)?.servers ?? []
  }

  count(edit: Edit | 'by bpvsadm' | 'without warning'): void {
    this.edits[edit] = (this.edits[edit] ?? 0) + 1
  }

  /** Sums over clients of what went to each service and came from it. */
  async witnessed(): Promise<Traffic[]> {
    const all = await Promise.all(this.witnesses.map((witness) => witness.read()))
    return keys.map((_, n) => total(all.map((flows) => ({ conns: 0n, ...flows[n]! }))))
  }
}
type Tap = Parameters<typeof topology>[0]

/** Edits through the engine, without a pause but for the others' turns. */
async function editByEngine({ table, restless, listed, count }: Bound, swarm: Swarm): Promise<void> {
  while (swarm.running) {
    for (const each of restless.filter(({ key }) => key !== commanded)) {
      const change = each.next(listed(each.key))
      if (change === undefined) continue
      applyChange(table, each.key, change)
      count(change.edit)
    }
    await pace(2)
  }
}

function commandOf(change: Change): string {
  const target = `-t ${endpoint({ address: '10.96.0.2', port: 8000 })}`
  if (change.edit === 'rescheduled') return `-E ${target} -s ${change.scheduler}`
  const server = `${target} -r ${endpoint(change.server)}`
  if (change.edit === 'removed') return `-d ${server}`
  return `${change.edit === 'added' ? '-a' : '-e'} ${server} -m -w ${change.server.weight}`
}

/** Edits by one bpvsadm after the other, each a process that opens the table anew. */
async function editByCommand({ director, restless, listed, count }: Bound, swarm: Swarm): Promise<void> {
  const hand = restless.find(({ key }) => key === commanded)
  while (swarm.running && hand !== undefined) {
    const change = hand.next(listed(commanded))
    if (change !== undefined) {
      await director.must(commandOf(change))
      count('by bpvsadm')
    }
    await pace(2)
  }
}

/** A scene whose methods may be taken off it. */
type Bound = ReturnType<typeof bound>
function bound(scene: Scene) {
  const { director, table, restless } = scene
  return { director, table, restless, listed: scene.listed.bind(scene), count: scene.count.bind(scene) }
}

/** Connections that were on a server when it was removed without warning, as "client port". */
class Doomed {
  readonly names = new Set<string>()
  readonly #scene: Scene
  readonly #clients: ReadonlyMap<string, string>

  constructor(scene: Scene) {
    this.#scene = scene
    this.#clients = new Map(scene.net.clients.flatMap(({ name, ipv4, ipv6 }) => [[ipv4, name] as const, [ipv6, name]]))
  }

  /** Removes a server that works, and notes whose connections it had. */
  remove(hand: Restless): boolean {
    const { table } = this.#scene
    const victim = hand.victim(this.#scene.listed(hand.key))
    if (victim === undefined) return false
    table.deleteServer(hand.key, victim)
    for (const { client, virtual, server, state } of table.connections()) {
      if (hand.key.kind !== 'address' || virtual.address !== hand.key.address) continue
      if (state === 'TIME_WAIT' || state === 'CLOSE') continue
      if (server.address === victim.address) this.names.add(`${this.#clients.get(client.address)} ${client.port}`)
    }
    this.#scene.count('without warning')
    return true
  }
}

async function checkSums(
  t: Pick<typeof import('tap').default, 'equal' | 'ok' | 'same'>,
  scene: Scene,
  result: SwarmResult,
): Promise<void> {
  const { table, director } = scene
  const counters = () => keys.map((key) => table.service(key)!.counters)
  const inPkts = (all: readonly { readonly inPkts: bigint }[]) => all.reduce((sum, each) => sum + each.inPkts, 0n)
  // Clients whose server is gone send again and again, so the two are compared as of one moment.
  let [dropped, listed, witnessed] = [0n, counters(), await scene.witnessed()]
  await waitFor(
    'the packets that the clients sent to be those that were counted',
    async () => {
      dropped = BigInt(director.verdict('DROP_SERVER_GONE'))
      listed = counters()
      witnessed = await scene.witnessed()
      return inPkts(listed) + dropped === inPkts(witnessed)
    },
    30_000,
  ).catch(() => {})
  t.equal(total(listed).conns, BigInt(result.connections), 'every connection is counted once')
  t.equal(total(listed).inPkts + dropped, inPkts(witnessed), 'packets in, and those for a server that is gone')
  for (const [n, key] of keys.entries()) {
    const [ours, theirs] = [listed[n]!, witnessed[n]!]
    const name = JSON.stringify(key)
    t.ok(ours.conns > 0n && ours.inBytes > ours.inPkts * 40n && ours.outBytes > ours.outPkts * 40n, name)
    t.ok(ours.inPkts <= theirs.inPkts && ours.inBytes <= theirs.inBytes, `${name}: in, no more than was sent`)
    t.ok(ours.outPkts <= theirs.outPkts && ours.outBytes <= theirs.outBytes, `${name}: out, no more than came`)
    // What a server says while it is in the trash is delivered but not counted, as in ip_vs_out_stats().
    t.ok(theirs.outPkts - ours.outPkts <= BigInt(3 * result.failures.length) + theirs.outPkts / 50n, `${name}: out`)
  }
  const exact = await director.must('-Ln --stats --exact')
  for (const [n, target] of targets.entries()) {
    const { conns, inPkts, outPkts, inBytes, outBytes } = listed[n]!
    const line = exact.split('\n').find((each) => each.startsWith(`TCP  ${endpoint(target)} `))
    const numbers = [conns, inPkts, outPkts, inBytes, outBytes].map(String)
    t.same(line?.split(/ +/).slice(2), numbers, 'the listing says the same')
  }
  t.same(director.check(), [], 'the table is consistent')
  const served = await scene.net.counts('http')
  for (const { name } of scene.net.servers) {
    const [clientsSaw, serverSaw] = [result.servers[name] ?? 0, served[name]?.requests ?? 0]
    t.ok(clientsSaw > 0 && clientsSaw <= serverSaw, `${name} answered ${clientsSaw} of ${serverSaw} requests`)
    t.ok(serverSaw <= clientsSaw + result.failures.length, `${name} was asked nothing that nobody asked`)
  }
}

t.test(
  '80,000 requests, servers drained before they are removed: every one is answered',
  { skip: needsRoot },
  async (t) => {
    const scene = await Scene.make(t)
    const job = { targets, requests: 10_000, concurrency: 6, keptRequests: 6, timeoutMs: 30_000, firstPort: 2_000 }
    const swarm = new Swarm(t, scene.net, job)
    await Promise.all([editByEngine(bound(scene), swarm), editByCommand(bound(scene), swarm)])
    const result = await swarm.done
    t.comment(`edits: ${JSON.stringify(scene.edits)}; ${result.connections} connections`)
    t.equal(result.answered, 80_000)
    t.same(result.failures, [])
    for (const edit of ['added', 'reweighted', 'drained', 'removed', 'rescheduled', 'by bpvsadm'] as const) {
      t.ok((scene.edits[edit] ?? 0) >= 5, `${edit}: ${scene.edits[edit]} times`)
    }
    await checkSums(t, scene, result)
  },
)

t.test(
  '20,000 requests, some servers removed without warning: only requests on those are lost',
  { skip: needsRoot },
  async (t) => {
    const scene = await Scene.make(t)
    const doomed = new Doomed(scene)
    const job = { targets, requests: 2_500, concurrency: 6, keptRequests: 6, timeoutMs: 8_000, firstPort: 2_000 }
    const swarm = new Swarm(t, scene.net, job)
    const removals = async (): Promise<void> => {
      for (let n = 1; n <= 6; n++) {
        await waitFor('traffic', () => swarm.answered > n * 2_500 || !swarm.running, 120_000)
        await waitFor('a server to spare', () => !swarm.running || doomed.remove(scene.restless[n % 2]!))
      }
    }
    await Promise.all([editByEngine(bound(scene), swarm), editByCommand(bound(scene), swarm), removals()])
    const result = await swarm.done
    t.comment(`edits: ${JSON.stringify(scene.edits)}; ${result.failures.length} lost, ${doomed.names.size} were open`)
    t.equal(result.answered + result.failures.length, 20_000, 'every request is accounted for')
    t.equal(scene.edits['without warning'], 6)
    const others = result.failures.filter(({ client, port }) => !doomed.names.has(`${client} ${port}`))
    t.same(others, [], 'those that were not answered were open on a removed server')
    t.same([...new Set(result.failures.map(({ kind }) => kind))], ['TIMEOUT'], 'which drops silently, as IPVS does')
    await checkSums(t, scene, result)
  },
)
