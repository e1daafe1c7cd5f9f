/** The admin API over TCP: with TLS, for clients with a token or a certificate. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { type AccessFiles, makeAccess } from '../../src/api/admin/access.ts'
import { adminServer } from '../../src/api/admin/server.ts'
import { FakeLog, FakeTimers } from '../helpers/fake-host.ts'
import { ModelTable } from '../helpers/model-table.ts'

const skip = spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not installed'

interface Teardown {
  teardown(handler: () => unknown): void
}

/** Certificates that sign themselves: `server`, `client` and `stranger`, each .crt and .key. */
function makeCertificates(t: Teardown): (name: string) => string {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-access-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = (name: string): string => join(directory, name)
  for (const name of ['server', 'client', 'stranger']) {
    const kind = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
    const files = ['-keyout', path(`${name}.key`), '-out', path(`${name}.crt`)]
    const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1']
    const { status, stderr } = spawnSync('openssl', [...kind, ...files, ...names], { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
  }
  return path
}

interface Client {
  readonly authorization?: string
  /** Name of a certificate. */
  readonly certificate?: string
}

/** Asks for the version as various clients: the status, or the error's code. */
async function start(t: Teardown, path: (name: string) => string, more: Partial<AccessFiles>) {
  const table = new ModelTable()
  const target = {
    table: () => table,
    ownerOf: () => undefined,
    syncs: () => false,
    hooks: () => [],
    verdicts: () => [],
    endSockets: () => undefined,
    healthy: () => true,
    configuration: { bpvs: {}, kubeProxy: {} },
    version: '1',
  }
  const access = makeAccess({ cert: path('server.crt'), key: path('server.key'), ...more })
  const timers = new FakeTimers()
  const every = (ms: number, run: () => void) => timers.every(ms, run)
  const app = adminServer({ target, log: new FakeLog(), now: () => 0, every, access })
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const ca = readFileSync(path('server.crt'))
  return ({ authorization, certificate }: Client): Promise<string> => {
    const headers = authorization === undefined ? {} : { authorization }
    const own = (kind: string): Buffer => readFileSync(path(`${certificate}.${kind}`))
    const identity = certificate === undefined ? {} : { cert: own('crt'), key: own('key') }
    return new Promise((resolve) => {
      const options = { host: '127.0.0.1', port, path: '/v1/version', ca, headers, agent: false, ...identity }
      const outgoing = request(options, (answer) => {
        answer.resume()
        resolve(`${answer.statusCode} ${answer.headers['www-authenticate'] ?? ''}`.trim())
      })
      outgoing.on('error', () => resolve('refused')).end()
    })
  }
}

t.test('a token lets in as long as the file has it', { skip }, async (t) => {
  const path = makeCertificates(t)
  const tokenFile = path('token')
  writeFileSync(tokenFile, 'open-sesame\n')
  const ask = await start(t, path, { tokenFile })
  t.equal(await ask({ authorization: 'Bearer open-sesame' }), '200')
  for (const authorization of ['Bearer open', 'Bearer ', 'Basic open-sesame', 'open-sesame']) {
    t.equal(await ask({ authorization }), '401 Bearer', authorization)
  }
  t.equal(await ask({}), '401 Bearer')
  t.equal(await ask({ certificate: 'client' }), '401 Bearer')
  writeFileSync(tokenFile, 'other')
  t.equal(await ask({ authorization: 'Bearer open-sesame' }), '401 Bearer')
  t.equal(await ask({ authorization: 'Bearer other' }), '200')
  writeFileSync(tokenFile, '\n')
  t.equal(await ask({ authorization: 'Bearer other' }), '401 Bearer')
  rmSync(tokenFile)
  t.equal(await ask({ authorization: 'Bearer other' }), '401 Bearer')
})

t.test('without a token nobody gets past the handshake but with a certificate of the CA', { skip }, async (t) => {
  const path = makeCertificates(t)
  const ask = await start(t, path, { clientCa: path('client.crt') })
  t.equal(await ask({ certificate: 'client' }), '200')
  t.equal(await ask({ certificate: 'stranger' }), 'refused')
  t.equal(await ask({}), 'refused')
})

t.test('with both either is enough', { skip }, async (t) => {
  const path = makeCertificates(t)
  writeFileSync(path('token'), 'open-sesame')
  const ask = await start(t, path, { clientCa: path('client.crt'), tokenFile: path('token') })
  t.equal(await ask({ certificate: 'client' }), '200')
  t.equal(await ask({ authorization: 'Bearer open-sesame' }), '200')
  t.equal(await ask({ certificate: 'stranger' }), '401 Bearer')
  t.equal(await ask({}), '401 Bearer')
})

t.test('files that are not there, or are no certificates, are told', { skip }, async (t) => {
  const path = makeCertificates(t)
  const files = { cert: path('server.crt'), key: path('server.key'), tokenFile: path('none') }
  t.throws(() => makeAccess(files), { code: 'CONFIG', message: /none: ENOENT/ })
  t.throws(() => makeAccess({ ...files, key: path('client.key') }), { code: 'CONFIG', message: /adminKey/ })
})
