import t from 'tap'
import { LbError } from '../../src/model/errors.ts'
import { Scene } from '../helpers/daemon-scene.ts'

t.test('sockets are left alone unless that is asked for, also those that an earlier bpvsd balanced', async (t) => {
  const scene = new Scene()
  scene.host.sockets = { scope: 'all', protocols: 'all', leave: [] }
  scene.daemon.start()
  t.same(scene.host.sockets, { scope: 'off', protocols: 'all', leave: [] })
  scene.timers.pass(10_000)
  t.equal(scene.host.socketPasses, 1, 'and that is all')
})

t.test('sockets are balanced as the options say', async (t) => {
  const scene = new Scene(['--socket=all', '--socket-protocols=tcp', '--socket-group=/g', '--socket-leave=a,/g/b'])
  scene.daemon.start()
  const policy = { scope: 'all', protocols: 'tcp', leave: ['a', '/g/b'], group: '/g' }
  t.same(scene.log.of('sockets'), [policy])
  scene.timers.pass(3000)
  t.equal(scene.host.socketPasses, 4, 'looked after, as groups come and go')
  t.equal(scene.log.of('sockets').length, 1, 'said once')
})

t.test('sockets that cannot be balanced are reported once, and tried again; the rest goes on', async (t) => {
  const scene = new Scene(['--socket=host'])
  scene.host.socketError = new LbError('UNSUPPORTED', 'no cgroup v2')
  scene.daemon.start()
  scene.timers.pass(5000)
  t.match(scene.log.of('sockets are not balanced'), [{ err: { message: 'no cgroup v2' } }])
  t.equal(scene.log.of('table out of reach').length, 0)
  scene.host.socketError = undefined
  scene.timers.pass(1000)
  t.equal(scene.host.sockets.scope, 'host')
})

t.test('a table that is made anew has its sockets balanced again', async (t) => {
  const scene = new Scene(['--socket=host'])
  scene.daemon.start()
  scene.host.current = false
  scene.host.sockets = { scope: 'off', protocols: 'all', leave: [] }
  scene.timers.pass(1000)
  t.equal(scene.host.sockets.scope, 'host')
})

t.test('sockets whose servers are gone are ended with the next beat', async (t) => {
  const scene = new Scene(['--socket=host'])
  scene.daemon.start()
  scene.host.stuckSockets = 3
  scene.timers.pass(5000)
  t.same(scene.log.of('sockets ended, as their servers are gone'), [{ sockets: 3 }])
})
