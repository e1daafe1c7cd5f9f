import t, { type Test } from 'tap'
import { tableShape } from '../helpers/conn-invariants.ts'
import { decode } from '../helpers/decode.ts'
import { real, service, virtual } from '../helpers/director.ts'
import { Datapath, type Place } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { addService, countTexts, keyOf, samePacket } from '../helpers/prog-rows.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

t.setTimeout(900_000)

/** The name that the table counts an end of the test by: what is wrong with the table now. */
function sound(t: Test, datapath: Datapath, expected: { connections: number; spilled?: number }): void {
  const { problems, connections, spilled } = tableShape(datapath)
  t.same(problems, [], 'the table is consistent')
  t.same({ connections, spilled }, { spilled: 0, ...expected }, 'and has as many connections as it should')
}

/** The servers' ports of the packets that a request and its reply became; both must have been sent. */
function exchange(datapath: Datapath, at: Place, from: string, to: string, server: string): void {
  const request = datapath.run({ at, side: 'clients', packet: datagram({ from, to }) })
  const reply = datapath.run({ at, side: 'servers', packet: datagram({ leg: 'from server', from: server, to: from }) })
  if (request.action !== 'send' || reply.action !== 'send') {
    throw new Error(`${from} -> ${to}: request ${request.exactly}, reply ${reply.exactly}`)
  }
  const back = decode(reply.packet)
  const sender = `${back['ip.from'] ?? `[${back['ip6.from']}]`}:${back['udp.sport']}`
  if (sender !== to) throw new Error(`the reply of ${to} came from ${sender}`)
}

