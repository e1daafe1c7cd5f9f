/** What was recorded of services and traffic as a whole: every listing after it, counters, refusals on the wire, deleted services. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import { Datapath } from '../helpers/prog.ts'
import { hostsResolver, type ReadStep } from '../helpers/recordings.ts'
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
import { Wire } from '../helpers/wire-text.ts'

interface Note {
  readonly do: 'note'
  readonly text: string
}

/** What the interfaces of client and server saw, line by line. */
interface Seen {
  readonly do: 'wire'
  readonly seen: readonly string[]
}

interface Data {
  readonly do: 'data'
  readonly id: number
  readonly to_server: string
  readonly to_client: string
}

interface Associate {
  readonly do: 'sctp connect'
}

interface Time {
  readonly do: 'time'
}

type Step =
  | FlowStep
  | CloseStep
  | IpvsadmStep
  | SleepStep
  | ShellStep
  | ReadStep
  | Note
  | Seen
  | Data
  | Associate
  | Time

interface Scenario {
  readonly name: string
  readonly steps: readonly Step[]
}

interface Recorded {
  readonly etc_hosts?: string
  readonly scenarios: readonly Scenario[]
}

const payload = new Uint8Array(10).fill(0x30)

/** Plays a scenario and collects what differs. */
class Player {
  readonly found = new Findings()
  readonly #scenario: string
  readonly #datapath: Datapath
  readonly #replay: Replay
  readonly #wire = new Wire()
  readonly #made: string[][] = []
  #sent = 0

  constructor(scenario: string, datapath: Datapath, replay: Replay) {
    this.#scenario = scenario
    this.#datapath = datapath
    this.#replay = replay
    replay.host.watch = this.#wire
  }

  async play(step: Step): Promise<void> {
    switch (step.do) {
      case 'ipvsadm':
        if (this.#scenario === 'traffic') this.#meanwhile(step.args)
        return this.found.add(await this.#replay.ipvsadm(step))
      case 'connect':
      case 'send':
        return this.#flow(step)
      case 'sctp connect':
        /* It asked again after three seconds, and again later. */
        for (const wait of [3, 0]) {
          this.found.add(this.#replay.associate())
          this.#replay.host.age(wait)
        }
        return
      case 'close':
        return this.#close(step)
      case 'data':
        return this.#data(step)
      case 'sleep':
        return this.#replay.host.age(step.s)
      case 'sh':
        return step.cmd.startsWith('ip ') ? this.#network(step) : this.#replay.shell(step)
      case 'note':
        return this.#note(step)
      case 'read':
        return this.#read(step)
      case 'wire':
        return this.#seen(step)
      case 'time':
    }
  }

  /** The recorder's listings took long enough for connections in CLOSE to end, and for the association to be asked for again. */
  #meanwhile(args: string): void {
    this.#replay.host.age({ '-L --persistent-conn': 2, '-S': 4 }[args] ?? 0)
    if (args === '-Ln --stats --sctp-service 10.9.0.1:80') this.found.add(this.#replay.associate())
  }

  #flow(step: FlowStep): void {
    this.#wire.take()
    this.found.add(this.#replay.flow(step))
    if (step.error === 'timeout') this.#replay.host.age(0.7)
    /* Of the recorded servers, these answer datagrams. */
    if (step.do === 'send' && step.dst === '10.9.0.2:80') this.#replay.answer(step)
    if (step.error === 'EHOSTUNREACH' && step.dst.startsWith('10.9.7.7')) this.#circle(step)
  }

  /**
   * A server that does not have the virtual address sends a packet back to the director, which sends it to the server,
   * until its life ends there.
   */
  #circle({ src, dst }: FlowStep): void {
    for (let ttl = 62; ttl > 0; ttl -= 2) this.#replay.host.goesBack(src, dst, ttl)
    this.#replay.host.diesAt('10.254.2.2', src, dst)
  }

  /** Addresses and routes, made for real; undo() takes them away. */
  #network({ cmd }: ShellStep): void {
    const args = cmd
      .replace(/\bd0\b/, 'cl0')
      .split(' ')
      .slice(1)
    execFileSync('ip', args)
    this.#made.push(args)
  }

  undo(): void {
    for (const args of this.#made.splice(0).reverse()) {
      const inverse = args.map((word) => ({ add: 'del', del: 'add' })[word] ?? word)
      execFileSync('ip', inverse)
    }
  }

  #close(step: CloseStep): void {
    if (this.#scenario === 'tcp_counts') {
      this.#replay.say(step.id, 'c:PA', payload)
      this.#replay.say(step.id, 's:PA', new Uint8Array(20))
      this.#replay.say(step.id, 'c:A')
      this.#replay.say(step.id, 'c:FA')
      this.#replay.say(step.id, 's:A')
      this.#replay.say(step.id, 's:FA')
      this.#replay.say(step.id, 'c:A')
    } else this.#replay.close(step)
  }

