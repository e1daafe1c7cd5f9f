/**
 * kube-apiserver and etcd as envtest has them: programs in the folder that KUBEBUILDER_ASSETS names. They run for one test, on ports
 * of loopback, and everybody with the token may do everything.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ApiObject } from './api-server.ts'
import { waitFor } from './wait-for.ts'

/** The folder, where there is one. */
export const assets = process.env.KUBEBUILDER_ASSETS

const paths = {
  Service: ['api/v1', 'services'],
  Node: ['api/v1', 'nodes'],
  EndpointSlice: ['apis/discovery.k8s.io/v1', 'endpointslices'],
} as const
export type WrittenKind = keyof typeof paths

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

const token = 'for-the-test'
const readyMs = 120_000

export class RealApiServer {
  readonly #directory = mkdtempSync(join(tmpdir(), 'bpvs-real-api-'))
  readonly #programs: ChildProcess[] = []
  #port = 0
  /** Why a program could not be run. */
  #failed: Error | undefined

  /** Both programs, answering. */
  static async start(t: Teardown, folder: string): Promise<RealApiServer> {
    const server = new RealApiServer()
    t.teardown(() => server.#end())
    const [client, peer, port] = await freePorts(3)
    const etcd = `http://127.0.0.1:${client}`
    server.#port = port ?? 0
    server.#spawn(join(folder, 'etcd'), [
      `--data-dir=${join(server.#directory, 'etcd')}`,
      `--listen-client-urls=${etcd}`,
      `--advertise-client-urls=${etcd}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      '--unsafe-no-fsync',
    ])
    server.#spawn(join(folder, 'kube-apiserver'), server.#flags(etcd))
    await waitFor('kube-apiserver', () => server.#isReady(), readyMs)
    await waitFor(
      'the namespace',
      async () => (await server.#ask('GET', '/api/v1/namespaces/default')) === 200,
      readyMs,
    )
    return server
  }

  /** As a kubeconfig names it. */
  get cluster(): object {
    return { server: `https://127.0.0.1:${this.#port}`, 'certificate-authority': this.#certificate }
  }

  get user(): object {
    return { token }
  }

  /** Makes an object, or puts this one in its place. */
  async put(kind: WrittenKind, object: ApiObject): Promise<void> {
    const { name, namespace } = object.metadata
    const [group, resource] = paths[kind]
    const all = collection(kind, namespace)
    const version = group.replace(/^apis?\//, '')
    const body = { kind, apiVersion: version, ...object }
    const made = await this.#ask('POST', all, body)
    if (made === 409) return this.#must('PUT', `${all}/${name}`, body)
    if (made !== 201) throw new Error(`POST ${resource} ${name}: ${made}`)
  }

  async remove(kind: WrittenKind, namespace: string, name: string): Promise<void> {
    await this.#must('DELETE', `${collection(kind, namespace)}/${name}`)
  }

  get #certificate(): string {
    return join(this.#directory, 'apiserver.crt')
  }

  #flags(etcd: string): string[] {
    const key = join(this.#directory, 'accounts.key')
    const tokens = join(this.#directory, 'tokens.csv')
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    writeFileSync(key, privateKey.export({ type: 'pkcs1', format: 'pem' }))
    writeFileSync(tokens, `${token},tester,tester,system:masters\n`)
    return [
      `--etcd-servers=${etcd}`,
      '--bind-address=127.0.0.1',
      `--secure-port=${this.#port}`,
      `--cert-dir=${this.#directory}`,
      `--token-auth-file=${tokens}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${key}`,
      `--service-account-signing-key-file=${key}`,
      '--disable-admission-plugins=ServiceAccount',
    ]
  }

  #spawn(program: string, flags: readonly string[]): void {
    const child = spawn(program, flags, { stdio: 'ignore' })
    child.on('error', (error) => {
      this.#failed = error
    })
    this.#programs.push(child)
  }

  async #isReady(): Promise<boolean> {
    if (this.#failed !== undefined) throw this.#failed
    const ended = this.#programs.find(({ exitCode }) => exitCode !== null)
    if (ended !== undefined) throw new Error(`${ended.spawnfile} ended with status ${ended.exitCode}`)
    return (await this.#ask('GET', '/readyz').catch(() => 0)) === 200
  }

  async #must(method: string, path: string, body?: object): Promise<void> {
    const status = await this.#ask(method, path, body)
    if (status !== 200) throw new Error(`${method} ${path}: ${status}`)
  }

  /** The status of the answer. */
  async #ask(method: string, path: string, body?: object): Promise<number> {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const ca = readFileSync(this.#certificate)
    return new Promise((resolve, reject) => {
      const sent = request({ host: '127.0.0.1', port: this.#port, path, method, ca, headers }, (answer) => {
        answer.resume()
        answer.on('end', () => resolve(answer.statusCode ?? 0))
      })
      sent.on('error', reject)
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  }

  async #end(): Promise<void> {
    for (const child of this.#programs.toReversed()) {
      if (child.exitCode !== null || child.pid === undefined) continue
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function collection(kind: WrittenKind, namespace: string | undefined): string {
  const [group, resource] = paths[kind]
  return namespace === undefined ? `/${group}/${resource}` : `/${group}/namespaces/${namespace}/${resource}`
}

/** Ports of loopback that nobody has, for whoever takes them next. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  const ports: number[] = []
  for (const server of servers) {
    if (!server.listening) await once(server, 'listening')
    ports.push((server.address() as AddressInfo).port)
  }
  for (const server of servers) {
    server.close()
    await once(server, 'close')
  }
  return ports
}
