/** SCTP: states as the kernel's IPVS recorded them, what opens an association, checksums, refusals. */
import t, { type Test } from 'tap'
import { LbBypassMode, LbConnFlag, LbState } from '../../src/abi/generated.ts'
import { chunk, concat } from '../helpers/packet.ts'
import { Datapath } from '../helpers/prog.ts'
import { association, message, quote } from '../helpers/prog-flow.ts'
import { addService, connectionTexts, countTexts, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { endsOf } from '../helpers/prog-host.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { type IpvsadmStep, Replay } from '../helpers/replay.ts'
import { Findings, Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

interface Recorded {
  readonly from: 'c' | 's'
  /** The state before; left out: there was no connection. */
  readonly state?: string
  readonly chunk: string
  readonly hex: string
  /** Connections afterwards: state, seconds left. */
  readonly after: readonly (readonly [string, number])[]
  /** Active and inactive connections, before and after. */
  readonly counts?: readonly (readonly [string, string])[]
  /** Who received what. */
  readonly seen: readonly string[]
}

const scenarios = new Map(
  readJsonRecording<{ scenarios: readonly { name: string; steps: readonly Recorded[] }[] }>('sctp').scenarios.map(
    ({ name, steps }) => [name, steps],
  ),
)

/** Plays a recorded scenario. */
function playScenario(t: Test, tally: Tally, name: string, player: Player): void {
  const steps = scenarios.get(name)
  if (steps === undefined) throw new Error(`the recording has no scenario ${name}`)
  for (const [i, step] of steps.entries()) {
    player.play(step)
    const what = `${step.state ?? 'no connection'}, ${step.from}: chunk ${step.chunk}`
    t.same(tally.note(name, i, what, player.found.take()), [], what)
  }
}

const flow = { client: '10.1.0.1', virtual: '10.9.0.1:9999', server: '10.2.0.11:9999' }
const serviceKey = `sctp ${flow.virtual}`
const states = [
  'NONE',
  'INIT1',
  'INIT',
  'C-SENT',
  'C-REPLIED',
  'C-WAIT',
  'COOKIE',
  'C-ECHOED',
  'ESTABLISHED',
  'S-SENT',
  'S-RECEIVED',
  'S-ACK-SENT',
  'REJECTED',
  'CLOSED',
]

/** Plays recorded packets, each on a connection of its own, and collects what differs. */
class Player {
  readonly found = new Findings()
  readonly #datapath: Datapath
  readonly #flags: number
  #port = 10_000
  #compared = 0

  constructor(datapath: Datapath, flags = 0) {
    this.#datapath = datapath
    this.#flags = flags
    datapath.clear()
    datapath.maps.config.setBypass(0, LbBypassMode.BYPASS_ALWAYS)
    addService(datapath, { at: serviceKey, servers: [flow.server] })
  }

  #send(from: 'c' | 's', body: Uint8Array): string {
    const client = `${flow.client}:${this.#port}`
    const packet =
      from === 'c'
        ? association({ from: client, to: flow.virtual, payload: body })
        : association({ leg: 'from server', from: flow.server, to: client, payload: body })
    return this.#datapath.run({ at: 'ingress', side: from === 'c' ? 'clients' : 'servers', packet }).action
  }

  /** As a message of the sync protocol would: state, the flags that go with it, the counts that go with those. */
  #put(state: number): void {
    const { conns, serverStates } = this.#datapath.maps
    const i = this.#datapath.entries().find((each) => conns.cport(each) === this.#port) ?? -1
    const active = state === LbState.SCTP_ESTABLISHED
    if (active) {
      serverStates.setActive(conns.server(i), serverStates.active(conns.server(i)) + 1)
      serverStates.setInactive(conns.server(i), serverStates.inactive(conns.server(i)) - 1)
    }
    conns.setState(i, state)
    conns.setFlags(i, (active ? 0 : LbConnFlag.CONN_INACTIVE) | LbConnFlag.CONN_BYPASS | this.#flags)
  }

  #active(): number {
    return Number(countTexts(this.#datapath, serviceKey)[0]?.split('/')[0])
  }

  play(step: Recorded): void {
    this.#port++
    if (step.state !== undefined) {
      this.#send('c', chunk(1))
      this.#put(LbState.SCTP_NONE + states.indexOf(step.state))
    }
    const before = this.#active()
    const action = this.#send(step.from, Buffer.from(step.hex, 'hex'))
    const mine = connectionTexts(this.#datapath).filter((text) => text.includes(`:${this.#port} `))
    const found = mine.map((text) => text.split(' '))
    const what = `${step.state ?? 'no connection'}, ${step.from}: chunk ${step.chunk}`
    this.found.same(
      found.map(([state]) => state),
      step.after.map(([state]) => state),
      what,
    )
    // Without a chunk the kernel's timer goes on with what the sync message said. Some were read in their first jiffy.
    if (!['nothing', 'half a chunk header'].includes(step.chunk)) {
      const late = step.after.map(([, seconds], i) => seconds - Number(found[i]?.[1]))
      this.found.same(
        late.filter((seconds) => seconds !== 0 && seconds !== 1),
        [],
        `${what}: seconds left`,
      )
    }
    this.found.same(action === 'send', step.seen.length > 0, `${what}: goes on to its end or not`)
    this.#counts(step, before, what)
  }

  /** Connections of other packets may have ended just then, which the total shows. */
  #counts({ state, after, counts }: Recorded, before: number, what: string): void {
    const active = (names: readonly (string | undefined)[]) => names.filter((name) => name === 'ESTABLISHED').length
    const own = active(after.map(([name]) => name)) - active([state])
    this.found.same(this.#active() - before, own, `${what}: active connections`)
    if (counts === undefined) return
    const [was, is] = counts.map(([active, inactive]) => ({
      active: Number(active),
      all: Number(active) + Number(inactive),
    }))
    const more = after.length - (state === undefined ? 0 : 1)
    if ((is?.all ?? 0) - (was?.all ?? 0) !== more) return
    this.#compared++
    this.found.same((is?.active ?? 0) - (was?.active ?? 0), own, `${what}: recorded active connections`)
  }

  /** How many recorded counts could be compared. */
  get compared(): number {
    return this.#compared
  }
}

const ends = {
  IPv4: { client: '10.1.0.1:1000', virtual: '10.9.0.1:80', server: '10.2.0.11:8080', same: '10.2.0.11:80' },
  IPv6: {
    client: '[fd00:1::1]:1000',
    virtual: '[fd00:9::1]:80',
    server: '[fd00:2::11]:8080',
    same: '[fd00:2::11]:80',
  },
} as const

const sizes = [4, 8, 16, 36, 64, 100, 128, 256, 512, 1000, 1024, 1468]

/** The checksum that the incremental change gives is that of the whole, for every power of two in the length. */
function checksums(at: 'ingress' | 'xdp'): Row[] {
  const { client, virtual, server, same } = ends.IPv4
  const step = (body: Uint8Array, to: string, checksum?: number, after = checksum): Step => ({
    at,
    side: 'clients',
    packet: association({ from: client, to: virtual, payload: body, ...(checksum === undefined ? {} : { checksum }) }),
    expect: {
      action: 'send',
      packet: association({
        leg: 'to server',
        from: client,
        to,
        ttl: 63,
        payload: body,
        ...(after === undefined ? {} : { checksum: after }),
      }),
    },
  })
  const bodies = sizes.map((size) => concat(chunk(1), new Uint8Array(size - 4).fill(size)))
  const rows: Row[] = [
    {
      name: `${at}: the checksum is right for packets of every length`,
      services: [{ at: `sctp ${virtual}`, servers: [server] }],
      steps: [
        ...bodies.map((body) => step(body, server)),
        step(concat(chunk(1), Uint8Array.of(1, 2, 3)), server),
        step(concat(chunk(1), Uint8Array.of(0x5a)), server),
      ],
    },
    {
      name: `${at}: where the port stays, the checksum does, right or wrong`,
      services: [{ at: `sctp ${virtual}`, servers: [same] }],
      steps: [step(chunk(1), same), step(chunk(1), same, 0x12345678)],
    },
  ]
  const left: Row = {
    name: 'ingress: a checksum that was left to the device stays so',
    services: [{ at: `sctp ${virtual}`, servers: [server] }],
    steps: [step(chunk(1), server, 0)],
  }
  return at === 'xdp' ? rows : [...rows, left, ...segments()]
}

/**
 * Many segments in one, as a local sender makes them: a list of packets under one header, whose checksum is left to who
 * cuts them. Nothing is known of their sizes here, so it goes through the stack, which looks.
 */
function segments(): Row[] {
  const { client, virtual, server, same } = ends.IPv4
  const payload = concat(chunk(1), new Uint8Array(2000))
  const make = (to: string, o: object = {}) => association({ from: client, to, payload, checksum: 0, ...o })
  const step = (packet: Uint8Array, action: 'pass' | 'send'): Step => ({
    at: 'ingress',
    side: 'clients',
    packet: make(virtual),
    gso: { segments: 2, size: 0xffff },
    expect: { action, packet },
  })
  const name = 'ingress: many segments in one'
  return [
    {
      name: `${name} are translated, their checksum stays with who cuts them, and the stack sends them`,
      services: [{ at: `sctp ${virtual}`, servers: [server] }],
      steps: [step(make(server), 'pass')],
    },
    {
      name: `${name} are sent by direct routing`,
      services: [{ at: `sctp ${virtual}`, servers: [`${same} 1 droute`] }],
      steps: [step(make(virtual, { leg: 'to server', ttl: 63 }), 'send')],
    },
  ]
}

function refusals(family: keyof typeof ends): Row[] {
  const { client, virtual, server } = ends[family]
  const packet = association({ from: client, to: virtual, payload: concat(chunk(1), new Uint8Array(16)) })
  const [from, to] = family === 'IPv4' ? ['10.9.0.1', '10.1.0.1'] : ['fd00:9::1', 'fd00:1::1']
  const type = family === 'IPv4' ? 3 : 1
  const unreachable = message({
    leg: 'to client',
    from,
    to,
    type,
    code: family === 'IPv4' ? 3 : 4,
    payload: quote(packet),
    ...(family === 'IPv4' ? { ipv4: { tos: 0xc0, id: 0, df: false } } : {}),
  })
  return [
    {
      name: `${family}: an association that no server can take is refused as port unreachable`,
      services: [{ at: `sctp ${virtual}`, servers: [`${server} 0`] }],
      steps: [
        { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
        {
          at: 'ingress',
          side: 'clients',
          packet,
          expect: { action: 'send', packet: unreachable, verdicts: { REFUSE_NO_SERVER: 1 }, connections: [] },
        },
      ],
    },
    ...(['xdp', 'ingress'] as const).map(
      (at): Row => ({
        name: `${family}: at ${at} a packet of no association goes to the stack, one without a chunk nowhere`,
        services: [{ at: `sctp ${virtual}`, servers: [server] }],
        steps: [
          {
            at,
            side: 'clients',
            packet: association({ from: client, to: virtual, payload: chunk(0) }),
            expect: { action: 'pass', connections: [] },
          },
          {
            at,
            side: 'clients',
            packet: association({ from: client, to: virtual }),
            expect: { action: 'drop', verdicts: { DROP_MALFORMED: 1 }, connections: [] },
          },
          {
            at,
            side: 'clients',
            // As short frames come from the wire: padded to 60 bytes, which are no chunk.
            packet: concat(association({ from: client, to: virtual }), new Uint8Array(14)),
            expect: { action: 'drop', verdicts: { DROP_MALFORMED: 1 }, connections: [] },
          },
        ],
      }),
    ),
  ]
}

type LifeStep =
  | IpvsadmStep
  | { readonly do: 'wire'; readonly seen: readonly string[] }
  | { readonly do: 'sctp data'; readonly got: string }

/**
 * The chunks of real associations, as the client's wire saw them pass in both directions, and the listings in between:
 * what passed before the second of two listings in a row is recorded behind it.
 */
async function playLife(
  t: Test,
  datapath: Datapath,
  { name, steps }: { readonly name: string; readonly steps: readonly LifeStep[] },
  tally: Tally,
): Promise<void> {
  datapath.clear()
  const replay = new Replay(datapath, { xdp: false })
  const judge = (step: LifeStep, what: string, found: string[]) =>
    t.same(tally.note(name, steps.indexOf(step), what, found), [], what)
  const wires = steps.filter((step) => step.do === 'wire')
  let played = 0
  const play = () => {
    const wire = wires[played++]
    if (wire !== undefined)
      judge(
        wire,
        'wire',
        wire.seen.flatMap((line) => passes(replay, line) ?? []),
      )
  }
  for (const [i, step] of steps.entries()) {
    const before = steps[i - 1]
    if (step.do === 'wire' && wires.indexOf(step) >= played) play()
    /* What is said on an association passed with its chunks. */
    if (step.do === 'sctp data') judge(step, 'data', [])
    if (step.do !== 'ipvsadm') continue
    if (step.args === '-Lnc' && before?.do === 'ipvsadm' && before.args === '-Lnc') play()
    const difference = await replay.ipvsadm(step)
    judge(step, step.args, difference === undefined ? [] : [difference])
  }
}

/** What is wrong with the way of a recorded packet, if anything is. */
function passes({ host }: Replay, line: string): string | undefined {
  const [, does, kind] = /^client (sends|receives) .* SCTP chunk (\d+) /.exec(line) ?? []
  if (does === undefined) return undefined
  const [client, virtual, server] = ['10.1.0.60:50000', '10.9.0.1:80', '10.2.0.11:80']
  const payload = chunk(Number(kind))
  if (does === 'sends') {
    const { at } = host.travel('clients', association({ from: client, to: virtual, payload }))
    return at === 'server' ? undefined : `${line}: came to ${at}`
  }
  const back = host.travel('servers', association({ leg: 'from server', from: server, to: client, payload }))
  const { from } = endsOf(back.packet)
  return back.at === 'client' && from === '10.9.0.1' ? undefined : `${line}: came to ${back.at} from ${from}`
}

t.test('SCTP', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const tally = new Tally('sctp')
  await t.test('states, as recorded', (t) => {
    for (const [name, flags] of [
      ['nat', 0],
      ['one way', LbConnFlag.CONN_NOOUTPUT],
    ] as const) {
      const player = new Player(datapath, flags)
      playScenario(t, tally, name, player)
      t.ok(player.compared > 300, `${name}: most of the recorded counts are of one connection`)
    }
    t.end()
  })
  await t.test('an association re-uses its ports, as recorded', (t) => {
    const player = new Player(datapath)
    datapath.maps.config.setConnReuseMode(0, 0)
    playScenario(t, tally, 'nat, conn_reuse_mode=0', player)
    t.end()
  })
  await t.test('what opens an association, as recorded', (t) => {
    for (const [name, sloppy] of [
      ['open', 0],
      ['open, sloppy_sctp=1', 1],
    ] as const) {
      const player = new Player(datapath)
      datapath.maps.config.setSloppySctp(0, sloppy)
      playScenario(t, tally, name, player)
    }
    tally.end(t)
    t.end()
  })
  await t.test('associations of real hosts, as recorded', async (t) => {
    const { scenarios: all } = readJsonRecording<{ scenarios: { name: string; steps: LifeStep[] }[] }>('extra')
    const lives = all.filter(({ name }) => name.startsWith('sctp/'))
    const extra = new Tally('extra')
    for (const life of lives) await playLife(t, datapath, life, extra)
    extra.end(t)
  })
  await testRows(t, datapath, [...checksums('xdp'), ...checksums('ingress'), ...refusals('IPv4'), ...refusals('IPv6')])
})
