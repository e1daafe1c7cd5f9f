/** bpvsd as a process in a topology's director, on a directory of manifests that the test writes. */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { projectFile } from '../../src/lab/project.ts'
import type { Topology } from '../../src/lab/topology.ts'
import { waitFor } from './wait-for.ts'

const deadlineMs = 120_000

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

/** A Service of one port and the EndpointSlice of its family, as a manifest wants them. */
export interface ManifestService {
  readonly name: string
  readonly address: string
  readonly port: number
  readonly targetPort: number
  readonly protocol?: 'TCP' | 'UDP'
  readonly servers: readonly string[]
  /** As the annotation has them. */
  readonly weights?: string
}

function manifestOf({ name, address, port, targetPort, protocol = 'TCP', servers, weights }: ManifestService): string {
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default', annotations: weights === undefined ? {} : { 'bpvs.io/weights': weights } },
    spec: { clusterIP: address, ports: [{ name: 'p', port, targetPort, protocol }] },
  }
  const slice = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': name } },
    addressType: address.includes(':') ? 'IPv6' : 'IPv4',
    ports: [{ name: 'p', port: targetPort, protocol }],
    endpoints: servers.map((server) => ({ addresses: [server], conditions: { ready: true } })),
  }
  return `${stringify(service)}---\n${stringify(slice)}`
}

/** A temporary directory of manifests, gone with the test. */
export class Manifests {
  readonly directory = mkdtempSync(join(tmpdir(), 'bpvs-manifests-'))

  constructor(t: Teardown) {
    t.teardown(() => rmSync(this.directory, { recursive: true, force: true }))
  }

  /** Puts a service in place of the one of the same name, in one step. */
  write(service: ManifestService): void {
    const draft = join(this.directory, '.draft')
    writeFileSync(draft, manifestOf(service))
    renameSync(draft, join(this.directory, `${service.name}.yaml`))
  }

  remove(name: string): void {
    rmSync(join(this.directory, `${name}.yaml`))
  }
}

export interface LogLine {
  readonly msg: string
  readonly level: string
  readonly [field: string]: unknown
}

/** A running bpvsd and what it has logged. */
export class Daemon {
  readonly #process: ChildProcess
  readonly #exit: Promise<[number | null, NodeJS.Signals | null]>
  #text = ''

  /** `source`: manifests, or the flags that name another source. */
  constructor(topology: Pick<Topology, 'spawn'>, source: Manifests | readonly string[], ...args: readonly string[]) {
    const words = [
      ...(source instanceof Manifests ? ['--manifests', source.directory] : source),
      '--admin-socket=',
      ...args,
    ]
    this.#process = topology.spawn('director', projectFile('bin/bpvsd'), words, {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#exit = once(this.#process, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    this.#process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text
    })
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  get lines(): LogLine[] {
    const whole = this.#text.slice(0, this.#text.lastIndexOf('\n') + 1)
    return whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as LogLine]))
  }

  /** Waits for a line of the log with this message that `matches`. */
  logged(msg: string, matches: (line: LogLine) => boolean = () => true): Promise<LogLine> {
    const find = (): LogLine | undefined => {
      const line = this.lines.find((each) => each.msg === msg && matches(each))
      const { exitCode, signalCode } = this.#process
      if (line === undefined && (exitCode ?? signalCode) !== null)
        throw new Error(`bpvsd ended before it logged "${msg}"`)
      return line
    }
    return waitFor(`bpvsd to log "${msg}"`, find, deadlineMs).catch((error: Error) => {
      throw new Error(`${error.message}; it logged ${this.#text}`)
    })
  }

  /** Sends a signal and waits for the end: its status, or the signal that ended it. */
  async end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null> {
    this.#process.kill(signal)
    const [status, killedBy] = await this.#exit
    return status ?? killedBy
  }
}
