/**
 * A path with all that belongs to it, in three namespaces of its own:
 *
 *   client 10.1.0.11 ---- a0 10.1.0.1 | director | b0 10.2.0.1 ---- server 10.2.0.11 to 10.2.0.14
 *
 * Where the director's own processes are the clients, they run in a control group that nobody else is in.
 */
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { LbBypassMode, LbConfigArray } from '../../src/abi/generated.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { Topology, type TopologySpec } from '../../src/lab/topology.ts'
import { readVerdicts } from '../../src/maps/verdicts.ts'
import { LbError } from '../../src/model/errors.ts'
import type { ServicePolicy } from '../../src/model/types.ts'
import type { TableHandles } from '../../src/native/handles.ts'
import { openTable, syncSockets, unloadTable } from '../../src/native/loader.ts'
import { processCpuNs, systemTicks } from './cpu.ts'
import { ControlGroup } from './group.ts'
import { kubeProxyRules } from './nft.ts'
import {
  connectionsOf,
  isLocal,
  listServices,
  type Path,
  pathName,
  ports,
  serverAddresses,
  serviceOf,
  type Workload,
} from './paths.ts'

/** Packets that the stack may forward in a run on a path past it: some go there for the sake of neighbour discovery. */
const FEW_PACKETS = 16

/** 10,000 services take nft some 15 seconds of CPU. */
const RULES_TIMEOUT_MS = 120_000

/** One run of the load. */
export interface LoadResult {
  readonly count: number
  readonly seconds: number
  readonly p50Us: number
  readonly p99Us: number
  /** CPU time of client, server and ksoftirqd. */
  readonly cpuNs: number
  /** Clock ticks of the whole machine, whoever used them. */
  readonly systemTicks: number
}

/** What the client prints. */
interface ClientLine {
  readonly count: number
  readonly seconds: number
  readonly cpuSeconds: number
  readonly p50Us: number
  readonly p99Us: number
}

function topologySpec(): TopologySpec {
  const sysctls = { 'net.ipv4.ip_local_port_range': '1024 65535' }
  return {
    namespaces: [
      { name: 'client', routes: [{ to: 'default', via: '10.1.0.1' }], sysctls },
      { name: 'director', forwarding: true },
      { name: 'server', routes: [{ to: 'default', via: '10.2.0.1' }] },
    ],
    links: [
      [
        { namespace: 'client', interface: 'eth0', addresses: ['10.1.0.11/24'] },
        { namespace: 'director', interface: 'a0', addresses: ['10.1.0.1/24'] },
      ],
      [
        { namespace: 'director', interface: 'b0', addresses: ['10.2.0.1/24'] },
        { namespace: 'server', interface: 'eth0', addresses: serverAddresses.map((address) => `${address}/24`) },
      ],
    ],
  }
}

const masqueradeAll: ServicePolicy = {
  masquerade: { pods: true, node: true, others: true },
  whenEmpty: 'refuse',
  nodePort: false,
  foreign: false,
}

function desiredServices(count: number, masquerade: boolean): DesiredService[] {
  return listServices(count).map(({ address, protocol, port, serverPort }) => ({
    service: {
      key: { kind: 'address', family: 4, protocol, address, port },
      scheduler: 'rr',
      schedulerFlags: [],
      onePacket: false,
      ...(masquerade ? { policy: masqueradeAll } : {}),
    },
    servers: serverAddresses.map((server) => ({
      family: 4,
      address: server,
      port: serverPort,
      weight: 1,
      method: 'masq',
      upper: 0,
      lower: 0,
    })),
  }))
}

/** Resolves when the process has written its first line. */
function firstLine(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (status) => reject(new LbError('NATIVE', `traffic serve: ended with status ${status}`)))
    child.stdout?.once('data', () => resolve())
  })
}

export class Course {
  readonly path: Path
  readonly #topology = new Topology(topologySpec())
  readonly #program: string
  readonly #cpu: number
  readonly #ksoftirqd: readonly number[]
  #server: ChildProcess | undefined
  #handles: TableHandles | undefined
  #group: ControlGroup | undefined

  /** `program`: the load's; it runs on CPU `cpu` alone. */
  constructor(path: Path, program: string, cpu: number, ksoftirqd: readonly number[]) {
    this.path = path
    this.#program = program
    this.#cpu = cpu
    this.#ksoftirqd = ksoftirqd
  }

