/** Persistence as the kernel's IPVS recorded it: who goes on to which server, templates and what is left of their time. */
import t from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import { formatConnections } from '../../src/cli/format-connections.ts'
import { formatTable } from '../../src/cli/format-listing.ts'
import { numericNames } from '../../src/cli/format-name.ts'
import { endpoint } from '../helpers/director.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { Datapath } from '../helpers/prog.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import {
  type CloseStep,
  type FlowStep,
  type IpvsadmStep,
  Replay,
  type ShellStep,
  type SleepStep,
} from '../helpers/replay.ts'
import { Findings, isAnswered, Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

/** A file of /proc/net. */
interface Read {
  readonly do: 'read'
  readonly path: string
  readonly out: string
}

interface Poll {
  readonly do: 'poll'
  /** Seconds since the first poll. */
  readonly t: number
  /** "TCP client virtual server STATE seconds" */
  readonly conns: readonly string[]
  /** The end of `-Ln --persistent-conn`. */
  readonly servers: readonly string[]
}

/** `replied`: the server answered the datagram. */
type Step = (FlowStep & { readonly replied?: boolean }) | CloseStep | IpvsadmStep | SleepStep | ShellStep | Read | Poll

interface Scenario {
  readonly name: string
  readonly desc: string
  readonly steps: readonly Step[]
}

const entry = /^(TCP|UDP|IP ) (\d+):(\d+)(.*)$/

/** Entries of `-L -c`, in an order that does not depend on time, with the seconds that are left. */
function entries(out: string): { text: string; seconds: number }[] {
  return out
    .split('\n')
    .map((line) => entry.exec(line))
    .filter((match) => match !== null)
    .map(([, protocol, minutes, seconds, rest]) => {
      return { text: `${protocol}${rest}`, seconds: Number(minutes) * 60 + Number(seconds) }
    })
    .sort((a, b) => a.text.localeCompare(b.text) || a.seconds - b.seconds)
}

/** Plays a scenario and collects what differs. */
class Player {
  readonly found = new Findings()
  readonly #datapath: Datapath
  readonly #replay: Replay
  #polled: number[] = []
  #began = 0

  constructor(datapath: Datapath, xdp: boolean) {
    this.#datapath = datapath
    this.#replay = new Replay(datapath, { xdp })
  }

  async play(step: Step): Promise<void> {
    if (step.do !== 'poll') this.#endPolls()
    await this.#step(step)
    this.found.same(tableShape(this.#datapath).problems, [], 'contradictions in the table')
  }

  async #step(step: Step): Promise<void> {
    switch (step.do) {
      case 'ipvsadm':
        this.found.add(await this.#replay.ipvsadm(step))
        if (step.args === '-Lnc') this.#times(step)
        return
      case 'poll':
        return this.#poll(step)
      case 'sh':
        return step.cmd.startsWith('nft ') ? this.#replay.shell(step) : this.#sysctl(step)
      case 'sleep':
        return this.#replay.host.age(step.s)
      case 'close':
        return this.#replay.close(step)
      case 'read':
        return this.#read(step)
      default:
        if (step.error === 'EADDRNOTAVAIL') return // the client had no port: nothing was sent
        this.found.add(this.#replay.flow(step))
        if (step.replied) this.#replay.answer(step)
    }
  }

  /** The recorder took its time, and so does this, but no more than a few seconds. */
  #times(step: IpvsadmStep): void {
    const text = [...formatConnections(this.#datapath.table.connections(), false, numericNames)].join('')
    const recorded = entries(step.out)
    for (const [i, { text: what, seconds }] of entries(text).entries()) {
      const lag = seconds - (recorded[i]?.seconds ?? 0)
      this.found.ok(Math.abs(lag) <= 5, `${what} has ${seconds} s left, recorded ${recorded[i]?.seconds}`)
    }
  }

  /** All but the time left, which `-Lnc` told just before. */
  async #read(step: Read): Promise<void> {
    const lines = (text: string) =>
      text
        .replace(/ *\d+$/gm, '')
        .split('\n')
        .sort()
    this.found.same(lines(await this.#replay.proc(step.path)), lines(step.out), step.path)
  }

  #poll(step: Poll): void {
    if (this.#polled.length === 0) this.#began = this.#now()
    this.#replay.host.age(Math.max(0, this.#began + step.t - this.#now()))
    this.#polled.push(step.t)
    const what = `${step.t} s later`
    const now = new Map<string, number>(
      Array.from(this.#datapath.table.connections(), (each) => {
        const ends = [each.client, each.virtual, each.server].map(endpoint).join(' ')
        return [`${each.protocol.toUpperCase()} ${ends} ${each.state}`, each.expiresS] as const
      }),
    )
    const recorded = new Map<string, number>(
      step.conns.map((line) => [line.replace(/ \d+$/, ''), Number(/\d+$/.exec(line)?.[0])] as const),
    )
    for (const text of new Set([...now.keys(), ...recorded.keys()])) {
      // Times are rounded: what has less than a second left may be gone in the other.
      const lag = (now.get(text) ?? -1) - (recorded.get(text) ?? -1)
      this.found.ok(Math.abs(lag) <= 1, `${what}: ${text} has ${now.get(text)} s left, recorded ${recorded.get(text)}`)
    }
    if (now.size !== recorded.size) return
    const style = { columns: 'persistent-conn', exact: false, sorted: true, names: numericNames } as const
    const listing = formatTable(this.#datapath.table.services(), style).slice(0, -1).split('\n').slice(3)
    this.found.same(listing, step.servers, `${what}: servers`)
  }

  /** Seconds that passed for connections, those that this took itself among them. */
  #now(): number {
    return this.#replay.host.agedS + performance.now() / 1000
  }

  /** After its last poll of a row the recorder slept as long as before. */
  #endPolls(): void {
    const [before = 0, last = 0] = this.#polled.slice(-2)
    if (this.#polled.length > 1) this.#replay.host.age(last - before)
    this.#polled = []
  }

  #sysctl(step: ShellStep): void {
    const [, value] = /net\.ipv4\.vs\.expire_quiescent_template=(\d)/.exec(step.cmd) ?? []
    if (value === undefined) throw new Error(`no setting for ${step.cmd}`)
    this.#datapath.maps.config.setExpireQuiescentTemplate(0, Number(value))
  }
}

/** What a step is called. */
function nameOf(step: Step): string {
  switch (step.do) {
    case 'ipvsadm':
      return step.args
    case 'poll':
      return `after ${step.t} s`
    case 'connect':
    case 'send':
      return `${step.do} ${step.src} -> ${step.dst}`
    default:
      return step.do
  }
}

const ways = [
  { name: 'through XDP, past the stack', xdp: true, bypass: LbBypassMode.BYPASS_ALWAYS },
  { name: 'through tcx, past the stack', xdp: false, bypass: LbBypassMode.BYPASS_ALWAYS },
  { name: 'through tcx and the stack', xdp: false, bypass: LbBypassMode.BYPASS_NEVER },
] as const

t.test('clients go on to their servers as the kernel recorded it', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  for (const recording of ['persistence', 'persistence2']) {
    const tally = new Tally(recording)
    const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>(recording)
    for (const { name, desc, steps } of scenarios) {
      for (const way of ways) {
        await t.test(`${name}: ${desc}, ${way.name}`, async (t) => {
          datapath.clear()
          datapath.maps.config.setBypass(0, way.bypass)
          const player = new Player(datapath, way.xdp)
          for (const [i, step] of steps.entries()) {
            await player.play(step)
            const what = nameOf(step)
            const found = player.found.take()
            if (isAnswered(step)) t.same(tally.note(name, i, what, found), [], what)
          }
        })
      }
    }
    tally.end(t)
  }
})
