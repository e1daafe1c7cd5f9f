import t from 'tap'
import { LbError } from '../../src/model/errors.ts'
import { entry, key, Scene, web } from '../helpers/daemon-scene.ts'

t.test('at the start it makes the table, attaches, applies the manifests, and then says ready', async (t) => {
  const scene = new Scene(['--interfaces', 'eth*', '--max-servers', '1000', '--xdp', 'off'])
  scene.first = Scene.stateOf(web(1, 2))
  scene.daemon.start()
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080, 10.0.1.2:8080`])
  t.match(scene.host.room, { services: 16384, servers: 1000, connections: 229376 })
  t.same(scene.host.policy, { include: ['eth*'], exclude: [], xdp: 'off' })
  t.same(
    scene.log.lines.map(({ message }) => message),
    ['attached', 'applied', 'ready'],
  )
  t.match(scene.log.of('applied'), [{ services: 1, servers: 2, added: 1, changed: 0, removed: 0, failed: 0 }])
  t.type(scene.log.of('applied')[0]?.ms, 'number')
})

t.test('settings that are configured are made in every table that it opens, others never', async (t) => {
  const plain = new Scene()
  plain.daemon.start()
  t.same(plain.host.table.changes, [])
  const scene = new Scene(['--bypass', 'never', '--sysctls', 'sloppy_tcp=1,drop_entry=3'])
  scene.daemon.start()
  const change = { bypass: 'never', tunables: { sloppy_tcp: 1, drop_entry: 3 } }
  t.same(scene.host.table.changes, [change])
  scene.host.current = false
  scene.timers.pass(1000)
  t.equal(scene.host.opened, 2)
  t.same(scene.host.table.changes, [change])
})

t.test("a table that cannot be opened is the caller's to report", async (t) => {
  const scene = new Scene()
  scene.host.openError = new LbError('PERMISSION')
  t.throws(() => scene.daemon.start(), { code: 'PERMISSION' })
  t.notOk(scene.sourceOpen)
})

t.test('what is applied alone is logged at once, what follows soon in sums', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  const said = (): unknown[] =>
    scene.log.of('applied').map(({ added, removed, services }) => [added, removed, services])
  t.same(said(), [[1, 0, 1]])
  scene.say(Scene.stateOf(web(2)))
  scene.say(Scene.stateOf(web(2), web(3)))
  t.same(said(), [[1, 0, 1]])
  scene.timers.pass(249)
  t.same(said(), [[1, 0, 1]])
  scene.timers.pass(1)
  t.same(said(), [
    [1, 0, 1],
    [2, 1, 2],
  ])
  scene.timers.pass(1000)
  scene.say(Scene.stateOf())
  t.same(said().at(-1), [0, 2, 0])
  scene.say(Scene.stateOf(web(4)))
  scene.daemon.stop()
  t.same(said().at(-1), [1, 0, 1], 'nothing is left untold at the end')
})

t.test('every new state is applied at once; ready is said once', async (t) => {
  const scene = new Scene(['--log-level', 'debug'])
  scene.daemon.start()
  scene.say(Scene.stateOf(web(1)))
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
  scene.say(Scene.stateOf(web(2)))
  t.same(scene.table.lines(), [`${key(2)} -> 10.0.2.1:8080`])
  t.match(scene.log.of('applied').at(-1), { added: 1, removed: 1 })
  t.equal(scene.log.of('ready').length, 1)
})

t.test('until the manifests have been read in full nothing of an existing table is touched', async (t) => {
  const scene = new Scene()
  scene.first = undefined
  scene.table.edit((entries) => entries.set(key(1), { source: 'manifest', want: entry(1, ['10.0.1.1']) }))
  scene.daemon.start()
  scene.table.edit((entries) => entries.set(key(9), { source: 'command', want: entry(9) }))
  scene.timers.pass(60_000)
  t.equal(scene.table.applies, 0)
  t.same(scene.log.of('ready'), [])
  scene.say(Scene.stateOf())
  t.same(scene.table.lines(), [`${key(9)} -> `], 'what is in no manifest goes; what a command made stays')
})

t.test('an existing table is adopted: what is as wanted is left alone', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  const again = new Scene()
  again.first = scene.first
  again.host.table = scene.host.table
  again.daemon.start()
  t.match(again.log.of('applied'), [{ added: 0, changed: 0, removed: 0 }])
})

t.test(
  'a bad manifest takes nothing out of force over a restart; once all are good, what is in none goes',
  async (t) => {
    const scene = new Scene()
    scene.table.edit((entries) => {
      for (const n of [1, 2, 3])
        entries.set(key(n), { source: 'manifest', want: entry(n, [`10.0.${n}.1`, `10.0.${n}.2`]) })
    })
    const before = scene.table.lines()
    scene.first = { ...Scene.stateOf(web(1, 2)), complete: false }
    scene.daemon.start()
    t.same(scene.table.lines(), before)
    t.match(scene.log.of('services kept from before until everything is known'), [{ services: 2 }])

    scene.say({ ...Scene.stateOf(web(2, 2)), complete: false })
    t.same(scene.table.lines(), before.slice(1), 'a service that was read and then removed goes')
    scene.say({ ...Scene.stateOf(), complete: false })
    t.same(scene.table.lines(), before.slice(2), 'one that was kept and then read is kept no longer')
    scene.say(Scene.stateOf(web(1)))
    t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
  },
)

t.test('what somebody changed or removed of its own is put right within a second, and logged', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1), web(2))
  scene.daemon.start()
  const wanted = scene.table.lines()
  scene.table.edit((entries) => entries.delete(key(1)))
  scene.table.edit((entries) => entries.set(key(2), { source: 'manifest', want: entry(2, ['192.0.2.1']) }))
  scene.timers.pass(1000)
  t.same(scene.table.lines(), wanted)
  t.match(scene.log.of('repaired what others changed'), [{ added: 1, changed: 1, removed: 0 }])
})

t.test('what commands add is left alone, and what is as wanted is not compared again and again', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  scene.timers.pass(10_000)
  t.equal(scene.table.applies, 1)
  scene.table.edit((entries) => entries.set(key(9), { source: 'command', want: entry(9, ['192.0.2.1']) }))
  scene.timers.pass(10_000)
  t.equal(scene.table.applies, 2)
  t.same(scene.table.lines('command'), [`${key(9)} -> 192.0.2.1:8080`])
  t.same(scene.log.of('repaired what others changed'), [])
})

t.test('an edit by somebody else in the middle of an apply is seen by the next check', async (t) => {
  const scene = new Scene()
  scene.daemon.start()
  scene.table.interfere = () => {
    scene.table.interfere = undefined
    scene.table.edit(() => undefined)
  }
  scene.say(Scene.stateOf(web(1)))
  const { applies } = scene.table
  scene.timers.pass(5000)
  t.equal(scene.table.applies, applies + 1)
})

t.test(
  'what cannot be programmed is reported once, tried again less and less often, and told when it works',
  async (t) => {
    const scene = new Scene()
    scene.table.refused.set(key(1), new LbError('TABLE_FULL'))
    scene.first = Scene.stateOf(web(1), web(2))
    scene.daemon.start()
    t.same(scene.table.lines(), [`${key(2)} -> 10.0.2.1:8080`], 'the rest is in force')
    t.match(scene.log.of('not programmed'), [{ service: key(1), err: { code: 'TABLE_FULL' } }])
    scene.timers.pass(1000 + 2000 + 4000 + 8000)
    t.equal(scene.table.applies, 5)
    scene.timers.pass(3_600_000)
    t.ok(scene.table.applies < 80, 'once a minute at last')
    t.equal(scene.log.of('not programmed').length, 1)
    scene.table.refused.clear()
    scene.timers.pass(60_000)
    t.equal(scene.table.lines().length, 2)
    t.match(scene.log.of('no longer failing'), [{ service: key(1) }])
  },
)

t.test("a service that a command made is not taken over; it is programmed when the command's is gone", async (t) => {
  const scene = new Scene()
  scene.table.edit((entries) => entries.set(key(1), { source: 'command', want: entry(1, ['192.0.2.1']) }))
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  t.same(scene.table.lines(), [`${key(1)} -> 192.0.2.1:8080`])
  t.match(scene.log.of('not programmed'), [{ service: key(1), err: { code: 'SERVICE_EXISTS' } }])
  scene.timers.pass(600_000)
  scene.table.edit((entries) => entries.delete(key(1)))
  scene.timers.pass(1000)
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
})

t.test('of many services that fail at once some are named and the rest is counted', async (t) => {
  const scene = new Scene()
  const many = Array.from({ length: 30 }, (_, i) => web(i + 1))
  for (let n = 1; n <= 30; n++) scene.table.refused.set(key(n), new LbError('TABLE_FULL'))
  scene.first = Scene.stateOf(...many)
  scene.daemon.start()
  t.equal(scene.log.of('not programmed').length, 20)
  t.same(scene.log.of('not programmed, and more'), [{ more: 10 }])
})

t.test('an apply that fails as a whole is reported and tried again', async (t) => {
  const scene = new Scene()
  scene.table.broken = new LbError('NATIVE', 'bpf: cannot allocate memory')
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  scene.timers.pass(500)
  t.match(scene.log.of('not programmed'), [{ err: { code: 'NATIVE' } }])
  scene.table.broken = undefined
  scene.timers.pass(500)
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
  t.equal(scene.log.of('no longer failing').length, 1)
})

t.test('the addresses that tunnels begin at are looked at with every beat', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  t.equal(scene.table.refreshed, 0)
  scene.timers.pass(3000)
  t.equal(scene.table.refreshed, 3)
})

t.test('a table that somebody unloads is made anew, with everything', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  const old = scene.table
  scene.host.current = false
  scene.host.attached.clear()
  scene.timers.pass(1000)
  t.not(scene.table, old)
  t.ok(old.closed)
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
  t.same([...scene.host.attached], ['eth0'])
  t.equal(scene.log.of('table was unloaded by somebody else; making it anew').length, 1)
})

t.test('a table that cannot be made anew is reported once and tried again', async (t) => {
  const scene = new Scene()
  scene.first = Scene.stateOf(web(1))
  scene.daemon.start()
  scene.host.current = false
  scene.host.openError = new LbError('NATIVE', 'no memory')
  scene.timers.pass(5000)
  t.match(scene.log.of('table out of reach'), [{ err: { message: 'no memory' } }])
  scene.host.openError = undefined
  scene.timers.pass(1000)
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`])
})

