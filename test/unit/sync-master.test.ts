import t from 'tap'
import { LbConnFlag, LbFwd, LbState, LbTemplate } from '../../src/abi/generated.ts'
import { TableMaps } from '../../src/maps/table-maps.ts'
import { connFlags, decodeMessage, type SyncRecord } from '../../src/sync/message.ts'
import { Master } from '../../src/sync/master.ts'
import type { SyncDaemon } from '../../src/sync/options.ts'
import { SyncState } from '../../src/sync/state.ts'
import { MemoryHandles } from '../helpers/memory-handles.ts'

const daemon: SyncDaemon = {
  role: 'master',
  syncId: 7,
  interface: 'eth0',
  maxLength: 200,
  group: '224.0.0.81',
  port: 8848,
  ttl: 1,
}

interface Entry {
  readonly proto?: number
  readonly state?: number
  readonly flags?: number
  readonly fwd?: number
  readonly port?: number
  readonly datagrams?: number
  /** Ticks left. */
  readonly left?: number
}

/** A master on a table in memory whose only server is 10.2.0.11, and what it told. */
class Scene {
  readonly handles = new MemoryHandles({ connections: 8192 })
  readonly maps = new TableMaps(this.handles)
  readonly state = new SyncState(this.handles, 'master')
  outcome: 'sent' | 'later' | 'failed' = 'sent'
  readonly #told: SyncRecord[] = []
  readonly #master: Master
  #messages = 0

  constructor() {
    const { config, servers } = this.maps
    for (const state of Object.values(LbState)) if (state < LbState.STATES) config.setTimeout(0, state, 900)
    config.setTimeout(0, LbState.TCP_TIME_WAIT, 12)
    servers.setAddr(1, Uint8Array.of(10, 2, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    servers.setAf(1, 4)
    this.state.write(daemon)
    this.#master = new Master(this.maps, daemon, this.state, (message) => {
      if (this.outcome !== 'sent') return this.outcome
      this.#messages++
      this.#told.push(...decodeMessage(message, daemon).records)
      return 'sent'
    })
  }

