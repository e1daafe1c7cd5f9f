/** Sync daemons as processes, and two directors that back each other up. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import t, { type Test } from 'tap'
import { must } from '../../src/lab/command.ts'
import { Host } from '../../src/lab/host.ts'
import { processesIn, sweepRuns } from '../../src/lab/namespaces.ts'
import { clientNetwork, serverNetwork, standardShape } from '../../src/lab/shape.ts'
import { Topology } from '../../src/lab/topology.ts'
import { runningDaemons } from '../../src/sync/control.ts'
import { bpvsadm, Director, real, service, virtual } from '../helpers/director.ts'
import { type Recording, readRecording, splitArguments } from '../helpers/recordings.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const patienceMs = 120_000
const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const families = ['ipv4', 'ipv6'] as const

/** "pid title" of the sync daemons in a namespace. */
function processes(topology: Topology, role: string): string[] {
  return processesIn([topology.nameOf(role)]).flatMap((pid) => {
    const title = titleOf(pid)
    return title?.startsWith('bpvs-sync-') ? [`${pid} ${title}`] : []
  })
}

/** Undefined: it has ended. */
function titleOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() || undefined
  } catch {
    return undefined
  }
}

interface Net {
  readonly topology: Topology
  readonly first: Director
  readonly second: Director
  readonly client: Host
  readonly servers: readonly Host[]
}

/** The usual network with a second director, 10.1.0.2, beside the first, which everybody's packets pass. */
async function twoDirectors(t: { teardown(handler: () => Promise<void>): void }): Promise<Net> {
  const names = ['server0', 'server1']
  const shape = standardShape(
    [{ name: 'client0', number: 11 }],
    names.map((name, i) => ({ name, number: 11 + i })),
  )
  const side = (network: typeof clientNetwork | typeof serverNetwork, bridge: string, name: string) =>
    [
      { namespace: 'director2', interface: name, addresses: [`${network.ipv4}2/24`, `${network.ipv6}2/64`] },
      { namespace: 'switch', interface: `${bridge}-up2`, bridge },
    ] as const
  const topology = new Topology({
    namespaces: [...shape.namespaces, { name: 'director2', forwarding: true }],
    links: [...shape.links, side(clientNetwork, 'clients', 'cl0'), side(serverNetwork, 'servers', 'sv0')],
  })
  const hosts: Host[] = []
  t.teardown(async () => {
    await Promise.all(hosts.map((host) => host.close()))
    await topology.close()
  })
  await sweepRuns()
  await topology.create()
  const start = async (name: string): Promise<Host> => {
    const host = await Host.start(name, topology.pathOf(name))
    hosts.push(host)
    return host
  }
  const client = await start('client0')
  const servers = await Promise.all(names.map(start))
  for (const [i, server] of servers.entries()) await server.call('serveEcho', { name: names[i] ?? '', port: 7000 })
  const net = {
    topology,
    first: new Director(topology),
    second: new Director(topology, 'director2'),
    client,
    servers,
  }
  for (const director of [net.first, net.second]) configure(t, director)
  return net
}

/** Echo services of both families on a director, with both servers. */
function configure(t: { teardown(handler: () => Promise<void>): void }, director: Director): void {
  const table = director.open()
  t.teardown(async () => table.close())
  for (const [vip, network] of [
    [vips.ipv4, serverNetwork.ipv4],
    [vips.ipv6, serverNetwork.ipv6],
  ] as const) {
    const key = virtual(vip, 7)
    table.addService(service(key))
    for (const number of [11, 12]) table.addServer(key, real(`${network}${number}`, 7000))
  }
}

/** From now on everybody's packets pass the director of that number. */
async function failOver({ topology }: Net, number: number): Promise<void> {
  for (const [role, network] of [
    ['client0', clientNetwork],
    ['server0', serverNetwork],
    ['server1', serverNetwork],
  ] as const) {
    for (const gateway of [network.ipv4, network.ipv6]) {
      await topology.must(role, 'ip', ['route', 'replace', 'default', 'via', `${gateway}${number}`])
    }
  }
}