const expiry = async (t: Test, datapath: Datapath) => {
  const fresh = () => {
    datapath.clear()
    addService(datapath, { at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53', '10.2.0.12:53'] })
    addService(datapath, { at: 'tcp 10.9.0.1:80', servers: ['10.2.0.11:80', '10.2.0.12:80'] })
  }
  const packet = datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53' })
  const to = (server: string) => datagram({ leg: 'to server', from: '10.1.0.1:1000', to: server, ttl: 63 })

  for (const at of ['ingress', 'xdp'] as const) {
    await t.test(`${at}: a request of an expired connection begins a new one`, async (t) => {
      fresh()
      samePacket(t, datapath.run({ at, side: 'clients', packet }).packet, to('10.2.0.12:53'), 'the first server')
      datapath.expire(0)
      samePacket(t, datapath.run({ at, side: 'clients', packet }).packet, to('10.2.0.11:53'), 'the next one in turn')
      t.equal(datapath.table.service(keyOf('udp 10.9.0.1:53'))?.counters.conns, 2n)
      datapath.handles.sweep()
      sound(t, datapath, { connections: 1 })
    })
    await t.test(`${at}: a reply of an expired connection is nobody's`, async (t) => {
      fresh()
      datapath.run({ at, side: 'clients', packet })
      datapath.expire(-1000)
      const reply = datagram({ leg: 'from server', from: '10.2.0.12:53', to: '10.1.0.1:1000' })
      const out = datapath.run({ at, side: 'servers', packet: reply })
      t.equal(out.action, 'pass')
      samePacket(t, out.packet, reply, 'unchanged')
    })
  }

  await t.test('a segment of an expired connection belongs to none, and is reset', async (t) => {
    fresh()
    const o = { from: '10.1.0.1:1000', to: '10.9.0.1:80' }
    datapath.run({ at: 'ingress', side: 'clients', packet: segment({ ...o, flags: 'S' }) })
    datapath.expire(0)
    const { packet: answer } = datapath.run({ at: 'ingress', side: 'clients', packet: segment({ ...o, flags: 'A' }) })
    t.equal(decode(answer)['tcp.flags'], 'R')
    t.equal(datapath.verdicts().REFUSE_NO_CONN, 1)
  })

  await t.test('a connection lives to the end of its last tick', async (t) => {
    fresh()
    datapath.run({ at: 'ingress', side: 'clients', packet })
    datapath.expire(3)
    datapath.run({ at: 'ingress', side: 'clients', packet })
    t.equal(datapath.table.service(keyOf('udp 10.9.0.1:53'))?.counters.conns, 1n, 'it was the same one')
  })

  await t.test('a sweep frees what has expired, and nothing else, and corrects the counts', async (t) => {
    fresh()
    for (let n = 0; n < 100; n++) {
      datapath.run({ at: 'xdp', side: 'clients', packet: datagram({ from: `10.1.1.${n}:1000`, to: '10.9.0.1:53' }) })
      datapath.run({
        at: 'xdp',
        side: 'clients',
        packet: segment({ from: `10.1.1.${n}:1000`, to: '10.9.0.1:80', flags: 'S' }),
      })
    }
    sound(t, datapath, { connections: 200 })
    t.same(countTexts(datapath, 'udp 10.9.0.1:53'), ['0/50', '0/50'])
    t.same(countTexts(datapath, 'tcp 10.9.0.1:80'), ['50/0', '50/0'])
    datapath.expire(-5, (conns, i) => conns.proto(i) === 17)
    datapath.handles.sweep()
    sound(t, datapath, { connections: 100 })
    t.same(countTexts(datapath, 'udp 10.9.0.1:53'), ['0/0', '0/0'])
    t.same(countTexts(datapath, 'tcp 10.9.0.1:80'), ['50/0', '50/0'])
  })

  await t.test('a full line of expired connections makes room for a new one', async (t) => {
    datapath.clear()
    for (let n = 1; n <= 9; n++) addService(datapath, { at: `udp 10.9.0.${n}:53`, servers: ['10.2.0.11:53'] })
    const ask = (n: number) => {
      const from = '10.1.0.1:1000'
      return datapath.run({ at: 'xdp', side: 'clients', packet: datagram({ from, to: `10.9.0.${n}:53` }) }).action
    }
    for (let n = 1; n <= 7; n++) t.equal(ask(n), 'send')
    datapath.expire(0)
    t.equal(ask(8), 'send')
    datapath.handles.sweep()
    sound(t, datapath, { connections: 1 })
  })
}

const spilling = async (t: Test, datapath: Datapath) => {
  for (const family of [4, 6] as const) {
    await t.test(`one port of a client has connections to 200 services at once (IPv${family})`, async (t) => {
      datapath.clear()
      const from = family === 4 ? '10.1.0.1:1000' : '[fd00:1::1]:1000'
      const vip = (n: number) => (family === 4 ? `10.9.1.${n}:53` : `[fd00:9::${n.toString(16)}]:53`)
      const server = (n: number) => (family === 4 ? `10.2.1.${n}:53` : `[fd00:2::${n.toString(16)}]:53`)
      for (let n = 1; n <= 200; n++) addService(datapath, { at: `udp ${vip(n)}`, servers: [server(n)] })
      const all = (at: Place) => {
        for (let n = 1; n <= 200; n++) exchange(datapath, at, from, vip(n), server(n))
      }
      all('xdp')
      sound(t, datapath, { connections: 200, spilled: 193 })
      all('ingress')
      sound(t, datapath, { connections: 200, spilled: 193 })
      const services = datapath.table.services()
      t.ok(
        services.every(({ counters }) => counters.conns === 1n && counters.inPkts === 2n && counters.outPkts === 2n),
        'each service has one connection, and its packets both ways',
      )
      datapath.expire(0)
      datapath.handles.sweep()
      sound(t, datapath, { connections: 0 })
      all('xdp')
      sound(t, datapath, { connections: 200, spilled: 193 })
    })
  }
}

const trouble = async (t: Test, datapath: Datapath) => {
  const packet = datagram({ from: '10.1.0.1:1000', to: '10.9.0.1:53' })
  const lockAll = (locked: number) => {
    for (let line = 0; line < datapath.lines.length; line++) datapath.lines.setLock(line, locked)
  }
  await t.test('a line that stays locked costs the packet, and nothing else', async (t) => {
    datapath.clear()
    addService(datapath, { at: 'udp 10.9.0.1:53', servers: ['10.2.0.11:53'] })
    lockAll(1)
    t.equal(datapath.run({ at: 'xdp', side: 'clients', packet }).action, 'pass', 'XDP leaves it to tcx')
    const out = datapath.run({ at: 'ingress', side: 'clients', packet })
    lockAll(0)
    t.equal(out.action, 'drop')
    samePacket(t, out.packet, packet, 'unchanged')
    t.same(datapath.verdicts(), { DROP_BUSY: 1 })
    sound(t, datapath, { connections: 0 })
    t.equal(datapath.run({ at: 'ingress', side: 'clients', packet }).action, 'send', 'the next one gets through')
    sound(t, datapath, { connections: 1 })
  })
}

interface Release {
  readonly do: 'release'
  readonly x: number
  readonly y: number
  readonly expired: number
  readonly left: number
  readonly reached: boolean
}

const thresholds = async (t: Test, datapath: Datapath) => {
  const { scenarios } = readJsonRecording<{ scenarios: { name: string; steps: Release[] }[] }>('extra2')
  const steps = scenarios.find(({ name }) => name === 'threshold_release')?.steps ?? []
  const tally = new Tally('extra2')
  const host = new Host(datapath, { xdp: true })
  const key = virtual('10.9.0.1', 53, 'udp')
  for (const [i, { x, y, expired, left, reached }] of steps.entries()) {
    datapath.clear()
    datapath.table.addService(service(key))
    datapath.table.addServer(key, { ...real('10.2.0.11', 53), upper: x, lower: y })
    for (let n = 0; n < x; n++) host.udp(`10.1.0.1:${2000 + n}`, '10.9.0.1:53')
    let ended = 0
    datapath.expire(0, () => ended++ < expired)
    datapath.handles.sweep()
    const got = Host.server(host.udp('10.1.0.2:3000', '10.9.0.1:53')) !== undefined
    const what = `-x ${x} -y ${y}: ${expired} of ${x} ended: the server is ${reached ? '' : 'not '}chosen again`
    t.same(tally.note('threshold_release', i, what, got === reached ? [] : [`chosen: ${got}`]), [], what)
    sound(t, datapath, { connections: left + Number(reached) })
  }
  tally.end(t)
}

t.test('connections', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  const part = (name: string, run: (t: Test, datapath: Datapath) => Promise<void>) =>
    t.test(name, (t) => run(t, datapath))
  await part('expiry', expiry)
  await part('many connections of one client', spilling)
  await part('trouble', trouble)
  await part('thresholds close and open a server as the kernel does', thresholds)
})