  #data(step: Data): void {
    const now = this.#replay.data(step.id)
    const recorded = { to_server: step.to_server === 'delivered', to_client: step.to_client === 'delivered' }
    this.found.same(now, recorded, 'what gets through')
  }

  /** Datagrams of ten bytes from one socket, and the bytes of a long transfer: notes are all that was recorded of them. */
  #note({ text }: Note): void {
    const [, all, , more] = /^(?:(\d+) sent( so far)?$|(\d+) datagrams )/.exec(text) ?? []
    const until = all === undefined ? this.#sent + Number(more ?? 0) : Number(all)
    for (; this.#sent < until; this.#sent++) this.#replay.host.udp('10.1.0.1:40000', '10.9.0.1:80', payload)
    if (text.startsWith('a bulk TCP transfer')) this.#transfer()
  }

  /** What the connection carried that follows: its counters, as no packets here can be as long. */
  #transfer(): void {
    const { maps } = this.#datapath
    const i = this.#replay.serverId('10.9.0.1:80', '10.2.0.11:8080')
    maps.stats.setInPkts(i, maps.stats.inPkts(i) + 2488n)
    maps.stats.setInBytes(i, maps.stats.inBytes(i) + 151_124_544n)
    maps.stats.setOutPkts(i, maps.stats.outPkts(i) + 1340n)
    maps.stats.setOutBytes(i, maps.stats.outBytes(i) + 69_692n)
  }

  async #read(step: ReadStep): Promise<void> {
    const file = step.file ?? step.path.replace('/proc/net/', '')
    const [now, recorded] = [await this.#replay.proc(file), step.file === undefined ? step.out : step.text].map(
      (text) => comparable(file, text),
    )
    this.found.same(now, recorded, file)
  }

  /** What the stack itself answers is not played. */
  #seen({ seen }: Seen): void {
    if (this.#scenario === 'ping_vip') this.#replay.host.ping('10.254.1.2', '10.9.0.1')
    if (this.#scenario === 'delete_service/last') {
      this.#wire.take()
      this.#replay.say(0, 's:PA', new Uint8Array(1))
    }
    const isPlayed = (line: string) => !/ > ff02::| (81>|about \S+ \d+>81 )/.test(line)
    this.found.same(this.#wire.take().sort(), seen.filter(isPlayed).sort(), 'wire')
  }
}

/** A file of /proc/net without what no two runs have in common: order, running times, which CPU took a packet, rates. */
function comparable(file: string, text: string): string {
  if (file.startsWith('ip_vs_conn'))
    return text
      .replace(/ *\d+$/gm, '')
      .split('\n')
      .sort()
      .join('\n')
  if (file === 'ip_vs_stats') return text.split('\n').slice(0, 4).join('\n')
  if (file === 'ip_vs_stats_percpu')
    return text
      .split('\n')
      .filter((line) => !/^ *[0-9A-F]+ /.test(line))
      .slice(0, 4)
      .join('\n')
  return text
    .replace(/\n$/, '')
    .split(/\n(?=[A-Z])/)
    .sort()
    .join('\n')
    .replaceAll(/\(size=\d+\)/g, '')
}

/** Scenarios, by recording; the others of these recordings are played elsewhere. */
const played: Readonly<Record<string, readonly string[]>> = {
  listing: ['traffic', 'many_packets'],
  extra: ['unavailable', 'ping_vip'],
  extra2: ['delete_service/another_left', 'delete_service/last'],
  proc: ['proc_conns', 'proc_nodest'],
  services: ['none', 'server_addresses', 'local_servers', 'engine_missing'],
  stats: ['burst', 'steady', 'tcp_counts'],
}

const ways = [
  { name: 'through XDP, past the stack', xdp: true, bypass: LbBypassMode.BYPASS_ALWAYS },
  { name: 'through tcx and the stack', xdp: false, bypass: LbBypassMode.BYPASS_NEVER },
] as const

function nameOf(step: Step): string {
  if (step.do === 'ipvsadm') return step.args
  if (step.do === 'connect' || step.do === 'send') return `${step.do} ${step.src} -> ${step.dst}`
  return step.do === 'read' ? (step.file ?? step.path) : step.do
}

t.test('traffic is listed, counted and refused as recorded', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  for (const [recording, names] of Object.entries(played)) {
    const tally = new Tally(recording)
    const { scenarios, etc_hosts } = readJsonRecording<Recorded>(recording)
    const resolver = etc_hosts === undefined ? undefined : hostsResolver(etc_hosts)
    for (const { name, steps } of scenarios.filter((each) => names.includes(each.name))) {
      for (const way of ways) {
        await t.test(`${name} ${way.name}`, async (t) => {
          datapath.clear()
          datapath.maps.config.setBypass(0, way.bypass)
          const player = new Player(name, datapath, new Replay(datapath, way, resolver))
          t.teardown(() => player.undo())
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
