/** bpvsadm in namespaces with real traffic: tables apart, the first service, unloading, and bpvsd beside it. */
import t from 'tap'
import type { ServerSpec } from '../../src/model/types.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { Director, real, service as spec, virtual } from '../helpers/director.ts'
import { needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* Every table that is made passes through the verifier: seconds, on a busy machine. */
t.setTimeout(900_000)

const skip = needsRoot
const header = 'IP Virtual Server version 1.2.1 (size=4096)\n'
const columns =
  'Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n'
const emptyListing = header + columns
const service = '10.96.0.1:80'

function server(n: number): string {
  return `10.244.1.${11 + n}:${ports.http}`
}

/** One request to the service: the server's name, or what went wrong. */
async function ask(net: TestNet, address = '10.96.0.1', port = 80): Promise<string> {
  const outcome = await net.clients[0]!.host.call('http', { address, port })
  return 'value' in outcome ? outcome.value.server : outcome.error
}

t.test('commands where there is no table: listings are empty, nothing is made', { skip }, async (t) => {
  const net = await topology(t, { clients: 0, servers: 0 })
  const director = new Director(net.topology)
  const rows = [
    { line: '-Ln', status: 0, stdout: emptyListing },
    { line: '-L -t 10.96.0.1:80', status: 1, stderr: 'No such service\n' },
    { line: '-Sn', status: 0, stdout: '' },
    { line: '-C', status: 0 },
    { line: '-Z', status: 0 },
    { line: '-D -t 10.96.0.1:80', status: 255, stderr: 'No such service\n' },
    { line: '-E -t 10.96.0.1:80 -s rr', status: 255, stderr: 'No such service\n' },
    { line: '-Z -t 10.96.0.1:80', status: 255, stderr: 'No such service\n' },
    { line: '-a -t 10.96.0.1:80 -r 10.0.0.1:80 -m', status: 255, stderr: 'Service not defined\n' },
    { line: '-d -t 10.96.0.1:80 -r 10.0.0.1:80', status: 255, stderr: 'Service not defined\n' },
    { line: '--hooks', status: 0, stdout: 'Interface  Index  Hook  Mode\n' },
    { line: '--verdicts', status: 0, stdout: 'Verdict  Packets\n' },
    { line: '--check', status: 0, stdout: 'the table is consistent\n' },
    { line: '--unload', status: 0, stdout: 'nothing of bpvs is loaded in this network namespace\n' },
  ]
  for (const { line, ...expected } of rows) t.match(await director.adm(line), { stderr: '', ...expected }, line)
  t.notOk(director.pins()?.present, 'nothing is pinned')
  t.same(director.hooks(), [])
})

/** Ids of the maps that a program uses; undefined when there is no such program. */
async function mapsOf(net: TestNet, program: number): Promise<number[] | undefined> {
  const { status, stdout } = await net.topology.exec('director', 'bpftool', ['-j', 'prog', 'show', 'id', `${program}`])
  return status === 0 ? (JSON.parse(stdout) as { map_ids?: number[] }).map_ids : undefined
}

t.test('the first -A attaches by itself; --unload leaves nothing of it', { skip }, async (t) => {
  const net = await topology(t, { clients: 1, servers: 2, serve: ['http'] })
  const director = new Director(net.topology)
  await director.must(`-A -t ${service}`)
  t.same(director.hooks(), ['cl0 egress tcx', 'cl0 ingress tcx', 'lo egress tcx', 'sv0 egress tcx', 'sv0 ingress tcx'])
  for (const n of [0, 1]) await director.must(`-a -t ${service} -r ${server(n)} -m`)
  t.equal(
    await director.must('-Ln'),
    `${emptyListing}TCP  ${service} wlc\n` +
      [0, 1].map((n) => `  -> ${server(n).padEnd(28)} Masq    1      0          0         \n`).join(''),
  )
  t.match(
    await director.must('--hooks'),
    /^Interface .*\nlo +1 +egress +tcx\ncl0 +\d+ +egress +tcx\ncl0 +\d+ +ingress +tcx\nsv0/,
  )
  t.same(new Set([await ask(net), await ask(net)]), new Set(['server0', 'server1']))
  t.match(await director.adm(`-A -t ${service}`), { status: 255, stderr: 'Service already exists\n' })

  const programs = [...new Set(director.programs())]
  t.equal(programs.length, 2, 'one program for ingress, one for egress')
  const maps = [...new Set((await Promise.all(programs.map((id) => mapsOf(net, id)))).flat())]
  t.ok(maps.length > 0)

  t.equal(await director.must('--unload'), '')
  t.notOk(director.pins()?.present, 'no pin is left')
  const gone = async (kind: 'prog' | 'map', id: number | undefined) =>
    (await net.topology.exec('director', 'bpftool', [kind, 'show', 'id', `${id}`])).status !== 0
  // The kernel frees them when it finds the time, which a busy machine has little of.
  for (const id of programs) await waitFor(`the end of program ${id}`, () => gone('prog', id), 180_000)
  for (const id of maps) await waitFor(`the end of map ${id}`, () => gone('map', id), 180_000)
  t.notMatch(await net.topology.must('director', 'tc', ['qdisc', 'show']), /clsact|ingress/)
  t.equal(await director.must('-Ln'), emptyListing)
  t.notMatch(await ask(net), /^server/)
  t.equal(await director.must('--unload'), 'nothing of bpvs is loaded in this network namespace\n')

  await director.must(`-A -t ${service} -s rr`)
  await director.must(`-a -t ${service} -r ${server(0)} -m`)
  t.equal(await ask(net), 'server0', 'and it can be loaded again')
})

t.test('two namespaces have tables of their own, for the same addresses', { skip }, async (t) => {
  const nets = [
    await topology(t, { clients: 1, servers: 1, serve: ['http'] }),
    await topology(t, { clients: 1, servers: 2, serve: ['http'] }),
  ] as const
  const directors = nets.map(({ topology }) => new Director(topology))
  const [left, right] = [directors[0]!, directors[1]!]
  await left.must(`-A -t ${service} -s rr`)
  t.equal(await right.must('-Ln'), emptyListing, 'the other one has no table yet')
  t.notMatch(await ask(nets[1]), /^server/)
  await right.must(`-A -t ${service} -s rr`)
  await left.must(`-a -t ${service} -r ${server(0)} -m`)
  await right.must(`-a -t ${service} -r ${server(1)} -m`)
  for (let n = 0; n < 3; n++) t.equal(await ask(nets[0]), 'server0')
  for (let n = 0; n < 5; n++) t.equal(await ask(nets[1]), 'server1')
  const key = virtual('10.96.0.1', 80)
  t.equal(left.service(key).counters.conns, 3n)
  t.equal(right.service(key).counters.conns, 5n)
  await left.must('-Z')
  t.equal(left.service(key).counters.conns, 0n)
  t.equal(right.service(key).counters.conns, 5n)
  await left.must('-C')
  t.same(
    left.table((table) => table.services()),
    [],
  )
  t.equal(await ask(nets[1]), 'server1')
  await left.must('--unload')
  t.equal(await ask(nets[1]), 'server1', 'the other one goes on')
  t.equal(right.service(key).counters.conns, 7n)
})

t.test('what a command made bpvsd never touches; what bpvsd owns it repairs', { skip }, async (t) => {
  const net = await topology(t, { clients: 1, servers: 3, serve: ['http'] })
  const director = new Director(net.topology)
  const manifests = new Manifests(t)
  const web = { name: 'web', port: 80, targetPort: ports.http }
  const servers = net.servers.map(({ ipv4 }) => ipv4)
  await director.must(`-A -t ${service} -s wlc`)
  await director.must(`-a -t ${service} -r ${server(2)} -m -w 3`)
  const commanded = `-A -t ${service} -s wlc\n-a -t ${service} -r ${server(2)} -m -w 3\n`
  const mine = director.service(virtual('10.96.0.1', 80))

  manifests.write({ ...web, address: '10.96.0.2', servers: servers.slice(0, 2) })
  manifests.write({ ...web, name: 'same', address: '10.96.0.1', servers: servers.slice(0, 1) })
  const daemon = new Daemon(net.topology, manifests, '--repair-interval-ms', '100')
  await daemon.logged('ready')
  t.match(await daemon.logged('not programmed'), { service: /10\.96\.0\.1:80/ }, "a command's address is not taken")
  t.equal(await ask(net), 'server2')
  t.match(await ask(net, '10.96.0.2'), /^server[01]$/)

  const owned = `-A -t 10.96.0.2:80 -s rr\n${[0, 1].map((n) => `-a -t 10.96.0.2:80 -r ${server(n)} -m -w 1\n`).join('')}`
  const ordered = (part: string) => part.split('\n').sort().join('\n')
  const saved = async () =>
    (await director.must('-Sn'))
      .split(/(?=^-A)/m)
      .map(ordered)
      .sort()
  const until = async (what: string, ...expected: string[]) => {
    const sorted = expected.map(ordered).sort()
    await waitFor(what, async () => (await saved()).join('') === sorted.join('')).catch(() => {})
    t.same(await saved(), sorted, what)
  }
  await until('both services', commanded, owned)
  await director.must(`-d -t 10.96.0.2:80 -r ${server(0)}`)
  await until('a server that a command removed', commanded, owned)
  await director.must(`-e -t 10.96.0.2:80 -r ${server(1)} -m -w 0`)
  await until('a weight that a command changed', commanded, owned)
  await director.must('-E -t 10.96.0.2:80 -s lc')
  await until('a scheduler that a command changed', commanded, owned)
  await director.must('-D -t 10.96.0.2:80')
  await until('a service that a command removed', commanded, owned)
  t.match(await ask(net, '10.96.0.2'), /^server[01]$/)
  await daemon.logged('repaired what others changed')

  await director.must(`-e -t ${service} -r ${server(2)} -m -w 7`)
  manifests.remove('web')
  const edited = commanded.replace('-w 3', '-w 7')
  await until('a manifest that went, and an edit of what is not its own', edited)
  t.equal(director.service(virtual('10.96.0.1', 80)).id, mine.id)
  manifests.remove('same')
  manifests.write({ ...web, address: '10.96.0.2', servers: servers.slice(0, 2) })
  await until('the manifest back again', edited, owned)
  t.equal(await daemon.end('SIGTERM'), 0)
  await director.must(`-d -t 10.96.0.2:80 -r ${server(0)}`)
  t.equal(await ask(net, '10.96.0.2'), 'server1', 'with no bpvsd a command has the last word')
  t.equal(await ask(net), 'server2')
})

t.test('a service that lost its servers refuses, whatever lies beside its empty list', { skip }, async (t) => {
  const net = await topology(t, { clients: 1, servers: 2, serve: ['http'] })
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(() => table.close())
  const [mine, others] = net.servers.map(({ ipv4 }) => [real(ipv4, ports.http)])
  const key = virtual('10.96.0.1', 80)
  for (const scheduler of ['rr', 'wrr', 'lc', 'wlc'] as const) {
    const state = (servers: readonly ServerSpec[], neighbours: number) => [
      { service: spec(key, scheduler), servers },
      ...Array.from({ length: neighbours }, (_, n) => ({
        service: spec(virtual('10.96.0.2', 8000 + n), scheduler),
        servers: others ?? [],
      })),
    ]
    table.apply('command', state(mine ?? [], 0))
    t.equal(await ask(net), 'server0')
    table.apply('command', state([], 8))
    const refused = director.verdict('REFUSE_NO_SERVER')
    t.equal(await ask(net), 'ECONNREFUSED', scheduler)
    t.equal(director.verdict('REFUSE_NO_SERVER'), refused + 1)
    t.same(director.check(), [], `${scheduler}: the table is consistent`)
    table.apply('command', [])
  }
})
