/** Steady traffic from all clients to all virtual services, following the services as they come and go. */
import type { Host } from './host.ts'
import { labDnsName } from './network.ts'
import { emptyReport, mergeReports, type Report } from './tally.ts'
import type { LabTarget } from './targets.ts'

/** A request that has no answer after this time counts as lost. */
const timeoutMs = 2_000

interface Stream {
  readonly client: Host
  readonly id: number
}

/** What identifies a service to call; its servers may change meanwhile. */
function keyOf(target: LabTarget): string {
  return `${target.label} ${target.application}`
}

/** Starts one client's stream of requests to a service. */
export async function startStream(client: Host, target: LabTarget, ratePerSecond: number): Promise<Stream> {
  const { address, port } = target
  const load = { address, port, ratePerSecond, timeoutMs, concurrency: 4 }
  if (target.application === 'http') return { client, id: await client.call('startHttp', load) }
  const type = target.family === 4 ? 'A' : 'AAAA'
  const tcp = target.protocol === 'tcp'
  return { client, id: await client.call('startDns', { ...load, name: labDnsName, type, tcp }) }
}

export class Traffic {
  readonly #clients: readonly Host[]
  readonly #ratePerSecond: number
  readonly #streams = new Map<string, readonly Stream[]>()
  /** What streams had seen that were stopped since the last take(). */
  #stopped: Report[] = []
  #work: Promise<void> = Promise.resolve()

  /** The rate is of one client to one service. */
  constructor(clients: readonly Host[], ratePerSecond: number) {
    this.#clients = clients
    this.#ratePerSecond = ratePerSecond
  }

  /** Makes the streams be those to `targets`. Calls are done one after the other. */
  follow(targets: readonly LabTarget[]): Promise<void> {
    this.#work = this.#work.then(() => this.#change(targets))
    return this.#work
  }

  /** What was seen since the last call. */
  async take(): Promise<Report> {
    const streams = [...this.#streams.values()].flat()
    const running = await Promise.all(streams.map(({ client, id }) => client.call('loadReport', id, true)))
    const stopped = this.#stopped
    this.#stopped = []
    return mergeReports([emptyReport(), ...running, ...stopped])
  }

  /** Waits until every request that is open now has its answer, or counts as lost. */
  settle(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, timeoutMs + 100))
  }

  async #change(targets: readonly LabTarget[]): Promise<void> {
    const wanted = new Map(targets.map((target) => [keyOf(target), target]))
    const gone = [...this.#streams].filter(([key]) => !wanted.has(key))
    for (const [key] of gone) this.#streams.delete(key)
    await Promise.all(gone.flatMap(([, streams]) => streams).map((stream) => this.#stop(stream)))
    for (const [key, target] of wanted) {
      if (this.#streams.has(key)) continue
      const starts = this.#clients.map((client) => startStream(client, target, this.#ratePerSecond))
      this.#streams.set(key, await Promise.all(starts))
    }
  }

  async #stop({ client, id }: Stream): Promise<void> {
    this.#stopped.push(await client.call('stopLoad', id))
  }
}
