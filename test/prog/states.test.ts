/** Lives of connections as the kernel's IPVS recorded them: every state and segment, timeouts, counts. */
import t from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import type { ConnectionView } from '../../src/model/types.ts'
import { Datapath } from '../helpers/prog.ts'
import type { Arrival } from '../helpers/prog-host.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { type CloseStep, type FlowStep, type IpvsadmStep, Replay, seen, type SleepStep } from '../helpers/replay.ts'
import { Findings, isAnswered, Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

interface Entry {
  readonly state: string
  readonly expires: number
}

interface Transition {
  readonly do: 'transition'
  readonly prefix: string
  readonly event: string
  readonly before: readonly Entry[]
  readonly after: readonly Entry[]
  readonly active_inact_before: readonly string[]
  readonly active_inact_after: readonly string[]
  readonly seen: readonly string[]
}

interface Segment {
  readonly do: 'segment'
  readonly conn: number
  readonly event: string
  readonly seen: readonly string[]
  /** [server address in hex, port in hex, state, seconds] */
  readonly entries?: readonly (readonly [string, string, string, string])[]
  readonly counters?: readonly (readonly [string, string, string])[]
}

interface Poll {
  readonly do: 'poll'
  /** Seconds since the first poll. */
  readonly t: number
  readonly conns: readonly Entry[]
  readonly counters: readonly (readonly [string, string, string])[]
}

interface Note {
  readonly do: 'note'
  readonly text: string
}

interface Shell {
  readonly do: 'sh'
  readonly cmd: string
}

interface Data {
  readonly do: 'data'
  readonly id: number
  readonly to_server: string
  readonly to_client: string
}

/** Nobody took the association. */
interface Associate {
  readonly do: 'sctp connect'
  readonly error: string
}

type Step =
  | Associate
  | FlowStep
  | CloseStep
  | IpvsadmStep
  | SleepStep
  | Transition
  | Segment
  | Poll
  | Note
  | Shell
  | Data
type StepOf<K extends Step['do']> = Extract<Step, { do: K }>

interface Scenario {
  readonly name: string
  readonly desc: string
  readonly steps: readonly Step[]
}

/** Segments that a note stands for. */
const noted: Readonly<Record<string, readonly [port: number, event: string][]>> = {
  '31001: a data segment from the client': [[31001, 'c:PA']],
  '31003: new connection': [
    [31003, 'c:S'],
    [31003, 's:SA'],
    [31003, 'c:A'],
  ],
  '31002: server FIN': [[31002, 's:FA']],
  '31003: client FIN': [[31003, 'c:FA']],
  '31004: SYN only': [[31004, 'c:S']],
}

/** Plays one scenario and collects what differs. */
class Player {
  readonly found = new Findings()
  readonly #datapath: Datapath
  readonly #replay: Replay
  /** The recorder took longer than connections live: times and counts are not to be compared. */
  readonly #slow: boolean
  #polled = 0

  constructor(datapath: Datapath, { xdp, slow }: { readonly xdp: boolean; readonly slow: boolean }) {
    this.#slow = slow
    this.#datapath = datapath
    this.#replay = new Replay(datapath, { xdp })
  }

  /** Segments that no step tells of. */
  segments(port: number, events: readonly string[], client = '10.1.0.1'): Arrival | undefined {
    return events.map((event) => this.#send(event, `${client}:${port}`)).at(-1)
  }

  async play(step: Step): Promise<void> {
    switch (step.do) {
      case 'ipvsadm':
        return this.found.add(await this.#replay.ipvsadm(step))
      case 'transition':
        return this.#transition(step)
      case 'segment':
        return this.#segment(step)
      case 'poll':
        return this.#poll(step)
      case 'note':
        for (const [port, event] of noted[step.text] ?? []) this.segments(port, [event])
        return
      case 'sh':
        return this.#sysctl(step)
      case 'sleep':
        return this.#replay.host.age(step.s)
      case 'close':
        return this.#replay.close(step)
      case 'data':
        return this.#data(step)
      case 'sctp connect':
        this.found.add(this.#replay.associate())
        return this.#replay.host.age(2)
      default:
        this.found.add(this.#replay.flow(step))
    }
  }

  #connections(port?: number): ConnectionView[] {
    return Array.from(this.#datapath.table.connections()).filter(({ client }) => (port ?? client.port) === client.port)
  }

  #entries(port?: number): Entry[] {
    return this.#connections(port).map(({ state, expiresS }) => ({ state, expires: expiresS }))
  }

  #send(event: string, client: string): Arrival {
    const [, port] = client.split(':')
    const server = this.#connections(Number(port))[0]?.server ?? { address: '10.2.0.11', port: 9999 }
    const flow = { client, virtual: '10.9.0.1:9999', server: `${server.address}:${server.port}` }
    return this.#replay.host.tcp(event, flow)
  }

  /** [address:port, active, inactive] of each server, sorted as the listing is. */
  #counters(): string[][] {
    const [view] = this.#datapath.table.services()
    return (view?.servers ?? [])
      .map((each) => [`${each.address}:${each.port}`, `${each.active}`, `${each.inactive}`])
      .sort(([a = ''], [b = '']) => a.localeCompare(b))
  }

  #port = 20000
  #closed = 0
  #lag = 0
  #transition(step: StepOf<'transition'>): void {
    const port = ++this.#port
    this.segments(port, step.prefix === '' ? [] : step.prefix.split(' '))
    const before = this.#entries(port)
    const [, activeBefore, inactiveBefore] = this.#counters()[0] ?? []
    const arrival = this.#send(step.event, `10.1.0.1:${port}`)
    const after = this.#entries(port)
    const [, activeAfter, inactiveAfter] = this.#counters()[0] ?? []
    const what = `${step.prefix === '' ? 'nothing' : step.prefix}, then ${step.event}`
    const got = [seen(arrival)].filter((text) => text !== undefined)
    // What is shown with no second left was freed as it was read.
    const recorded = step.after.filter(({ expires }) => expires > 0)
    if (this.#slow) {
      const states = (entries: readonly Entry[]) => entries.map(({ state }) => state)
      this.found.same([states(before), states(after), got], [states(step.before), states(recorded), step.seen], what)
      return
    }
    this.found.same(
      { before, after, active: [activeBefore, activeAfter], seen: got },
      {
        before: step.before,
        after: recorded,
        active: [step.active_inact_before[0], step.active_inact_after[0]],
        seen: step.seen,
      },
      what,
    )
    this.#inactive(inactiveBefore, step.active_inact_before[1], `${what}: inactive before`)
    if (after[0]?.state === 'CLOSE') this.#closed++
    this.#inactive(inactiveAfter, step.active_inact_after[1], `${what}: inactive after`)
  }

  /** The recording took so long that connections in CLOSE, which have ten seconds, ended during it; here they do not. */
  #inactive(now: string | undefined, recorded: string | undefined, what: string): void {
    const lag = Number(now) - Number(recorded)
    this.found.ok(lag >= this.#lag && lag <= this.#closed, `${what}: ${now}, ${recorded} recorded`)
    this.#lag = lag
  }

  #segment(step: StepOf<'segment'>): void {
    const port = (step.entries === undefined ? 30000 : 33000) + step.conn
    const arrival = this.#send(step.event, `10.1.0.1:${port}`)
    const what = `connection ${step.conn}: ${step.event}`
    this.found.same(
      [seen(arrival)].filter((text) => text !== undefined),
      step.seen,
      `${what}: who received what`,
    )
    if (step.entries === undefined) return
    const entries = this.#connections(port).map(({ server, state, expiresS }) => [
      Buffer.from(server.address.split('.').map(Number)).toString('hex').toUpperCase(),
      server.port.toString(16).toUpperCase(),
      state,
      `${expiresS}`,
    ])
    this.found.same(entries, step.entries, `${what}: entries`)
    this.found.same(this.#counters(), step.counters, `${what}: counts`)
  }

  #poll(step: StepOf<'poll'>): void {
    this.#replay.host.age(step.t - this.#polled)
    this.#polled = step.t
    const order = (entries: readonly Entry[]) => entries.toSorted((a, b) => a.state.localeCompare(b.state))
    const [now, recorded] = [order(this.#entries()), order(step.conns)]
    this.found.same(
      now.map(({ state }) => state),
      recorded.map(({ state }) => state),
      `after ${step.t} s: connections`,
    )
    // The recorded time is when the poll began, and rounded.
    for (const [i, { state, expires }] of now.entries()) {
      const difference = Math.abs(expires - (recorded[i]?.expires ?? 0))
      this.found.ok(difference <= 1, `after ${step.t} s: ${state} has ${recorded[i]?.expires} s left, give or take one`)
    }
    this.found.same(this.#counters(), step.counters, `after ${step.t} s: counts`)
  }

  #sysctl(step: StepOf<'sh'>): void {
    const [, name, value] = /net\.ipv4\.vs\.(\w+)=(\d)/.exec(step.cmd) ?? []
    this.#datapath.table.changeSettings({ tunables: { [String(name)]: Number(value) } })
  }

  #data(step: StepOf<'data'>): void {
    const now = this.#replay.data(step.id)
    const recorded = { to_server: step.to_server === 'delivered', to_client: step.to_client === 'delivered' }
    this.found.same(now, recorded, `data of connection ${step.id} gets through as recorded`)
  }
}

