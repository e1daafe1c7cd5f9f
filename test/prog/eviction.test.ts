/** Tables so small that they fill up. */
import t, { type Test } from 'tap'
import { tableShape } from '../helpers/conn-invariants.ts'
import { Datapath } from '../helpers/prog.ts'
import { datagram } from '../helpers/prog-flow.ts'
import { addService, connectionTexts, countTexts } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const room = 64

function ask(datapath: Datapath, n: number, at: 'xdp' | 'ingress' = 'ingress'): string {
  return datapath.run({ at, side: 'clients', packet: datagram({ from: `10.1.0.${n}:1000`, to: '10.9.0.1:53' }) }).action
}

function fill(datapath: Datapath): void {
  datapath.clear()
  addService(datapath, { at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53', '10.2.0.12:53'] })
  for (let n = 1; n <= room; n++) ask(datapath, n)
}

function sound(t: Test, datapath: Datapath, connections: number): void {
  const shape = tableShape(datapath)
  t.same(shape.problems, [], 'the table is consistent')
  t.equal(shape.connections, connections)
}

t.test('a table of 64 connections', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t, { connections: room })
  t.equal(datapath.maps.conns.length, room)

  await t.test('when it is full, the nearest its end of those looked at gives way, and is counted', async (t) => {
    fill(datapath)
    t.same(datapath.verdicts(), {}, 'so far nobody had to go')
    // Of 64 entries 32 are looked at, from anywhere: these two are 32 apart, so exactly one of them is among them.
    const near = [5, 5 + room / 2].map((i) => `10.1.0.${i + 1}:1000`)
    datapath.expire(100, (_, i) => i === 5 || i === 5 + room / 2)
    t.equal(ask(datapath, 100, 'xdp'), 'send')
    t.same(datapath.verdicts(), { EVICTED: 1 })
    const left = connectionTexts(datapath)
    t.equal(left.filter((text) => near.some((client) => text.includes(` ${client} `))).length, 1, 'one of the two went')
    t.equal(left.filter((text) => text.includes(' 10.1.0.100:1000 ')).length, 1, 'for the new one')
    sound(t, datapath, room)
  })

  await t.test('it goes on serving a thousand new clients, and its counts stay true', async (t) => {
    fill(datapath)
    const actions = Array.from({ length: 1000 }, (_, n) => {
      const from = `10.1.${1 + (n >> 8)}.${n & 255}:2000`
      return datapath.run({ at: 'xdp', side: 'clients', packet: datagram({ from, to: '10.9.0.1:53' }) }).action
    })
    t.ok(actions.every((action) => action === 'send'))
    t.same(datapath.verdicts(), { EVICTED: 1000 })
    sound(t, datapath, room)
    const total = countTexts(datapath, 'udp 10.9.0.1:53').reduce((sum, text) => sum + Number(text.split('/')[1]), 0)
    t.equal(total, room)
    t.equal(datapath.table.services()[0]?.counters.conns, BigInt(1000 + room))
  })

  await t.test('a template with a connection never gives way, so none is left without', async (t) => {
    datapath.clear()
    const servers = ['10.2.0.11:53', '10.2.0.12:53', '10.2.0.13:53']
    addService(datapath, { at: 'udp 10.9.0.1:53', servers, persistent: true })
    const actions = Array.from({ length: 1000 }, (_, n) => {
      const from = `10.1.${1 + (n >> 8)}.${n & 255}:2000`
      return datapath.run({ at: 'ingress', side: 'clients', packet: datagram({ from, to: '10.9.0.1:53' }) }).action
    })
    t.ok(actions.every((action) => action === 'send'))
    t.ok((datapath.verdicts().EVICTED ?? 0) >= 2 * 1000 - room, 'each brought two entries')
    const shape = tableShape(datapath)
    t.same(shape.problems, [], 'the table is consistent')
    t.equal(shape.connections + shape.templates, room)
    const texts = connectionTexts(datapath)
    const serverOf = new Map(
      texts
        .filter((text) => text.includes(':0 '))
        .map((text) => text.split(/[ :]/))
        .map((words) => [words[2], words.at(-2)]),
    )
    const left = texts.filter((text) => !text.includes(':0 ')).map((text) => text.split(/[ :]/))
    t.ok(left.length > 0)
    for (const words of left) t.equal(words.at(-2), serverOf.get(words[2]), `${words[2]} is where its template says`)
  })

  await t.test('what has expired is taken before anybody has to go, at the latest after a sweep', async (t) => {
    fill(datapath)
    datapath.expire(0, (_, i) => i === 20)
    datapath.handles.sweep()
    t.equal(ask(datapath, 101), 'send')
    t.same(datapath.verdicts(), {})
    sound(t, datapath, room)
  })

  await t.test('if nobody can be made to go, the packet is dropped and counted', async (t) => {
    fill(datapath)
    for (let line = 0; line < datapath.lines.length; line++) datapath.lines.setLock(line, 1)
    const actions = [ask(datapath, 102, 'xdp'), ask(datapath, 102, 'ingress')]
    for (let line = 0; line < datapath.lines.length; line++) datapath.lines.setLock(line, 0)
    t.same(actions, ['pass', 'drop'])
    t.same(datapath.verdicts(), { DROP_TABLE_FULL: 1 })
    sound(t, datapath, room)
  })

  await t.test('connections of one client overflow into the second of two lines, and are found there', async (t) => {
    datapath.clear()
    const many = 40
    for (let n = 1; n <= many; n++) addService(datapath, { at: `udp 10.9.1.${n}:53`, servers: [`10.2.1.${n}:53`] })
    const both = (from: string) =>
      Array.from({ length: many }, (_, i) => i + 1).flatMap((n) => [
        datapath.run({ at: 'xdp', side: 'clients', packet: datagram({ from, to: `10.9.1.${n}:53` }) }).action,
        datapath.run({
          at: 'xdp',
          side: 'servers',
          packet: datagram({ leg: 'from server', from: `10.2.1.${n}:53`, to: from }),
        }).action,
      ])
    const all = Array.from({ length: 2 * many }, () => 'send')
    // The index is keyed at random, so how full lines get is, too: try until some line overflowed.
    let shape = tableShape(datapath)
    let from = ''
    for (let client = 1; client < 100 && shape.inSecond === 0; client++) {
      datapath.clearConnections()
      from = `10.1.0.${client}:1000`
      t.same(both(from), all, 'requests and replies')
      shape = tableShape(datapath)
    }
    t.same(shape.problems, [])
    t.ok(shape.inSecond > 0, `${shape.inSecond} references in second lines, of ${shape.spilled} spilled connections`)
    t.same(both(from), all, 'all are found again')
    t.equal(tableShape(datapath).connections, shape.connections, 'none was made twice')
  })
})
