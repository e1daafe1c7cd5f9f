/** Recordings of a real IPVS, played to the datapath: ipvsadm's command lines, connections, segments, time. */
import type { Resolver } from '../../src/cli/names.ts'
import type { Operations } from '../../src/cli/session.ts'
import type { Table } from '../../src/engine/table.ts'
import { decode } from './decode.ts'
import { endpoint } from './director.ts'
import { ModelSyncDaemons } from './model-table.ts'
import type { Datapath } from './prog.ts'
import { chunk } from './packet.ts'
import { association } from './prog-flow.ts'
import { type Arrival, endsOf, Host, type HostOptions, sameEnd } from './prog-host.ts'
import type { ServiceView } from '../../src/model/types.ts'
import { type Outcome, runCommand, splitArguments } from './recordings.ts'

export interface FlowStep {
  readonly do: 'connect' | 'send'
  readonly id: number
  readonly proto: 'tcp' | 'udp'
  readonly src: string
  readonly dst: string
  /** The server that it reached, or null. */
  readonly got: string | null
  /** What the client was told if it is null. */
  readonly error?: string
}

export interface CloseStep {
  readonly do: 'close'
  readonly id: number
  readonly how: string
}

export interface IpvsadmStep extends Outcome {
  readonly do: 'ipvsadm'
  readonly args: string
  readonly stdin?: string
}

export interface SleepStep {
  readonly do: 'sleep'
  readonly s: number
}

export interface ShellStep {
  readonly do: 'sh'
  readonly cmd: string
}

/** Where the recorded virtual services are. */
const prefixes = [
  { text: '10.9.0.0/16', has: /^10\.9\./ },
  { text: 'fd00:9::/64', has: /^fd00:9:/ },
] as const

/** Segments of a close, from both sides: c is the client, s the server. */
const closings: Readonly<Record<string, readonly string[]>> = {
  fin: ['c:FA', 's:A', 's:FA', 'c:A'],
  sfin: ['s:FA', 'c:A', 'c:FA', 's:A'],
  half: ['c:FA', 's:A'],
  shalf: ['s:FA', 'c:A'],
  rst: ['c:RA'],
  srst: ['s:RA'],
  udp: [],
}

interface Open {
  readonly client: string
  readonly virtual: string
  readonly server: string
}

/** Ports that the recorded servers listen on. */
const listening: ReadonlySet<string> = new Set(['80', '81', '443', '8080', '8081'])

/** As long as the options of Linux are: of a segment that opens, and of any other. */
const options = { opening: new Uint8Array(20).fill(1), later: new Uint8Array(12).fill(1) } as const