t.test('manifest problems are logged with file, line and reason, and their end too', async (t) => {
  const scene = new Scene()
  scene.daemon.start()
  const problem = {
    file: 'web.yaml',
    line: 12,
    object: 'Service default/web',
    reason: 'spec.ports[0].port: 0 is not a port',
  }
  const text = 'web.yaml:12: Service default/web: spec.ports[0].port: 0 is not a port'
  scene.callbacks?.onProblems({ found: [problem], solved: [] })
  scene.callbacks?.onProblems({ found: [], solved: [problem] })
  t.same(scene.log.of('bad manifest'), [{ ...problem, problem: text }])
  t.same(scene.log.of('manifest problem solved'), [{ problem: text }])
})

t.test('what of a manifest is not served is said once, and again after a reload', async (t) => {
  const scene = new Scene()
  const { service, slice } = web(1)
  const state = Scene.stateOf({ service: { ...service, clusterIps: [] }, slice })
  scene.first = state
  scene.daemon.start()
  scene.say(state)
  t.match(scene.log.of('not served in full'), [{ object: 'Service default/web1' }])
  scene.daemon.reload()
  t.equal(scene.reloads, 1)
  scene.say(state)
  t.equal(scene.log.of('not served in full').length, 2)
})

t.test('stopping lets go of everything and leaves the table as it is', async (t) => {
  const scene = new Scene()
  scene.table.refused.set(key(2), new LbError('TABLE_FULL'))
  scene.first = Scene.stateOf(web(1), web(2))
  scene.daemon.start()
  const lines = scene.table.lines()
  scene.host.changed()
  scene.daemon.stop()
  t.same(scene.table.lines(), lines)
  t.equal(scene.timers.pending, 0)
  t.notOk(scene.sourceOpen)
  t.notOk(scene.host.following)
  t.ok(scene.table.closed)
  t.same([...scene.host.attached], ['eth0'])
})