  put(i: number, { proto = 6, state = LbState.TCP_ESTABLISHED, flags = 0, fwd = 0, ...rest }: Entry): void {
    const { conns, connPools } = this.maps
    const { port = 1000 + i, datagrams = 0, left = 10_000 } = rest
    conns.clear(i)
    conns.setCaddr(i, Uint8Array.of(10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    conns.setVaddr(i, Uint8Array.of(10, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    conns.setCport(i, port)
    conns.setVport(i, 80)
    conns.setDport(i, 8080)
    conns.setProto(i, proto)
    conns.setServer(i, 1)
    conns.setState(i, state)
    conns.setFlags(i, flags)
    conns.setFwd(i, fwd)
    conns.setPackets(i, datagrams)
    conns.setExpires(i, (this.tick() + left) >>> 0)
    conns.setAf(i, 4)
    connPools.setHigh(0, Math.max(connPools.high(0), i + 1))
  }

  tick(): number {
    return Number(BigInt.asUintN(32, this.handles.jiffies >> 4n))
  }

  /** Client ports of the connections that the master tells of when it looks through the table once. */
  look(): number[] {
    return this.records().map(({ clientPort }) => clientPort)
  }

  records(): SyncRecord[] {
    for (let slice = 0; slice < 3; slice++) this.#master.step()
    return this.#told.splice(0)
  }

  messages(): number {
    return this.#messages
  }
}

t.test('a connection is told of in the states that IPVS tells of, and in no other', async (t) => {
  const told = new Set([
    LbState.TCP_ESTABLISHED,
    LbState.TCP_FIN_WAIT,
    LbState.TCP_TIME_WAIT,
    LbState.TCP_CLOSE,
    LbState.TCP_CLOSE_WAIT,
    LbState.SCTP_ESTABLISHED,
    LbState.SCTP_SHUTDOWN_SENT,
    LbState.SCTP_SHUTDOWN_RECEIVED,
    LbState.SCTP_SHUTDOWN_ACK_SENT,
    LbState.SCTP_CLOSED,
  ] as number[])
  for (const [name, state] of Object.entries(LbState)) {
    if (state === LbState.STATES || state === LbState.UDP_NORMAL) continue
    const scene = new Scene()
    scene.put(0, { state, proto: name.startsWith('SCTP') ? 132 : 6 })
    t.equal(scene.look().length, told.has(state) ? 1 : 0, name)
  }
})

t.test('a record has the numbers that IPVS gives states and methods', async (t) => {
  const rows: readonly (readonly [Entry, Partial<SyncRecord>])[] = [
    [{}, { protocol: 6, state: 1, flags: 0, timeoutS: 900, serverPort: 8080 }],
    [
      { state: LbState.TCP_TIME_WAIT, flags: LbConnFlag.CONN_INACTIVE },
      { state: 5, flags: connFlags.INACTIVE, timeoutS: 12 },
    ],
    [{ fwd: LbFwd.FWD_DROUTE, flags: LbConnFlag.CONN_NOOUTPUT }, { flags: connFlags.NO_OUTPUT | 3 }],
    [
      { proto: 17, state: LbState.UDP_NORMAL, datagrams: 3 },
      { protocol: 17, state: 0 },
    ],
    [
      { proto: 132, state: LbState.SCTP_CLOSED },
      { protocol: 132, state: 13 },
    ],
  ]
  for (const [entry, expected] of rows) {
    const scene = new Scene()
    scene.put(0, entry)
    t.match(scene.records(), [expected])
  }
})

t.test('what others know they are not told again, until it changes', async (t) => {
  const scene = new Scene()
  scene.put(0, {})
  t.same(scene.look(), [1000])
  t.same(scene.look(), [])
  scene.put(0, { state: LbState.TCP_FIN_WAIT })
  t.same(scene.look(), [1000], 'a change of state')
  scene.put(0, { state: LbState.TCP_FIN_WAIT, port: 2000 })
  t.same(scene.look(), [2000], 'the entry became that of another connection')
  scene.maps.conns.setAf(0, 0)
  t.same(scene.look(), [])
  scene.put(0, { state: LbState.TCP_FIN_WAIT, port: 2000 })
  t.same(scene.look(), [2000], 'and the same connection once more')
})

t.test('others learn again of a connection in use after a minute, or half of its time, or ten seconds', async (t) => {
  const perSecond = 250 / 16
  for (const [state, seconds] of [
    [LbState.TCP_ESTABLISHED, 60],
    [LbState.TCP_TIME_WAIT, 10],
  ] as const) {
    const scene = new Scene()
    scene.put(0, { state })
    scene.look()
    scene.put(0, { state, left: 10_000 + Math.floor((seconds - 1) * perSecond) })
    t.same(scene.look(), [], `${state}: not yet`)
    scene.put(0, { state, left: 10_000 + Math.ceil(seconds * perSecond) })
    t.same(scene.look(), [1000], `${state}: now`)
    t.same(scene.look(), [], `${state}: once`)
  }
})

t.test("of a client's datagrams the third makes the connection worth telling", async (t) => {
  const scene = new Scene()
  const look = (datagrams: number): number[] => {
    scene.put(0, { proto: 17, state: LbState.UDP_NORMAL, datagrams })
    return scene.look()
  }
  t.same([look(1), look(2), look(3), look(3)], [[], [], [1000], []])
})

t.test('what another director told is not told back until a packet has been here', async (t) => {
  const scene = new Scene()
  scene.put(0, { flags: LbConnFlag.CONN_SYNC })
  t.same(scene.look(), [])
  scene.put(0, {})
  t.same(scene.look(), [1000])
  scene.put(0, { state: LbState.TCP_CLOSE, flags: LbConnFlag.CONN_SYNC })
  t.same(scene.look(), [], 'changed by the other director')
})

t.test('a connection whose time is over is not told of', async (t) => {
  const scene = new Scene()
  scene.put(0, { left: 0 })
  scene.put(1, { left: -5 })
  scene.put(2, { left: 1 })
  t.same(scene.look(), [1002])
})

t.test('a template is told of with its own time, and again when it is assured', async (t) => {
  const scene = new Scene()
  const put = (flags: number): void => {
    scene.put(0, { proto: 6 | LbTemplate.TEMPLATE, state: LbState.TCP_NONE, flags, port: 0 })
    scene.maps.conns.setHopToken(0, 300)
  }
  put(LbConnFlag.CONN_NOOUTPUT)
  const flags = connFlags.TEMPLATE | connFlags.INACTIVE
  t.match(scene.records(), [{ protocol: 6, flags, state: 0, timeoutS: 300, clientPort: 0 }])
  put(LbConnFlag.CONN_NOOUTPUT | LbConnFlag.CONN_ASSURED)
  t.match(scene.records(), [{ protocol: 6, flags, state: 1 }])
  put(LbConnFlag.CONN_NOOUTPUT | LbConnFlag.CONN_VOID)
  t.same(scene.records(), [], 'one that no longer counts is of no use to others')
})

t.test('messages are full, and what the socket has no room for is sent later, in order', async (t) => {
  const scene = new Scene()
  const ports = Array.from({ length: 12 }, (_, i) => 1000 + i)
  for (const i of ports.keys()) scene.put(i, {})
  scene.outcome = 'later'
  t.same(scene.look(), [])
  scene.outcome = 'sent'
  t.same(scene.look(), ports)
  t.equal(scene.messages(), 3, 'five records of 36 bytes in a message of 200')
  t.match(scene.state.counters(), { messages: 3n, connections: 12n, failed: 0n })
  scene.put(12, {})
  scene.outcome = 'failed'
  scene.look()
  t.match(scene.state.counters(), { messages: 3n, failed: 1n })
})

t.test('a table of many connections is told in parts, each connection once', async (t) => {
  const scene = new Scene()
  for (let i = 0; i < 5000; i++) scene.put(i, {})
  const told: number[] = []
  for (let rounds = 0; rounds < 6; rounds++) told.push(...scene.look())
  t.equal(told.length, 5000)
  t.equal(new Set(told).size, 5000)
})
