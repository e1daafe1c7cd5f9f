/** The lab as a whole: network, bpvsd, traffic, and what clients are to call. */
import { relative } from 'node:path'
import { LbError } from '../model/errors.ts'
import { Bpvsd, type LogLine } from './bpvsd.ts'
import { must } from './command.ts'
import { LabNetwork } from './network.ts'
import { projectFile } from './project.ts'
import { followTargets, type LabTarget } from './targets.ts'
import { Traffic } from './traffic.ts'

export class Lab {
  readonly network = new LabNetwork()
  /** Path of the manifests, relative to the working directory: short where bpvsd names a file. */
  readonly manifests: string
  targets: readonly LabTarget[] = []
  /** Called with what goes wrong in the background. */
  onError: (error: unknown) => void = () => {}
  readonly #onLog: (line: LogLine) => void
  #bpvsd: Bpvsd | undefined
  #traffic: Traffic | undefined
  #stopFollowing = () => {}

  constructor(manifests: string, onLog: (line: LogLine) => void) {
    this.manifests = relative('', manifests) || '.'
    this.#onLog = onLog
  }

  get bpvsd(): Bpvsd {
    if (this.#bpvsd === undefined) throw new LbError('INVALID', 'lab: bpvsd was not started yet')
    return this.#bpvsd
  }

  get traffic(): Traffic {
    if (this.#traffic === undefined) throw new LbError('INVALID', 'lab: traffic was not started yet')
    return this.#traffic
  }

  /** Starts bpvsd in the director and waits until its first apply is done. NATIVE with its last words. */
  async startBpvsd(): Promise<Bpvsd> {
    this.#bpvsd = new Bpvsd(this.network.topology, this.manifests, this.#onLog)
    await this.#bpvsd.ready
    return this.#bpvsd
  }

  /** Reads the manifests and follows them; traffic, once started, goes to what they name. */
  follow(): void {
    this.#stopFollowing = followTargets(this.manifests, (targets) => {
      this.targets = targets
      this.#traffic?.follow(targets).catch((error: unknown) => this.onError(error))
    })
  }

  /** Starts steady traffic, at a rate for each client and virtual service. */
  async startTraffic(ratePerSecond: number): Promise<Traffic> {
    this.#traffic = new Traffic(this.network.clients, ratePerSecond)
    await this.#traffic.follow(this.targets)
    return this.#traffic
  }

  /** What `bpvsadm` prints in the director. */
  async listing(args: readonly string[] = ['-Ln', '--stats']): Promise<string[]> {
    const name = this.network.topology.nameOf('director')
    const text = await must('ip', ['netns', 'exec', name, projectFile('bin/bpvsadm'), ...args])
    return text.trimEnd().split('\n')
  }

  /** Ends everything and removes the network, tables included. */
  async close(): Promise<void> {
    this.#stopFollowing()
    await this.#bpvsd?.stop()
    await this.network.close()
  }
}
