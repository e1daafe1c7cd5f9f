/** Counters, connection counts and the connection listing under known traffic, compared with what the client counted. */
import t from 'tap'
import type { ConnectionState, Counters, ServiceKey } from '../../src/model/types.ts'
import { Accounting } from '../helpers/accounting.ts'
import { Director, endpoint, real, serverAt, service, virtual } from '../helpers/director.ts'
import { Peer } from '../helpers/peer.ts'
import { needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const skip = needsRoot
const vips = ['10.96.0.1', 'fd00:96::1'] as const
const peerPort = 9000

/** One client, servers as asked, bpvs with an empty table. */
async function scene(t: Parameters<typeof topology>[0], servers: number) {
  const net = await topology(t, { clients: 1, servers })
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(async () => table.close())
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  return { net, director, table, client: client.host }
}

function addressOf(net: TestNet, n: number, vip: string): string {
  const server = net.servers[n]
  if (server === undefined) throw new Error(`no server ${n}`)
  return vip.includes(':') ? server.ipv6 : server.ipv4
}

/** "pro state source virtual destination" of every listed connection. */
async function listedConnections(director: Director): Promise<string[]> {
  const [title, head, ...rows] = (await director.must('-Lnc')).trimEnd().split('\n')
  if (title !== 'IPVS connection entries' || !/^pro expire state +source/.test(head ?? ''))
    throw new Error('no listing')
  return rows.map((row) => row.replace(/^(\S+) +\d\d:\d\d +/, '$1 ').replaceAll(/ +/g, ' ')).sort()
}

t.test('TCP: every connection, packet and byte is counted, as the client counted them', { skip }, async (t) => {
  const { net, director, table, client } = await scene(t, 2)
  const flows = vips.map((address) => ({ address, protocol: 'tcp' as const, port: 80 }))
  const witness = await Accounting.start(net.topology, 'client0', flows)
  for (const vip of vips) {
    table.addService(service(virtual(vip, 80)))
    for (const n of [0, 1]) table.addServer(virtual(vip, 80), real(addressOf(net, n, vip), ports.http))
  }
  for (const [i, address] of vips.entries()) {
    for (let n = 0; n < 7; n++) {
      const path = `/bytes/${200 * n * n}`
      t.match(await client.call('http', { address, port: 80, path }), { value: { status: 200 } })
    }
    const job = await client.call('startHttp', { address, port: 80, count: 40, concurrency: 4, keepAlive: true })
    t.match(await client.call('loadDone', job), { answered: 40, failed: 0 })
    const view = () => director.service(virtual(address, 80))
    const same = async () => view().counters.outPkts === (await witness.read())[i]?.outPkts
    await waitFor(`the last packets of ${address}`, same).catch(() => {})
    const { conns, ...counted } = view().counters
    t.same(counted, (await witness.read())[i], address)
    const served = view().servers.map(({ counters }) => counters)
    t.equal(conns, served[0]!.conns + served[1]!.conns)
    t.ok(conns > 7n && conns <= 11n, `7 connections and no more than 4 that were kept: ${conns}`)
    t.ok(served[0]!.conns - served[1]!.conns <= 1n, 'in turn')
  }
})

t.test('UDP: every datagram is counted with its headers, and each client port is a connection', { skip }, async (t) => {
  const { net, director, table, client } = await scene(t, 1)
  const sizes = [0, 1, 17, 512, 1400]
  const count = BigInt(sizes.length)
  for (const vip of vips) {
    const key = virtual(vip, 53, 'udp')
    table.addService(service(key))
    table.addServer(key, real(addressOf(net, 0, vip), ports.echo))
    for (const size of sizes) {
      t.same(await client.call('datagram', { address: vip, port: 53, size }), { value: 'server0' })
    }
    const headers = vip.includes(':') ? 48 : 28
    const bytes = BigInt(sizes.reduce((sum, size) => sum + size + headers, 0))
    const name = BigInt('server0\n'.length)
    const expected: Counters = {
      conns: count,
      inPkts: count,
      outPkts: count,
      inBytes: bytes,
      outBytes: bytes + count * name,
    }
    const { counters, servers } = director.service(key)
    t.same(counters, expected, vip)
    t.match(servers, [{ active: 0, inactive: sizes.length, counters: expected }], 'UDP connections are inactive ones')
  }
  const rows = await listedConnections(director)
  const shape = [...vips].map((vip) => {
    const [from, to] = [vip.includes(':') ? 'fd00:1::11' : '10.1.0.11', addressOf(net, 0, vip)]
    const at = (address: string, port: number) => endpoint({ address, port })
    return { start: `UDP UDP ${at(from, 0).slice(0, -1)}`, end: `${at(vip, 53)} ${at(to, ports.echo)}` }
  })
  for (const { start, end } of shape) {
    t.equal(rows.filter((row) => row.startsWith(start) && row.endsWith(end)).length, sizes.length, `${start}... ${end}`)
  }
  t.equal(rows.length, 2 * sizes.length)
})

const activeStates = ['ESTABLISHED', 'SYN_SENT', 'SYN_RECV', 'SYNACK']

/** The state of a client port's connection; undefined while the server's counts do not fit the connections. */
function stateOf(director: Director, key: ServiceKey, port: number): ConnectionState | 'EXPIRED' | undefined {
  return director.table((table) => {
    const [server] = table.service(key)?.servers ?? []
    const connections = [...table.connections()]
    const active = connections.filter(({ state }) => activeStates.includes(state)).length
    if (server?.active !== active || server.inactive !== connections.length - active) return undefined
    return connections.find(({ client }) => client.port === port)?.state ?? 'EXPIRED'
  })
}

for (const vip of vips) {
  t.test(`${vip}: ActiveConn, InActConn and the state follow a connection through its life`, { skip }, async (t) => {
    const { net, director, table } = await scene(t, 1)
    const key = virtual(vip, 80)
    table.addService(service(key, 'wlc'))
    table.addServer(key, real(addressOf(net, 0, vip), peerPort))
    const [client, server] = [new Peer(t, net.topology, 'client0'), new Peer(t, net.topology, 'server0')]
    await server.listen(peerPort)
    const becomes = async (port: number, expected: string): Promise<void> => {
      await waitFor(expected, () => stateOf(director, key, port) === expected).catch(() => {})
      t.equal(stateOf(director, key, port), expected)
    }
    const open = async () => {
      const { id, port } = await client.connect(vip, 80)
      const { id: atServer } = await server.accept()
      await becomes(port, 'ESTABLISHED')
      return { id, port, atServer }
    }

    const first = await open()
    t.match(await director.must('-Ln'), / +Masq +1 +1 +0 *\n$/)
    const from = endpoint({ address: vip.includes(':') ? 'fd00:1::11' : '10.1.0.11', port: first.port })
    const to = endpoint({ address: addressOf(net, 0, vip), port: peerPort })
    t.same(await listedConnections(director), [`TCP ESTABLISHED ${from} ${endpoint({ address: vip, port: 80 })} ${to}`])
    await client.write(first.id, 'hello')
    await server.received(first.atServer, 5)
    await server.write(first.atServer, 'good day')
    t.equal((await client.received(first.id, 8)).received, 'good day')
    await becomes(first.port, 'ESTABLISHED')
    await client.end(first.id)
    await becomes(first.port, 'CLOSE_WAIT')
    t.match(await director.must('-Ln'), / +Masq +1 +0 +1 *\n$/)
    await server.write(first.atServer, ', good bye')
    t.equal((await client.received(first.id, 18)).received, 'good day, good bye', 'the open direction goes on')
    await server.end(first.atServer)
    await becomes(first.port, 'TIME_WAIT')

    const second = await open()
    await server.end(second.atServer)
    await becomes(second.port, 'FIN_WAIT')
    await client.write(second.id, 'still here')
    await server.received(second.atServer, 10)
    await becomes(second.port, 'FIN_WAIT')
    await client.end(second.id)
    await becomes(second.port, 'TIME_WAIT')

    const third = await open()
    await client.reset(third.id)
    await becomes(third.port, 'CLOSE')
    const fourth = await open()
    await server.reset(fourth.atServer)
    await becomes(fourth.port, 'CLOSE')

    await net.topology.must('server0', 'nft', [
      'add table inet t; add chain inet t i { type filter hook input priority 0; };' +
        `add rule inet t i tcp dport ${peerPort} drop`,
    ])
    const { port } = await client.begin(vip, 80)
    await becomes(port, 'SYN_RECV')
    t.equal(director.service(key).counters.conns, 5n)
    for (const { port } of [third, fourth]) await becomes(port, 'EXPIRED')
  })
}

t.test('-Z, -E and -e leave ids and connections; only -Z touches counters', { skip }, async (t) => {
  const { net, director, client } = await scene(t, 2)
  const [key, other] = [virtual('10.96.0.1', 80), virtual('10.96.0.2', 80)]
  for (const vip of ['10.96.0.1', '10.96.0.2']) {
    await director.must(`-A -t ${vip}:80 -s rr`)
    for (const n of [0, 1]) await director.must(`-a -t ${vip}:80 -r ${addressOf(net, n, vip)}:${ports.echo} -m -w 1`)
  }
  const open = async (address: string): Promise<number> => {
    const opened = await client.call('connect', { address, port: 80 })
    if (!('value' in opened)) throw new Error(opened.error)
    return opened.value.id
  }
  const kept = [await open('10.96.0.1'), await open('10.96.0.1'), await open('10.96.0.2')]
  const quiet = async () => {
    const before = JSON.stringify(director.service(key), (_, v) => (typeof v === 'bigint' ? String(v) : v))
    return waitFor('the last ACK', () => {
      const now = JSON.stringify(director.service(key), (_, v) => (typeof v === 'bigint' ? String(v) : v))
      return now === before && director.service(key)
    })
  }
  const before = await quiet()
  t.equal(before.counters.conns, 2n)
  await director.must('-E -t 10.96.0.1:80 -s wrr')
  for (const n of [0, 1]) await director.must(`-e -t 10.96.0.1:80 -r ${addressOf(net, n, '')}:${ports.echo} -m -w 5`)
  const after = director.service(key)
  t.equal(after.scheduler, 'wrr')
  t.same(
    after.servers.map(({ weight }) => weight),
    [5, 5],
  )
  const kind = ({ id, counters, servers }: typeof after) => ({
    id,
    counters,
    servers: servers.map(({ id, active, counters }) => ({ id, active, counters })),
  })
  t.same(kind(after), kind(before), 'ids, counters and connections are what they were')

  await director.must('-Z -t 10.96.0.1:80')
  const nothing: Counters = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }
  const zeroed = director.service(key)
  t.same(zeroed.counters, nothing)
  t.same(
    zeroed.servers.map(({ id, active, counters }) => ({ id, active, counters })),
    before.servers.map(({ id, active }) => ({ id, active, counters: nothing })),
  )
  t.equal(director.service(other).counters.conns, 1n, "another service's counters stay")
  for (const id of kept) t.match(await client.call('ping', id, 'hello'), { value: /server/ }, 'connections go on')
  t.ok(director.service(key).counters.inPkts >= 2n, 'and are counted from 0')
  await director.must('-Z')
  t.same(director.service(other).counters, nothing)
})

