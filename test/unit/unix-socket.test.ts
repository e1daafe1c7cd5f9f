/** The unix socket of the admin API: who may use it, and whose place it takes. */
import { spawnSync } from 'node:child_process'
import { existsSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fastify } from 'fastify'
import t from 'tap'
import { serveUnix } from '../../src/api/unix-socket.ts'
import { FakeLog, FakeTimers } from '../helpers/fake-host.ts'
import { ask } from '../helpers/http-client.ts'
import { waitFor } from '../helpers/wait-for.ts'

interface Teardown {
  teardown(handler: () => void): void
}

function temporary(t: Teardown): string {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-unix-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return directory
}

function start(t: Teardown, path: string, who = 'one') {
  const log = new FakeLog()
  const timers = new FakeTimers()
  const make = () => fastify({ forceCloseConnections: true }).get('/', async () => ({ who }))
  const running = serveUnix(make, path, { name: 'test', log, after: (ms, run) => timers.after(ms, run) })
  t.teardown(() => running.close())
  return { log, timers, running, listens: () => waitFor('a socket', () => log.of('listening').length > 0) }
}

t.test("the socket is its owner's alone, in a directory that is made, and is gone at the end", async (t) => {
  const directory = temporary(t)
  const path = join(directory, 'a', 'b', 'test.sock')
  const { running, listens } = start(t, path)
  await listens()
  const { mode } = lstatSync(path)
  t.equal(mode & 0o777, 0o600)
  t.same(readdirSync(join(directory, 'a', 'b')), ['test.sock'], 'nothing else is left there')
  t.same((await ask(path, 'GET', '/')).json, { who: 'one' })
  running.close()
  t.notOk(existsSync(path))
})

t.test('the socket of a process that died is replaced', async (t) => {
  const path = join(temporary(t), 'test.sock')
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.ok(lstatSync(path).isSocket())
  await start(t, path).listens()
  t.same((await ask(path, 'GET', '/')).json, { who: 'one' })
})

t.test('a socket in use is left alone, said once, and taken over when it is free', async (t) => {
  const path = join(temporary(t), 'test.sock')
  const first = start(t, path, 'first')
  await first.listens()
  const second = start(t, path, 'second')
  const said = () => second.log.of('cannot listen')
  await waitFor('the refusal', () => said().length > 0)
  t.match(said(), [{ err: { code: 'INVALID', message: `${path} is in use by another process` } }])
  t.same((await ask(path, 'GET', '/')).json, { who: 'first' })
  first.running.close()
  await waitFor('a new attempt', () => {
    second.timers.pass(5000)
    return second.log.of('listening').length > 0
  })
  t.equal(said().length, 1)
  t.same((await ask(path, 'GET', '/')).json, { who: 'second' })
})

t.test('what is no socket is never removed', async (t) => {
  const path = join(temporary(t), 'file')
  writeFileSync(path, 'precious')
  const { log } = start(t, path)
  await waitFor('the refusal', () => log.of('cannot listen').length > 0)
  t.ok(lstatSync(path).isFile())
})
