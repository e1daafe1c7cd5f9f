/** Recordings of a real IPVS, played to the datapath: ipvsadm's command lines, connections, segments, time. */
import type { Operations } from '../../src/cli/session.ts'
import type { Table } from '../../src/engine/table.ts'
import { decode } from './decode.ts'
import { endpoint } from './director.ts'
import { ModelSyncDaemons } from './model-table.ts'
import type { Datapath } from './prog.ts'
import { type Arrival, endsOf, Host, type HostOptions, sameEnd } from './prog-host.ts'
import { keyOf } from './prog-rows.ts'
import { type Outcome, runCommand, splitArguments } from './recordings.ts'

export interface FlowStep {
  readonly do: 'connect' | 'send'
  readonly id: number
  readonly proto: 'tcp' | 'udp'
  readonly src: string
  readonly dst: string
  /** The server that it reached, or null. */
  readonly got: string | null
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
    const lines = text.split('\n').map((line) => line.replace(/^(TCP|UDP|IP ) \d+:\d+/, '$1'))
    return lines.sort().join('\n')
  }
  return text
    .split(/\n(?=TCP|UDP|FWM)/)
    .sort()
    .join('\n')
}

export class Replay {
  readonly host: Host
  readonly #datapath: Datapath
  readonly #operations: Operations
  readonly #open = new Map<number, Open>()

  constructor(datapath: Datapath, options: HostOptions) {
    this.host = new Host(datapath, options)
    this.#datapath = datapath
    this.#operations = operationsOn(datapath)
  }

  /** Runs a command line; undefined if all came out as recorded, else what differs. */
  async ipvsadm(step: IpvsadmStep, { stats = false } = {}): Promise<string | undefined> {
    const stdin = step.stdin === undefined ? {} : { stdin: step.stdin }
    const now = await runCommand(splitArguments(step.args), { operations: this.#operations, ...stdin })
    if (now.rc !== step.rc) return `ipvsadm ${step.args}: status ${now.rc}, recorded ${step.rc}`
    if (/--stats|--rate/.test(step.args) && !stats) return undefined
    const [out, recorded] = [comparable(step.args, now.out), comparable(step.args, step.out)]
    return out === recorded ? undefined : `ipvsadm ${step.args}:\n${out}recorded:\n${recorded}`
  }

  /** The only commands recorded beside ipvsadm's are nft's that mark packets, by where they go. */
  shell({ cmd }: ShellStep): void {
    const [, prefix, mark] = /ip6? daddr (\S+) meta mark set (\d+)/.exec(cmd) ?? []
    const known = prefixes.find(({ text }) => text === prefix)
    if (known === undefined) throw new Error(`no way to do ${cmd}`)
    this.host.markOf = (to) => (known.has.test(to) ? Number(mark) : 0)
  }

  /** Whether a packet for no service of its own was left to the director's own stack, which refuses it. */
  #isForeign(step: FlowStep, { at, by }: Arrival): boolean {
    const service = this.#datapath.table.service(keyOf(`${step.proto} ${step.dst}`))
    return at === 'nobody' && by === 'stack' && service === undefined
  }

  /** Opens a connection or sends a datagram; undefined if it got to the recorded server, or was refused as recorded. */
  flow(step: FlowStep): string | undefined {
    const arrival = step.proto === 'tcp' ? this.#connect(step) : this.host.udp(step.src, step.dst)
    const got = Host.server(arrival)
    if (!sameEnd(got, step.got ?? undefined)) {
      return `${step.do} ${step.src} -> ${step.dst}: to ${got ?? 'nobody'}, recorded ${step.got ?? 'nobody'}`
    }
    if (step.got === null && !isRefusal(arrival) && !this.#isForeign(step, arrival))
      return `${step.do} ${step.src} -> ${step.dst}: was not refused`
    return undefined
  }

  #connect(step: FlowStep): Arrival {
    const flow = { client: step.src, virtual: step.dst }
    const arrival = this.host.tcp('c:S', { ...flow, server: '' })
    const server = Host.server(arrival)
    if (server === undefined) return arrival
    const open = { ...flow, server }
    this.#open.set(step.id, open)
    this.host.tcp('s:SA', open)
    this.host.tcp('c:A', open)
    return arrival
  }

  /** Lets the server that a datagram reached answer it. */
  answer(step: FlowStep): void {
    if (step.got !== null) this.host.answer(step.got, step.src)
  }

  close(step: CloseStep): void {
    const events = closings[step.how]
    if (events === undefined) throw new Error(`no way to close by ${step.how}`)
    const open = this.#open.get(step.id)
    if (open !== undefined) for (const event of events) this.host.tcp(event, open)
  }

  /** Whether a byte still gets through an open connection, each way. */
  data(id: number): { to_server: boolean; to_client: boolean } {
    const open = this.#open.get(id)
    if (open === undefined) throw new Error(`connection ${id} was never opened`)
    const there = this.host.tcp('c:PA', open)
    const back = this.host.tcp('s:PA', open)
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
