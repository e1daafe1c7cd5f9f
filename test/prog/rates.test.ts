/**
 * Rates: every two seconds a quarter of the way to what was counted, by the kernel's timer alone. The numbers are those
 * that the kernel's IPVS showed for 400 datagrams of 38 bytes to two servers.
 */
import t from 'tap'
import type { Rates } from '../../src/model/types.ts'
import { real, service, virtual } from '../helpers/director.ts'
import { Datapath } from '../helpers/prog.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

const key = virtual('10.9.0.1', 80, 'udp')

/** Counts datagrams as the datapath would; each lane is one CPU's. */
function count({ maps }: Datapath, lane: number, server: number, datagrams: number): void {
  const i = lane * maps.serverMax + server
  const add = (value: bigint, n: number) => value + BigInt(n)
  maps.stats.setInBytes(i, add(maps.stats.inBytes(i), datagrams * 38))
  maps.stats.setConns(i, add(maps.stats.conns(i), datagrams))
  maps.stats.setInPkts(i, add(maps.stats.inPkts(i), datagrams))
}

/** The values that a rate takes one after the other. */
class Watch {
  readonly seen: string[] = []

  note({ conns, inPkts, outPkts, inBytes, outBytes }: Rates): void {
    const text = [conns, inPkts, outPkts, inBytes, outBytes].join(' ')
    if (this.seen.at(-1) !== text) this.seen.push(text)
  }
}

const none = '0 0 0 0 0'
const ofServer = ['25 25 0 950 0', '19 19 0 712 0', '14 14 0 534 0']
const ofService = ['50 50 0 1900 0', '37 37 0 1425 0', '28 28 0 1069 0']

t.test('rates rise and decay as the kernel estimates them, with no process at work', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const { table } = datapath
  const addresses = ['10.2.0.11', '10.2.0.12']
  table.addService(service(key))
  for (const address of addresses) table.addServer(key, real(address, 80))
  const view = () => {
    const found = table.service(key)
    if (found === undefined) throw new Error('the service is gone')
    return found
  }
  const ids = view().servers.map(({ id }) => id)
  const watches = { first: new Watch(), second: new Watch(), service: new Watch(), total: new Watch() }
  const look = (): boolean => {
    const { rates, servers } = view()
    watches.service.note(rates)
    watches.total.note(table.totals().rates)
    watches.first.note(servers[0]?.rates ?? rates)
    watches.second.note(servers[1]?.rates ?? rates)
    return Object.values(watches).every(({ seen }) => seen.length >= 4)
  }
  look()
  for (const [i, id] of ids.entries()) count(datapath, i % datapath.maps.lanes, id, 200)
  await waitFor('three steps of every rate', async () => look())
  t.same(watches.first.seen.slice(0, 4), [none, ...ofServer], 'a server')
  t.same(watches.second.seen.slice(0, 4), [none, ...ofServer], 'the other server, counted on another CPU')
  t.same(watches.service.seen.slice(0, 4), [none, ...ofService], 'the service')
  t.same(watches.total.seen.slice(0, 4), [none, ...ofService], 'everything')

  table.zero()
  const zeroed = view()
  const zero = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }
  t.same([zeroed.rates, ...zeroed.servers.map(({ rates }) => rates)], [zero, zero, zero], '-Z zeroes rates')
  t.same(table.totals(), { counters: zero, rates: zero }, '-Z zeroes what everything counted')
})

t.test(
  'a server takes its counts along when it goes for good, but no rate comes of it',
  { skip: needsRoot },
  async (t) => {
    t.setTimeout(900_000)
    const datapath = await Datapath.open(t)
    const { table, maps } = datapath
    table.addService(service(key))
    table.addServer(key, real('10.2.0.11', 80))
    const [server] = table.service(key)?.servers ?? []
    if (server === undefined) throw new Error('no server')
    count(datapath, 0, server.id, 1000)
    await waitFor('the count to show', async () => (table.service(key)?.rates.conns ?? 0n) > 0n)
    table.deleteServer(key, server)
    maps.servers.setRemoved(server.id, 0)
    t.same(table.totals().counters.conns, 1000n)
    table.addServer(key, real('10.2.0.12', 80)) /* which frees the id of the one removed long ago */
    t.equal(table.service(key)?.servers[0]?.id, server.id, 'the id is used again')
    t.equal(table.service(key)?.counters.conns, 1000n, 'the service keeps what its old server counted')
    t.equal(table.totals().counters.conns, 1000n, 'so does the whole')
    const before = table.service(key)?.rates.conns ?? 0n
    await waitFor('a step', async () => (table.service(key)?.rates.conns ?? 0n) !== before)
    t.ok((table.service(key)?.rates.conns ?? 0n) < before, 'the rate falls on')
  },
)