t.test("a source's new state leaves ids, counters and connections of what it keeps", { skip }, async (t) => {
  const { net, director, table, client } = await scene(t, 3)
  const key = virtual('fd00:96::1', 80)
  const desired = (scheduler: 'rr' | 'lc', ...servers: readonly number[]) => [
    { service: service(key, scheduler), servers: servers.map((n) => real(addressOf(net, n, '::'), ports.echo)) },
  ]
  t.match(table.apply('manifest', desired('rr', 0, 1)), { added: Number, failed: [] })
  const opened = [0, 1].map(() => client.call('connect', { address: 'fd00:96::1', port: 80 }))
  const kept = (await Promise.all(opened)).map((each) => ('value' in each ? each.value : undefined))
  t.same(kept.map((each) => each?.server).sort(), ['server0', 'server1'])
  const before = director.service(key)
  t.equal(before.counters.conns, 2n)
  t.match(table.apply('manifest', desired('lc', 2, 1)), { failed: [] })
  const after = director.service(key)
  t.equal(after.id, before.id)
  t.equal(after.scheduler, 'lc')
  t.same(after.servers.map(({ address }) => address).sort(), [1, 2].map((n) => addressOf(net, n, '::')).sort())
  const [was, is] = [before, after].map((view) => serverAt(view, addressOf(net, 1, '::')))
  t.equal(is?.id, was?.id)
  t.equal(is?.active, 1)
  t.ok(is!.counters.inPkts >= was!.counters.inPkts && is!.counters.conns === 1n)
  t.ok(
    after.counters.inPkts >= before.counters.inPkts && after.counters.conns === 2n,
    'with those of the one that left',
  )
  for (const each of kept) {
    const ping = (timeoutMs?: number) => client.call('ping', each?.id ?? 0, 'still there?', timeoutMs)
    if (each?.server === 'server1') t.same(await ping(), { value: 'server1' }, 'connections to a kept server go on')
    else t.same(await ping(1_000), { error: 'TIMEOUT' }, 'those to a removed one are dropped silently')
  }
  t.ok(director.verdict('DROP_SERVER_GONE') > 0)
})