function connections(director: Director): string[] {
  return director.table((table) =>
    Array.from(table.connections(), ({ state, client, server }) => `${state} ${client.port} ${server.address}`).sort(),
  )
}

t.test('a sync daemon', root, async (t) => {
  const topology = new Topology({
    namespaces: [{ name: 'director' }, { name: 'other' }],
    links: [
      [
        { namespace: 'director', interface: 'd0', addresses: ['10.254.1.1/30'] },
        { namespace: 'other', interface: 'd1' },
      ],
    ],
  })
  t.teardown(() => topology.close())
  await sweepRuns()
  await topology.create()
  const director = new Director(topology)
  await t.test('start, stop and listing answer as ipvsadm answered', (t) => replayed(t, topology, director))
  await t.test('it is listed as long as its process lives', (t) => killed(t, topology, director))
  await t.test('it does not keep a network namespace that nobody else uses', (t) => abandoned(t, topology, director))
})

async function replayed(t: Test, topology: Topology, director: Director): Promise<void> {
  const recording: Recording = readRecording('commands')
  const scenario = recording.scenarios.find(({ name }) => name === 'daemon')
  let compared = 0
  for (const step of scenario?.steps ?? []) {
    if (step.do !== 'ipvsadm' || step.err.startsWith('Try')) continue
    const { status, stdout, stderr } = await director.adm(splitArguments(step.args).join(' '))
    const words = String(step.args)
    t.same({ status, stdout, stderr }, { status: step.rc, stdout: step.out, stderr: step.err }, words)
    compared++
  }
  t.ok(compared > 25, 'the recording was there to compare with')
  t.same(processes(topology, 'director'), [], 'no process is left')
}

