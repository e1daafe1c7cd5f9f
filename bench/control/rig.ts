/** A namespace with an API server and a table, and the bpvsd that is measured. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises'
import { openKernelTable } from '../../src/engine/open.ts'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { TestApiServer } from '../../test/helpers/api-server.ts'
import { Daemon } from '../../test/helpers/daemon.ts'
import type { Cleanup } from '../common/main.ts'
import { clusterIp, type ClusterSize, fill, sliceOf } from './cluster.ts'
import { type ListingTime, smallTable, timeListing } from './listing.ts'
import { Probe, probeLinks, probeNamespaces } from './probe.ts'
import { cpuSeconds, memoryMib } from './process.ts'

/** A change that is not seen in this time is lost. */
const longestMs = 10_000

export class Rig {
  readonly #size: ClusterSize
  readonly #topology: Topology
  readonly #server: TestApiServer
  readonly #kubeconfig: string
  readonly #probe: Probe
  #daemon: Daemon | undefined
  #table: ReconcilingTable | undefined

  private constructor(size: ClusterSize, topology: Topology, server: TestApiServer, kubeconfig: string) {
    this.#probe = new Probe(topology, server)
    this.#size = size
    this.#topology = topology
    this.#server = server
    this.#kubeconfig = kubeconfig
  }

  /** With an empty table, and a server that has the whole cluster. */
  static async make(size: ClusterSize, cleanup: Cleanup): Promise<Rig> {
    const topology = new Topology({
      namespaces: [{ name: 'director', forwarding: true }, ...probeNamespaces],
      links: probeLinks,
    })
    cleanup.add(() => topology.close())
    await topology.create()
    const teardown = { teardown: (handler: () => Promise<void>) => cleanup.add(handler) }
    const server = await TestApiServer.start(teardown, (open) => topology.within('director', open))
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-bench-'))
    cleanup.add(() => rmSync(directory, { recursive: true }))
    const kubeconfig = join(directory, 'kubeconfig')
    const clusters = [{ name: 'bench', cluster: { server: server.url } }]
    const contexts = [{ name: 'here', context: { cluster: 'bench', user: 'me' } }]
    const users = [{ name: 'me', user: { token: 'secret' } }]
    writeFileSync(kubeconfig, JSON.stringify({ clusters, contexts, users, 'current-context': 'here' }))
    fill(server, size)
    const rig = new Rig(size, topology, server, kubeconfig)
    cleanup.add(() => rig.close())
    await topology.must('director', projectFile('bin/bpvsd'), ['--init-only', ...rig.#options()], {
      timeoutMs: 120_000,
    })
    return rig
  }

  #options(): string[] {
    const room = ['--max-services', String(4 * this.#size.services), '--max-servers', String(2 * this.#size.endpoints)]
    return ['--kubeconfig', this.#kubeconfig, '--conntrack-max-per-core=0', '--conntrack-min=0', ...room]
  }

  /** Starts bpvsd; seconds until all is in the table, and what it took of a CPU. */
  async start(): Promise<{ readonly seconds: number; readonly cpuSeconds: number }> {
    const began = performance.now()
    this.#daemon = new Daemon(this.#topology, this.#options())
    await this.#daemon.logged('ready')
    const seconds = (performance.now() - began) / 1000
    const cpuSeconds = this.cpuSeconds()
    this.#table = this.#topology.within('director', () => openKernelTable({ create: false }))
    const last = {
      kind: 'address',
      family: 4,
      protocol: 'tcp',
      address: clusterIp(this.#size.services - 1),
      port: 80,
    } as const
    const wanted = this.#size.endpoints / this.#size.services
    if (this.#table?.service(last)?.servers.length !== wanted) throw new Error('not everything is in the table')
    return { seconds, cpuSeconds }
  }

  /** Times of `bpvsadm -Ln` on the table as it is. */
  list(): Promise<ListingTime> {
    return timeListing(this.#topology)
  }

  /** The same on a small table, which is there for it alone: before the start. */
  async listSmall(): Promise<ListingTime> {
    const program = projectFile('bin/bpvsadm')
    await this.#topology.must('director', program, ['-R'], { input: smallTable })
    const times = await timeListing(this.#topology)
    await this.#topology.must('director', program, ['-C'])
    return times
  }

  /** A service's only endpoint moves; milliseconds until the first packet of a client is there. */
  async moveAndReach(): Promise<number> {
    return this.#probe.move()
  }

  /** Waits until a client reaches a server. */
  async reach(): Promise<void> {
    await this.#probe.reach()
  }

  memoryMib(): number {
    return memoryMib(this.#daemon?.pid ?? 0)
  }

  cpuSeconds(): number {
    return cpuSeconds(this.#daemon?.pid ?? 0)
  }

  /** One endpoint of service `n` gives way to another: sent, and not waited for. */
  change(n: number, round: number): void {
    const each = this.#size.endpoints / this.#size.services
    this.#server.set('EndpointSlice', sliceOf(n % this.#size.services, (n % this.#size.services) * each + round, each))
  }

  /** The same; milliseconds until it is in the table. */
  async changeAndWait(n: number, round: number): Promise<number> {
    const table = this.#table
    if (table === undefined) throw new Error('no table')
    const before = table.generation()
    const began = performance.now()
    this.change(n, round)
    while (table.generation() === before) {
      await turn()
      if (performance.now() - began > longestMs) throw new Error(`a change of service ${n} is not in the table`)
    }
    return performance.now() - began
  }

  /** Changes at a rate for some seconds; the share of a CPU that bpvsd takes meanwhile. */
  async churn(perSecond: number, seconds: number): Promise<number> {
    const before = this.cpuSeconds()
    const began = performance.now()
    for (let i = 0; i < perSecond * seconds; i++) {
      this.change(i * 7, 2 + (i % 5))
      await delay(Math.max(0, began + ((i + 1) * 1000) / perSecond - performance.now()))
    }
    return (this.cpuSeconds() - before) / ((performance.now() - began) / 1000)
  }

  async close(): Promise<void> {
    this.#probe.close()
    this.#table?.close()
    this.#table = undefined
    await this.#daemon?.end('SIGTERM')
    this.#daemon = undefined
  }
}