/** The table, for commands that would close it. */
function lend(table: Table): Table {
  return new Proxy(table, {
    get: (target, name) => {
      if (name === 'close') return () => {}
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function operationsOn(datapath: Datapath): Operations {
  return {
    openTable: () => lend(datapath.table),
    unload: () => false,
    hooks: () => [],
    verdicts: () => [],
    check: () => [],
    kernelPorts: () => [],
    markRules: { list: () => [], add: () => {}, delete: () => {} },
    syncDaemons: new ModelSyncDaemons([]),
  }
}

/**
 * A listing without what differs between any two runs: the table's size, the order of services and connections, how far
 * old connections are from their end.
 */
function comparable(args: string, out: string): string {
  const text = out.replace(/\n$/, '').replace(/\(size=\d+\)/, '(size=)')
  if (/(^|\s)-\w*c/.test(args)) {
    const lines = text.split('\n').map((line) => line.replace(/^(TCP|UDP|SCTP|IP ) \d+:\d+/, '$1'))
    return lines.sort().join('\n')
  }
  const timeless = args.includes('--rate') ? text.replace(/( {8,}| +\d+){5}$/gm, ' rates') : text
  return timeless
    .split(/\n(?=TCP|UDP|SCTP|FWM)/)
    .sort()
    .join('\n')
}

/** Of what comparable() made, all but the services of the recorded persistence engine. */
function withoutEngines(text: string): string {
  const isEngines = (block: string) => /^(-[Aa] -u|UDP ) *\S+:(5060|5061|sip|sip-tls)\b/.test(block)
  return text
    .split(/\n(?=TCP|UDP|SCTP|FWM|-[Aa])/)
    .filter((block) => !isEngines(block))
    .join('\n')
}

export class Replay {
  readonly host: Host
  readonly #operations: Operations
  readonly #resolver: Resolver | undefined
  readonly #open = new Map<number, Open>()

  /** `resolver`: for listings with names. */
  constructor(datapath: Datapath, options: HostOptions, resolver?: Resolver) {
    this.host = new Host(datapath, options)
    this.#operations = operationsOn(datapath)
    this.#resolver = resolver
  }

  /** Runs a command line; undefined if all came out as recorded, else what differs. */
  async ipvsadm(step: IpvsadmStep): Promise<string | undefined> {
    const stdin = step.stdin === undefined ? {} : { stdin: step.stdin }
    const names = this.#resolver === undefined ? {} : { resolver: this.#resolver }
    const now = await runCommand(splitArguments(step.args), { operations: this.#operations, ...stdin, ...names })
    if (now.rc !== step.rc) return `ipvsadm ${step.args}: status ${now.rc}, recorded ${step.rc}`
    if (now.err !== step.err) return `ipvsadm ${step.args}: ${now.err}, recorded ${step.err}`
    const [out, recorded] = [comparable(step.args, now.out), comparable(step.args, step.out)]
    if (out === recorded) return undefined
    if (out === withoutEngines(recorded)) return `ipvsadm ${step.args}: lacks services of a persistence engine`
    return `ipvsadm ${step.args}:\n${out}\nrecorded:\n${recorded}`
  }

  /** What a file of /proc/net says now. */
  async proc(path: string): Promise<string> {
    return (await runCommand(['--proc', path], { operations: this.#operations })).out
  }

  /** The only commands recorded beside ipvsadm's are nft's that mark packets, by where they go. */
  shell({ cmd }: ShellStep): void {
    const rules = [...cmd.matchAll(/ip6? daddr (\S+) meta mark set (\d+)/g)]
    if (rules.length === 0) throw new Error(`no way to do ${cmd}`)
    const isMeant = (where: string, to: string) =>
      prefixes.find(({ text }) => text === where)?.has.test(to) ?? where === to
    this.host.markOf = (to) => Number(rules.find(([, where = '']) => isMeant(where, to))?.[2] ?? 0)
  }

  /** Opens a connection or sends a datagram; undefined if it got where it got as recorded, else where it got. */
  flow(step: FlowStep): string | undefined {
    const open = { client: step.src, virtual: step.dst, server: '' }
    const arrival = step.proto === 'tcp' ? this.#send('c:S', open) : this.host.udp(step.src, step.dst)
    const server = Host.server(arrival)
    const isRight = step.got === null ? this.#fails(step, arrival, server) : sameEnd(server, step.got)
    if (!isRight) {
      const answer = isRefusal(arrival) ? 'refused' : `${arrival.at} by ${arrival.by}`
      const recorded = step.got ?? step.error ?? 'nobody'
      return `${step.do} ${step.src} -> ${step.dst}: to ${server ?? answer}, recorded ${recorded}`
    }
    if (step.proto === 'tcp' && step.got !== null && server !== undefined) {
      this.#open.set(step.id, { ...open, server })
      this.#send('s:SA', { ...open, server })
      this.#send('c:A', { ...open, server })
    }
    return undefined
  }

  /** Whether a packet that came to `arrival` makes the client see the recorded error; whoever says it does so. */
  #fails(step: FlowStep, arrival: Arrival, server: string | undefined): boolean {
    const isPassed = arrival.at === 'nobody' && arrival.by === 'stack'
    switch (step.error) {
      case 'EHOSTUNREACH':
        return isPassed || arrival.at === 'server'
      case 'timeout':
        return isRefusal(arrival) || arrival.at === 'server'
      case 'no packet reached a backend':
        return server !== undefined && !this.#refuses(step, server)
      default:
        if (server !== undefined) return !isListening(server) && this.#refuses(step, server)
        if (!isPassed) return isRefusal(arrival)
        if (step.proto === 'tcp') this.host.own('RA', step.dst, step.src)
        return this.#serviceAt(step.dst)?.servers.some(({ address }) => address.startsWith('10.254.')) ?? true
    }
  }

  /** Whether the client gets to know that a server has nothing on that port. */
  #refuses({ src, dst, proto }: FlowStep, server: string): boolean {
    const open = { client: src, virtual: dst, server }
    return this.host.refuse(proto, open).at === 'client'
  }

  /** The service of an address and port of its own. */
  #serviceAt(virtual: string): ServiceView | undefined {
    const services = [...this.host.datapath.table.services()]
    return services.find(({ key }) => key.kind === 'address' && sameEnd(endpoint(key), virtual))
  }

  /** A segment on an open connection, with what it carries. */
  say(id: number, event: string, payload = new Uint8Array(0)): Arrival {
    const open = this.#open.get(id)
    if (open === undefined) throw new Error(`connection ${id} was never opened`)
    return this.host.tcp(event, open, { options: options.later, payload })
  }

  /** The id that a server of a service has in the table. */
  serverId(virtual: string, server: string): number {
    const found = this.#serviceAt(virtual)?.servers.find((each) => sameEnd(endpoint(each), server))
    if (found === undefined) throw new Error(`${virtual} has no server ${server}`)
    return found.id
  }

  #send(event: string, open: Open): Arrival {
    const more = event.includes('S') ? options.opening : options.later
    return this.host.tcp(event, open, { options: more })
  }

  /** The recorded SCTP client asks; its server answers from another address. Undefined if somebody forwarded that. */
  associate(): string | undefined {
    const init = chunk(1, new Uint8Array(32))
    const packet = association({ from: '10.1.0.60:50000', to: '10.9.0.1:80', payload: init })
    const { at } = this.host.travel('clients', packet)
    return at === 'server' ? undefined : `the association came to ${at}`
  }

  /** Lets the server that a datagram reached answer it. */
  answer(step: FlowStep): void {
    if (step.got !== null) this.host.answer(step.got, step.src)
  }

  close(step: CloseStep): void {
    const events = closings[step.how]
    if (events === undefined) throw new Error(`no way to close by ${step.how}`)
    const open = this.#open.get(step.id)
    if (open !== undefined) for (const event of events) this.#send(event, open)
  }

  /** Whether a byte still gets through an open connection, each way. */
  data(id: number): { to_server: boolean; to_client: boolean } {
    const open = this.#open.get(id)
    if (open === undefined) throw new Error(`connection ${id} was never opened`)
    const there = this.say(id, 'c:PA', Uint8Array.of(0x64))
    const back = this.say(id, 's:PA', Uint8Array.of(0x64))
    return {
      to_server: sameEnd(Host.server(there), open.server),
      to_client: back.at === 'client' && sameEnd(senderOf(back), open.virtual),
    }
  }
}

function senderOf({ packet }: Arrival): string {
  const fields = decode(packet)
  const port = Number(fields['tcp.sport'] ?? fields['udp.sport'])
  return endpoint({ address: endsOf(packet).from, port })
}

function isListening(server: string): boolean {
  return listening.has(/\d+$/.exec(server)?.[0] ?? '')
}

/** An ICMP port unreachable that went back to the client. */
function isRefusal({ at, packet }: Arrival): boolean {
  const fields = decode(packet)
  const [type, code] = [fields['icmp.type'], fields['icmp.code']]
  return at === 'client' && (fields['ip.version'] === 4 ? type === 3 && code === 3 : type === 1 && code === 4)
}

/** What somebody received, as the recordings of single segments say it; undefined: nobody did. */
export function seen(arrival: Arrival): string | undefined {
  if (arrival.at === 'nobody') return undefined
  const fields = decode(arrival.packet)
  const { from, to } = endsOf(arrival.packet)
  const who = arrival.at === 'server' ? 'backend' : 'client'
  if (fields['tcp.flags'] === undefined) {
    return `${who} receives ICMP type ${fields['icmp.type']} code ${fields['icmp.code']} from ${from}`
  }
  const flags = [...'SARFP'].filter((letter) => String(fields['tcp.flags']).includes(letter)).join('')
  return `${who} receives ${from}:${fields['tcp.sport']}>${to}:${fields['tcp.dport']} ${flags}`
}