const ways = [
  { name: 'through XDP, past the stack', xdp: true, bypass: LbBypassMode.BYPASS_ALWAYS },
  { name: 'through tcx, past the stack', xdp: false, bypass: LbBypassMode.BYPASS_ALWAYS },
  { name: 'through tcx and the stack', xdp: false, bypass: LbBypassMode.BYPASS_NEVER },
] as const

/** Connections that were opened before the recorder of a scenario began to take notes: after which step, from which ports. */
const openings: Readonly<Record<string, { after: number; ports: readonly number[]; events: readonly string[] }>> = {
  set_effect: { after: 1, ports: [31001, 31002], events: ['c:S', 's:SA', 'c:A'] },
  expiry_close: { after: 1, ports: [32000], events: ['c:S', 's:SA', 'c:A', 'c:R'] },
}

t.test('connections live as the kernel recorded it', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  for (const recording of ['states', 'states-secure'] as const) {
    const tally = new Tally(recording)
    for (const { name, steps } of readJsonRecording<{ scenarios: readonly Scenario[] }>(recording).scenarios) {
      const opening = openings[name]
      for (const way of ways) {
        await t.test(`${name} ${way.name}`, async (t) => {
          datapath.clear()
          datapath.maps.config.setBypass(0, way.bypass)
          const player = new Player(datapath, { xdp: way.xdp, slow: name === 'tcp_table_secure' })
          for (const [i, step] of steps.entries()) {
            await player.play(step)
            const what = nameOf(step)
            const found = player.found.take()
            if (isAnswered(step)) t.same(tally.note(name, i, what, found), [], what)
            if (opening?.after === i) for (const port of opening.ports) player.segments(port, opening.events)
          }
        })
      }
    }
    tally.end(t)
  }
})

/** What a step is called. */
function nameOf(step: Step): string {
  switch (step.do) {
    case 'ipvsadm':
      return step.args
    case 'transition':
      return `${step.prefix === '' ? 'nothing' : step.prefix}, then ${step.event}`
    case 'segment':
      return `connection ${step.conn}: ${step.event}`
    case 'poll':
      return `after ${step.t} s`
    case 'connect':
    case 'send':
      return `${step.do} ${step.src} -> ${step.dst}`
    case 'data':
      return `data of ${step.id}`
    default:
      return step.do
  }
}
