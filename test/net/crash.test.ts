/**
 * bpvsd killed, restarted and upgraded under traffic. No request may fail, and what the kernel's table holds goes on:
 * ids, connections, counters.
 */
import { readdirSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pace } from 'node:timers/promises'
import t from 'tap'
import type { Counters, ServiceView } from '../../src/model/types.ts'
import { Daemon, type ManifestService, Manifests } from '../helpers/daemon.ts'
import { Director, serverAt, total, virtual } from '../helpers/director.ts'
import { dnsName, needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const patienceMs = 120_000
const vip = { web: '10.96.0.10', web6: 'fd00:96::10', dns: '10.96.0.20', echo: '10.96.0.30' } as const

/** Streams of requests that go on until they are stopped, in both families, over TCP and UDP, kept and short. */
class Streams {
  readonly #net: TestNet
  readonly #jobs: { readonly client: number; readonly id: number }[] = []

  constructor(net: TestNet) {
    this.#net = net
  }

  async start(): Promise<void> {
    const [first, second] = [this.#host(0), this.#host(1)]
    const job = { port: 80, concurrency: 2, ratePerSecond: 200 }
    this.#jobs.push(
      { client: 0, id: await first.call('startHttp', { ...job, address: vip.web }) },
      { client: 1, id: await second.call('startHttp', { ...job, address: vip.web6 }) },
      { client: 1, id: await second.call('startHttp', { ...job, address: vip.web, keepAlive: true }) },
      {
        client: 0,
        id: await first.call('startDns', { ...job, address: vip.dns, port: 53, name: dnsName, type: 'A' }),
      },
    )
  }

  /** Waits until every stream has had so many more answers. */
  async more(count: number): Promise<void> {
    const answered = () =>
      Promise.all(this.#jobs.map(async ({ client, id }) => (await this.#host(client).call('loadReport', id)).answered))
    const before = await answered()
    const enough = async () => (await answered()).every((now, i) => now >= (before[i] ?? 0) + count)
    await waitFor(`${count} more answers of every stream`, enough, patienceMs)
  }

  stop() {
    return Promise.all(this.#jobs.map(({ client, id }) => this.#host(client).call('stopLoad', id)))
  }

  #host(n: number) {
    const client = this.#net.clients[n]
    if (client === undefined) throw new Error(`no client ${n}`)
    return client.host
  }
}

/** Watches that no counter of a service or server ever steps back while a condition holds. */
class Monotony {
  readonly steps: string[] = []
  samples = 0
  readonly #last = new Map<string, Counters>()

  sample(services: readonly ServiceView[]): void {
    this.samples += 1
    for (const service of services) {
      this.#compare(`service ${service.id}`, service.counters)
      for (const server of service.servers) this.#compare(`server ${server.id}`, server.counters)
    }
  }

  #compare(name: string, now: Counters): void {
    const before = this.#last.get(name)
    this.#last.set(name, now)
    if (before === undefined) return
    for (const field of ['conns', 'inPkts', 'outPkts', 'inBytes', 'outBytes'] as const) {
      if (now[field] < before[field]) this.steps.push(`${name}: ${field} from ${before[field]} to ${now[field]}`)
    }
  }
}

async function scene(t: Parameters<typeof topology>[0]) {
  const net = await topology(t, { clients: 2, servers: 3 })
  const manifests = new Manifests(t)
  const addresses = (family: 'ipv4' | 'ipv6', ...servers: number[]) => servers.map((n) => net.servers[n]![family])
  const web: ManifestService = {
    name: 'web',
    address: vip.web,
    port: 80,
    targetPort: ports.http,
    servers: addresses('ipv4', 0, 1),
  }
  const services = {
    web,
    web6: { ...web, name: 'web6', address: vip.web6, servers: addresses('ipv6', 0, 1) },
    dns: { ...web, name: 'dns', address: vip.dns, port: 53, targetPort: ports.dns, protocol: 'UDP' as const },
    echo: { ...web, name: 'echo', address: vip.echo, targetPort: ports.echo },
  }
  for (const service of Object.values(services)) manifests.write(service)
  const director = new Director(net.topology)
  const monotony = new Monotony()
  let watching = true
  const watch = async (): Promise<void> => {
    for (; watching; await pace(25)) monotony.sample(director.table((table) => table.services()))
  }
  return {
    net,
    manifests,
    services,
    director,
    monotony,
    addresses,
    /** Starts to watch the counters; the result ends it. */
    watch: () => {
      const watcher = watch()
      return async () => {
        watching = false
        await watcher
      }
    },
  }
}

/** What may not change while a daemon comes and goes: where the table is, and who has which id. */
function identity(director: Director): unknown {
  const pins = director.pins()
  const services = director.table((table) => table.services())
  return {
    inode: pins === undefined ? undefined : statSync(pins.path).ino,
    services: services.map(({ id, key, source, servers }) => ({
      ...{ id, key, source },
      servers: servers.map(({ id, address }) => `${id} ${address}`).sort(),
    })),
  }
}

t.test('bpvsd is killed under traffic, and started again: no request fails', { skip: needsRoot }, async (t) => {
  const { net, manifests, services, director, monotony, addresses, watch } = await scene(t)
  let daemon = new Daemon(net.topology, manifests)
  await daemon.logged('ready')
  const client = net.clients[0]!.host
  const kept = new Map<string, number>()
  for (let n = 0; n < 2; n++) {
    const opened = await client.call('connect', { address: vip.echo, port: 80 })
    if ('value' in opened) kept.set(opened.value.server, opened.value.id)
  }
  t.same([...kept.keys()].sort(), ['server0', 'server1'])
  const streams = new Streams(net)
  await streams.start()
  await streams.more(50)
  const unwatch = watch()
  const before = identity(director)

  t.equal(await daemon.end('SIGKILL'), 'SIGKILL')
  await streams.more(200)
  t.same(identity(director), before, 'with nobody there the table is what it was')
  manifests.write({ ...services.web, servers: addresses('ipv4', 0, 1, 2) })
  manifests.write({ ...services.echo, servers: addresses('ipv4', 0) })
  const opened = await client.call('connect', { address: vip.echo, port: 80 })
  t.match(opened, { value: { server: /server[01]/ } }, 'new connections are balanced as before')

  const atKill = director.service(virtual(vip.web, 80))
  daemon = new Daemon(net.topology, manifests)
  await daemon.logged('ready')
  t.match(await daemon.logged('applied'), { added: 0, removed: 0, failed: 0 }, 'the table was adopted')
  const web = director.service(virtual(vip.web, 80))
  t.equal(web.id, atKill.id)
  t.same(web.servers.map(({ address }) => address).sort(), addresses('ipv4', 0, 1, 2), 'with what changed meanwhile')
  for (const address of addresses('ipv4', 0, 1)) {
    const [was, is] = [serverAt(atKill, address), serverAt(web, address)]
    t.equal(is.id, was.id)
    t.ok(is.counters.conns >= was.counters.conns && was.counters.conns > 0n, 'counters go on')
  }
  await streams.more(200)

  for (const signal of ['SIGKILL', 'SIGKILL', 'SIGTERM'] as const) {
    t.equal(await daemon.end(signal), signal === 'SIGTERM' ? 0 : signal)
    daemon = new Daemon(net.topology, manifests)
    await daemon.logged('ready')
    await streams.more(30)
  }
  await unwatch()
  const reports = await streams.stop()
  for (const [i, report] of reports.entries()) {
    t.match(report, { failed: 0, errors: {} }, `stream ${i}: ${report.answered} answers`)
    t.equal(report.answered, report.sent)
  }
  t.ok((reports[0]?.servers.server2 ?? 0) > 0, 'the server that was added while bpvsd was dead got requests')
  t.same(monotony.steps, [], `no counter stepped back in ${monotony.samples} looks`)
  t.ok(monotony.samples > 20)

  t.same(await client.call('ping', kept.get('server0') ?? 0, 'still there?'), { value: 'server0' })
  t.same(await client.call('ping', kept.get('server1') ?? 0, 'and you?'), { value: 'server1' }, 'its server drains')
  const echo = director.service(virtual(vip.echo, 80))
  for (const address of addresses('ipv4', 1)) t.equal(serverAt(echo, address).weight, 0, 'over all these restarts')
  const conns = total([vip.web, vip.web6].map((address) => director.service(virtual(address, 80)).counters)).conns
  const short = (reports[0]?.answered ?? 0) + (reports[1]?.answered ?? 0)
  t.ok(conns >= BigInt(short), `${conns} connections for ${short} short ones and those that were kept`)
  const questions = BigInt(reports[3]?.answered ?? 0)
  t.match(director.service(virtual(vip.dns, 53, 'udp')).counters, { inPkts: questions, outPkts: questions })
  t.same(director.check(), [])
  await daemon.end('SIGTERM')
})

t.test(
  "another build's programs take the place of those in the links: no request fails",
  { skip: needsRoot },
  async (t) => {
    const { net, manifests, services, director, monotony, watch } = await scene(t)
    let daemon = new Daemon(net.topology, manifests)
    await daemon.logged('ready')
    await director.must('--set 0 0 2')
    const client = net.clients[0]!.host
    const opened = await client.call('connect', { address: vip.echo, port: 80 })
    const streams = new Streams(net)
    await streams.start()
    await streams.more(50)
    const unwatch = watch()
    const before = { programs: director.programs(), identity: identity(director) }
    t.equal(before.programs.length, director.hooks().length)
    for (let n = 0; n < 3; n++) {
      await daemon.end(n === 0 ? 'SIGTERM' : 'SIGKILL')
      /* The mark of the build is all by which bpvsd knows that the programs are its own. */
      const path = director.pins()?.path ?? ''
      for (const name of readdirSync(path).filter((each) => each.startsWith('build-'))) rmdirSync(join(path, name))
      daemon = new Daemon(net.topology, manifests)
      await daemon.logged('ready')
      await streams.more(50)
    }
    await unwatch()
    const programs = director.programs()
    t.equal(programs.length, before.programs.length)
    t.notOk(
      programs.some((id) => before.programs.includes(id)),
      'every link has another program',
    )
    t.same(identity(director), before.identity, 'the table is the same')
    const reports = await streams.stop()
    for (const [i, report] of reports.entries()) {
      t.match(report, { failed: 0, errors: {}, sent: report.answered }, `stream ${i}: ${report.answered} answers`)
    }
    t.same(monotony.steps, [], `no counter stepped back in ${monotony.samples} looks`)
    t.match(await client.call('ping', 'value' in opened ? opened.value.id : 0, 'hello'), { value: /server/ })
    const udp = () => director.service(virtual(vip.dns, services.dns.port, 'udp')).servers
    await waitFor('the new programs to end connections', () => udp().every(({ inactive }) => inactive === 0))
    t.same(director.check(), [])
    await daemon.end('SIGTERM')
  },
)
