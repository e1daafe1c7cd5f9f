/** Who we are to the API server: TLS, service accounts, certificates, programs that know a token. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import t from 'tap'
import { HttpApiServer } from '../../src/kube/client/api-server.ts'
import { type ApiSettings, loadCredentials } from '../../src/kube/client/credentials.ts'

const noOpenssl = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed'
const account = 'var/run/secrets/kubernetes.io/serviceaccount'

interface Teardown {
  teardown(handler: () => unknown): void
}

/** A server with TLS that answers who it takes the client for. */
class TlsServer {
  readonly directory: string
  readonly #server
  readonly tokens: (string | undefined)[] = []

  private constructor(t: Teardown) {
    this.directory = mkdtempSync(join(tmpdir(), 'bpvs-tls-'))
    this.#makeCertificate('server', 'IP:127.0.0.1')
    this.#makeCertificate('client', 'DNS:client')
    const options = {
      key: this.read('server.key'),
      cert: this.read('server.crt'),
      ca: this.read('client.crt'),
      requestCert: true,
      rejectUnauthorized: false,
    }
    this.#server = createServer(options, (request, response) => {
      this.tokens.push(request.headers.authorization)
      const socket = request.socket as TLSSocket
      response.end(JSON.stringify({ certified: socket.authorized, url: request.url }))
    })
    t.teardown(() => {
      this.#server.close()
      this.#server.closeAllConnections()
      rmSync(this.directory, { recursive: true })
    })
  }

  static async start(t: Teardown): Promise<TlsServer> {
    const server = new TlsServer(t)
    server.#server.listen(0, '127.0.0.1')
    await once(server.#server, 'listening')
    return server
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  path(name: string): string {
    return join(this.directory, name)
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8')
  }

  kubeconfig(cluster: object, user: object): string {
    const config = {
      clusters: [{ name: 'c', cluster: { server: `https://127.0.0.1:${this.port}/base`, ...cluster } }],
      users: [{ name: 'u', user }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }
    const file = this.path('kubeconfig')
    writeFileSync(file, JSON.stringify(config))
    return file
  }

  async ask(settings: ApiSettings): Promise<unknown> {
    const api = new HttpApiServer(() => loadCredentials(settings))
    const { status, body } = await api.get('/api?x=1', AbortSignal.timeout(10_000))
    if (status !== 200) throw new Error(`status ${status}`)
    const chunks: Buffer[] = []
    for await (const chunk of body) chunks.push(chunk)
    return JSON.parse(Buffer.concat(chunks).toString())
  }

  #makeCertificate(name: string, alternative: string): void {
    const args = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=${name}`.split(
      ' ',
    )
    const files = ['-keyout', this.path(`${name}.key`), '-out', this.path(`${name}.crt`)]
    const done = spawnSync('openssl', [...args, ...files, '-addext', `subjectAltName=${alternative}`])
    if (done.status !== 0) throw new Error(done.stderr.toString())
  }
}

const base64 = (text: string): string => Buffer.from(text).toString('base64')

t.test('a kubeconfig names the authority by file or in itself; paths are its own', { skip: noOpenssl }, async (t) => {
  const server = await TlsServer.start(t)
  const clusters = [
    { 'certificate-authority': 'server.crt' },
    { 'certificate-authority-data': base64(server.read('server.crt')) },
    { 'insecure-skip-tls-verify': true },
  ]
  for (const cluster of clusters) {
    const kubeconfig = server.kubeconfig(cluster, { token: 'secret' })
    t.same(await server.ask({ kubeconfig }), { certified: false, url: '/base/api?x=1' })
  }
  t.same(server.tokens, ['Bearer secret', 'Bearer secret', 'Bearer secret'])
})

t.test('a server whose authority is unknown is not talked to', { skip: noOpenssl }, async (t) => {
  const server = await TlsServer.start(t)
  const kubeconfig = server.kubeconfig({ 'certificate-authority': 'client.crt' }, { token: 'secret' })
  await t.rejects(server.ask({ kubeconfig }), { code: 'API', message: /cannot be reached: .*certificate/ })
  t.same(server.tokens, [])
})

t.test('a client certificate is shown', { skip: noOpenssl }, async (t) => {
  const server = await TlsServer.start(t)
  const user = { 'client-certificate': 'client.crt', 'client-key': 'client.key' }
  const kubeconfig = server.kubeconfig({ 'certificate-authority': 'server.crt' }, user)
  t.match(await server.ask({ kubeconfig }), { certified: true })
})

t.test('a program is asked for the token; one that fails is told of', { skip: noOpenssl }, async (t) => {
  const server = await TlsServer.start(t)
  const credential = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    status: { token: 'made' },
  }
  const exec = (script: string): object => {
    return { apiVersion: 'client.authentication.k8s.io/v1', command: 'sh', args: ['-c', script] }
  }
  const cluster = { 'certificate-authority': 'server.crt' }
  const good = server.kubeconfig(cluster, { exec: exec(`echo '${JSON.stringify(credential)}'`) })
  await server.ask({ kubeconfig: good })
  t.same(server.tokens, ['Bearer made'])
  const bad = server.kubeconfig(cluster, { exec: exec('echo no such user >&2; exit 1') })
  await t.rejects(server.ask({ kubeconfig: bad }), { code: 'API', message: /no credentials.*no such user/ })
})

t.test(
  "in a pod the service account's files count, its token as it is at the moment",
  { skip: noOpenssl },
  async (t) => {
    const server = await TlsServer.start(t)
    mkdirSync(server.path(account), { recursive: true })
    writeFileSync(server.path(`${account}/ca.crt`), server.read('server.crt'))
    writeFileSync(server.path(`${account}/token`), 'one')
    const before = { ...process.env }
    t.teardown(() => {
      process.env = before
    })
    process.env.KUBERNETES_SERVICE_HOST = '127.0.0.1'
    process.env.KUBERNETES_SERVICE_PORT = String(server.port)
    const settings = { root: server.directory }
    const api = new HttpApiServer(() => loadCredentials(settings))
    await api.get('/', AbortSignal.timeout(10_000))
    writeFileSync(server.path(`${account}/token`), 'two')
    await api.get('/', AbortSignal.timeout(10_000))
    t.same(server.tokens, ['Bearer one', 'Bearer two'])
  },
)

t.test('--master goes before the server of the kubeconfig', { skip: noOpenssl }, async (t) => {
  const server = await TlsServer.start(t)
  const cluster = { 'certificate-authority': 'server.crt', server: 'https://192.0.2.1:1' }
  const kubeconfig = server.kubeconfig(cluster, { token: 'secret' })
  t.match(await server.ask({ kubeconfig, master: `https://127.0.0.1:${server.port}` }), { url: '/api?x=1' })
})

t.test('a kubeconfig that is missing, broken or names no server is refused by name', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-kubeconfig-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'k')
  await t.rejects(loadCredentials({ kubeconfig: file }), { code: 'CONFIG', message: /k: ENOENT/ })
  for (const text of ['', '{', '{"clusters":[]}', '{"clusters":[],"users":[],"contexts":[],"current-context":"x"}']) {
    writeFileSync(file, text)
    await t.rejects(loadCredentials({ kubeconfig: file }), { code: 'CONFIG' }, text)
  }
  const clusters = [{ name: 'c', cluster: { server: 'ftp://x' } }]
  const contexts = [{ name: 'x', context: { cluster: 'c', user: 'u' } }]
  writeFileSync(file, JSON.stringify({ clusters, users: [], contexts, 'current-context': 'x' }))
  await t.rejects(loadCredentials({ kubeconfig: file }), { code: 'CONFIG', message: /"ftp:\/\/x" is not the URL/ })
})