  /** Makes the namespaces, starts the server, installs what the path is named after. */
  async open(): Promise<void> {
    const { kind } = this.path
    await this.#topology.create()
    const args = ['serve', String(this.#cpu), ...serverAddresses]
    this.#server = this.#topology.spawn('server', this.#program, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await firstLine(this.#server)
    if (isLocal(this.path)) this.#group = new ControlGroup(pathName(this.path))
    if (kind === 'nft') {
      await this.#loadRules()
    } else if (this.path.services > 0) {
      this.#topology.within('director', () => this.#openTable())
    }
  }

  /** Runs a workload once. NATIVE if a connection fails, or packets did not go the path's way. */
  async run(workload: Workload, amount: number): Promise<LoadResult> {
    const server = this.#server?.pid
    if (server === undefined) throw new LbError('NATIVE', `${pathName(this.path)}: no server`)
    const { address, port } = this.#target(workload)
    const others = [server, ...this.#ksoftirqd]
    const before = { cpuNs: processCpuNs(others), ticks: systemTicks(), counts: this.#counts(workload) }
    const args = [workload, String(this.#cpu), address, String(port), String(amount)]
    const line = JSON.parse(await this.#request(args)) as ClientLine
    const cpuNs = processCpuNs(others) - before.cpuNs + line.cpuSeconds * 1e9
    this.#checkCounts(workload, amount, before.counts)
    const { count, seconds, p50Us, p99Us } = line
    return { count, seconds, p50Us, p99Us, cpuNs, systemTicks: systemTicks() - before.ticks }
  }

  /** Takes everything down; may be called at any time. */
  async close(): Promise<void> {
    if (this.#handles !== undefined) {
      this.#handles.close()
      this.#topology.within('director', unloadTable)
    }
    this.#group?.remove()
    await this.#topology.close()
  }

  #request(args: readonly string[]): Promise<string> {
    if (this.#group === undefined) return this.#topology.must('client', this.#program, args)
    return this.#group.must('ip', ['netns', 'exec', this.#topology.nameOf('director'), this.#program, ...args])
  }

  #target(workload: Workload): { address: string; port: number } {
    if (this.path.services > 0) return serviceOf(workload)
    return { address: serverAddresses[0], port: ports[workload].server }
  }

  async #loadRules(): Promise<void> {
    const input = kubeProxyRules(listServices(this.path.services), this.path.masquerade === true)
    const options = { input, timeoutMs: RULES_TIMEOUT_MS }
    const { status, stderr } = await this.#topology.exec('director', 'nft', ['-f', '-'], options)
    if (status === 0) return
    const words = stderr.split('\n').slice(0, 2).join(' ')
    throw new LbError('NATIVE', `${pathName(this.path)}: nft: ${status === null ? 'took too long' : words}`)
  }

  #openTable(): void {
    const { kind, services, masquerade = false } = this.path
    this.#handles = openTable({
      sizes: { services: 32768, servers: 65536, cells: 131072 },
      policy: { include: ['*'], exclude: ['lo'], xdp: 'off' },
    })
    if (kind === 'stack') {
      new LbConfigArray(this.#handles.buffer('lb_config')).setBypass(0, LbBypassMode.BYPASS_NEVER)
    }
    const { failed } = new KernelTable(this.#handles).apply('command', desiredServices(services, masquerade))
    if (failed[0] !== undefined) {
      const why = failed[0].error instanceof Error ? failed[0].error.message : String(failed[0].error)
      throw new LbError('NATIVE', `${pathName(this.path)}: ${failed.length} services were refused: ${why}`)
    }
    if (this.#group === undefined) return
    syncSockets({ scope: 'host', protocols: 'all', group: this.#group.name })
  }

  /** Connections of a workload's service, and packets that the director's stack has forwarded. */
  #counts(workload: Workload): { conns: bigint; forwarded: number } {
    const forwarded = this.#topology.within('director', () => {
      const [names = '', values = ''] = readFileSync('/proc/net/snmp', 'utf8').split('\n')
      return Number(values.split(' ')[names.split(' ').indexOf('ForwDatagrams')])
    })
    if (this.#handles === undefined) return { conns: 0n, forwarded }
    const { address, protocol, port } = serviceOf(workload)
    const view = new KernelTable(this.#handles).service({ kind: 'address', family: 4, protocol, address, port })
    return { conns: view?.counters.conns ?? 0n, forwarded }
  }

  #checkCounts(workload: Workload, amount: number, before: { conns: bigint; forwarded: number }): void {
    const name = pathName(this.path)
    const now = this.#counts(workload)
    const conns = Number(now.conns - before.conns)
    const forwarded = now.forwarded - before.forwarded
    const expected = connectionsOf(workload, amount)
    if (this.#handles !== undefined && conns !== expected) {
      throw new LbError('NATIVE', `${name}, ${workload}: ${conns} connections were balanced, not ${expected}`)
    }
    const throughStack = forwarded > FEW_PACKETS
    if (throughStack !== ['plain', 'stack', 'nft'].includes(this.path.kind)) {
      throw new LbError('NATIVE', `${name}, ${workload}: the stack has forwarded ${forwarded} packets`)
    }
    if (this.#handles === undefined) return
    const refused = [...readVerdicts(this.#handles)].filter(
      ([verdict, count]) => verdict !== 'MASQUERADED' && count > 0n,
    )
    if (refused.length > 0)
      throw new LbError('NATIVE', `${name}, ${workload}: packets were refused: ${refused.join(', ')}`)
  }
}