async function killed(t: Test, topology: Topology, director: Director): Promise<void> {
  const start = '--start-daemon backup --mcast-interface lo --syncid 9'
  await topology.must('director', 'sh', ['-c', `exec 9>/dev/full; exec ${bpvsadm} ${start}`])
  const [found = ''] = processes(topology, 'director')
  t.match(found, /^\d+ bpvs-sync-backup lo syncid=9$/)
  const pid = Number.parseInt(found, 10)
  const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
  t.notOk(open.includes('/dev/full'), 'it keeps nothing open that bpvsadm was called with')
  process.kill(pid, 'SIGKILL')
  await waitFor('the process to end', () => processes(topology, 'director').length === 0)
  t.equal(await director.must('-L --daemon'), '')
  t.equal((await director.adm('--stop-daemon backup')).stderr, 'No daemon is running\n')
  await director.must(start)
  t.match(await director.must('-L --daemon'), /^backup sync daemon \(mcast=lo, syncid=9, maxlen=\d+, /)
}

async function abandoned(t: Test, topology: Topology, director: Director): Promise<void> {
  const [found = ''] = processes(topology, 'director')
  const { path = '' } = director.pins() ?? {}
  t.equal(existsSync(path), true)
  await must('ip', ['netns', 'del', topology.nameOf('director')])
  await waitFor('the daemon to notice', () => titleOf(Number.parseInt(found, 10)) === undefined)
  t.equal(existsSync(path), false, 'and the table is gone too')
}

t.test('connections through one director go on through the other', root, async (t) => {
  const net = await twoDirectors(t)
  await net.first.must('--start-daemon master --mcast-interface cl0 --syncid 3')
  await net.second.must('--start-daemon backup --mcast-interface cl0 --syncid 3')
  const kept: { readonly id: number; readonly server: string }[] = []
  for (const family of families) {
    for (let n = 0; n < 4; n++) {
      const opened = await net.client.call('connect', { address: vips[family], port: 7 })
      if ('error' in opened) throw new Error(`${family}: ${opened.error}`)
      kept.push(opened.value)
    }
  }
  t.same(
    kept.map(({ server }) => server),
    ['server1', 'server0', 'server1', 'server0', 'server1', 'server0', 'server1', 'server0'],
  )
  await waitFor(
    'the second director to know what the first has',
    () => connections(net.second).join() === connections(net.first).join(),
    patienceMs,
  )
  t.same(
    net.second.service(virtual(vips.ipv4, 7)).servers.map(({ active, inactive }) => [active, inactive]),
    [
      [2, 0],
      [2, 0],
    ],
  )
  await failOver(net, 2)
  for (const { id, server } of kept) {
    t.same(await net.client.call('ping', id, `over the other director ${id}`), { value: server })
  }
  t.same(net.second.check(), [])
  await t.test('and come back with those that were made there', async (t) => {
    await net.first.must('--stop-daemon master')
    await net.second.must('--stop-daemon backup')
    await net.first.must('--start-daemon backup --mcast-interface cl0 --syncid 3')
    await net.second.must('--start-daemon master --mcast-interface cl0 --syncid 3')
    const made = await net.client.call('connect', { address: vips.ipv4, port: 7 })
    if ('error' in made) throw new Error(made.error)
    await waitFor('the first director to know it', () => connections(net.first).length === 9, patienceMs)
    await failOver(net, 1)
    for (const { id, server } of [...kept, made.value]) {
      t.same(await net.client.call('ping', id, `back again ${id}`), { value: server })
    }
  })
  await t.test('and their ends are told', async (t) => {
    await net.first.must('--stop-daemon backup')
    await net.first.must('--start-daemon master --mcast-interface cl0')
    await net.second.must('--stop-daemon master')
    await net.second.must('--start-daemon backup --mcast-interface cl0')
    for (const { id } of kept) await net.client.call('disconnect', id)
    const ended = () => connections(net.second).filter((text) => text.startsWith('TIME_WAIT')).length === kept.length
    await waitFor('the second director to know of their ends', ended, patienceMs)
    t.pass()
  })
  await t.test('and directors that are master and backup at once tell each of its own alone', (t) => both(t, net))
  await t.test('and a daemon ends with its table', async (t) => {
    await net.first.must('--unload')
    await waitFor('the processes to end', () => processes(net.topology, 'director').length === 0)
    t.equal(await net.first.must('-L --daemon'), '')
  })
})

/** Connections that masters told of, once they have told of nothing for a while. */
async function toldWhenQuiet(directors: readonly Director[]): Promise<bigint[]> {
  const quietMs = 1_500
  let last = ''
  let since = 0
  return waitFor(
    'the masters to be quiet',
    () => {
      const now = directors.map((director) => {
        const master = director.within(runningDaemons).find(({ role }) => role === 'master')
        return master?.counters.connections ?? -1n
      })
      if (now.join() !== last) since = performance.now()
      last = now.join()
      return performance.now() - since > quietMs && now
    },
    patienceMs,
  )
}

async function both(t: Test, net: Net): Promise<void> {
  const directors = [net.first, net.second]
  await failOver(net, 1)
  await net.first.must('--stop-daemon master')
  await net.second.must('--stop-daemon backup')
  for (const director of directors) {
    await director.must('--start-daemon master --mcast-interface sv0 --mcast-group ff02::5:1')
    await director.must('--start-daemon backup --mcast-interface sv0 --mcast-group ff02::5:1')
  }
  const before = await toldWhenQuiet(directors)
  const known = connections(net.first).length
  for (let n = 0; n < 3; n++) await net.client.call('connect', { address: vips.ipv6, port: 7 })
  await waitFor('the second director to know', () => connections(net.second).length === known + 3, patienceMs)
  await failOver(net, 2)
  t.match(await net.client.call('connect', { address: vips.ipv4, port: 7 }), { value: { server: /^server/ } })
  await waitFor('the first director to know', () => connections(net.first).length === known + 4, patienceMs)
  const after = await toldWhenQuiet(directors)
  t.same(
    after.map((count, i) => count - (before[i] ?? 0n)),
    [3n, 1n],
    'each told of its own connections, once',
  )
}
