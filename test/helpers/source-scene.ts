/** A source of Kubernetes objects that follows a test's API server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HttpApiServer } from '../../src/kube/client/api-server.ts'
import { loadCredentials } from '../../src/kube/client/credentials.ts'
import { type KubeChanges, KubernetesSource } from '../../src/kube/client/kubernetes-source.ts'
import { type ApiObject, TestApiServer } from './api-server.ts'
import { waitFor } from './wait-for.ts'

export function service(name: string, address: string, namespace = 'default'): ApiObject {
  return { metadata: { name, namespace }, spec: { clusterIP: address, clusterIPs: [address], ports: [{ port: 80 }] } }
}

export function slice(of: string, ...addresses: readonly string[]): ApiObject {
  return {
    metadata: { name: `${of}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': of } },
    addressType: 'IPv4',
    ports: [{ name: '', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  }
}

interface Teardown {
  teardown(handler: () => void): void
}

/** Of a kubeconfig: where the server is, and who asks. */
export interface Cluster {
  readonly cluster: object
  readonly user: object
}

/** A source that follows a server, and all that it has said. Its time runs `speed` times as fast as ours. */
export class SourceScene {
  readonly #server: TestApiServer | undefined
  readonly #cluster: object
  readonly source: KubernetesSource
  readonly said: KubeChanges[] = []
  readonly bad: string[] = []
  readonly troubles: string[] = []
  /** What the changes come to: endpoints by objectId. */
  readonly objects = new Map<string, readonly string[]>()
  readonly file: string

  private constructor(t: Teardown, server: TestApiServer | undefined, { cluster, user }: Cluster, speed: number) {
    this.#server = server
    this.#cluster = cluster
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-api-'))
    this.file = join(directory, 'kubeconfig')
    this.writeKubeconfig(user)
    this.source = new KubernetesSource({
      api: new HttpApiServer(
        () => loadCredentials({ kubeconfig: this.file }),
        () => performance.now() * speed,
      ),
      clock: {
        now: () => performance.now() * speed,
        random: Math.random,
        after: (ms, run) => {
          const timer = setTimeout(run, ms / speed)
          return { cancel: () => clearTimeout(timer) }
        },
      },
      nodeName: 'here',
      gatherMs: 0,
      onChanges: (changes) => this.#take(changes),
      onBad: (object, reasons) => this.bad.push(`${object}: ${reasons.join('; ')}`),
      onTrouble: (kind, error) =>
        this.troubles.push(`${kind}: ${error instanceof Error ? error.message : 'well again'}`),
    })
    t.teardown(() => {
      this.source.close()
      rmSync(directory, { recursive: true })
    })
  }

  static async make(t: Teardown & { teardown(handler: () => Promise<void>): void }, speed = 10): Promise<SourceScene> {
    const server = await TestApiServer.start(t)
    return new SourceScene(t, server, { cluster: { server: server.url }, user: { token: 'first' } }, speed)
  }

  /** A source that follows somebody else's server, in our time. */
  static follow(t: Teardown, cluster: Cluster): SourceScene {
    return new SourceScene(t, undefined, cluster, 1)
  }

  /** The test's own. */
  get server(): TestApiServer {
    if (this.#server === undefined) throw new Error("the server is not the test's own")
    return this.#server
  }

  writeKubeconfig(user: object): void {
    const config = {
      clusters: [{ name: 'test', cluster: this.#cluster }],
      users: [{ name: 'me', user }],
      contexts: [{ name: 'here', context: { cluster: 'test', user: 'me' } }],
      'current-context': 'here',
    }
    writeFileSync(this.file, JSON.stringify(config))
  }

  #take(changes: KubeChanges): void {
    this.said.push(changes)
    for (const object of changes.set) {
      const endpoints = object.kind === 'EndpointSlice' ? object.endpoints.map(({ address }) => address) : []
      this.objects.set(`${object.kind} ${object.namespace}/${object.name}`, endpoints)
    }
    for (const id of changes.removed) this.objects.delete(id)
  }

  get complete(): boolean {
    return this.said.at(-1)?.complete ?? false
  }

  /** Follows, and waits for the first whole state. */
  async start(): Promise<void> {
    this.source.start()
    await waitFor('the first whole state', () => this.complete)
  }

  /** Waits until exactly these objects are known, with these endpoints. */
  knows(what: string, objects: Readonly<Record<string, readonly string[]>>): Promise<true> {
    const wanted = JSON.stringify(Object.entries(objects).sort())
    return waitFor(`${what}: ${wanted}`, () => JSON.stringify([...this.objects].sort()) === wanted)
  }

  watching(): Promise<true> {
    return waitFor('watches of all kinds', () => this.server.watches === 4)
  }
}
