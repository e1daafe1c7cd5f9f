import t from 'tap'
import { InterfaceKeeper } from '../../src/daemon/interfaces.ts'
import { LbError } from '../../src/model/errors.ts'
import { FakeHost, FakeLog, FakeTimers } from '../helpers/fake-host.ts'

class Scene {
  readonly host = new FakeHost()
  readonly timers = new FakeTimers()
  readonly log = new FakeLog()
  readonly keeper = new InterfaceKeeper({
    host: this.host,
    policy: { include: ['*'], exclude: [], xdp: 'off' },
    log: this.log,
    timers: this.timers,
  })
}

t.test('interfaces that come and go are followed; a burst of events is one pass', async (t) => {
  const { host, timers, log, keeper } = new Scene()
  keeper.start()
  t.same([...host.attached], ['eth0'])
  host.interfaces = ['veth0', 'veth1']
  for (let i = 0; i < 20; i++) host.changed()
  timers.pass(100)
  t.same([...host.attached], ['veth0', 'veth1'])
  t.equal(host.passes, 2)
  t.match(log.of('attached'), [{ interface: 'eth0' }, { interface: 'veth0' }, { interface: 'veth1' }])
  t.equal(log.of('detached').length, 1)
})

t.test('events that never stop do not put the pass off', async (t) => {
  const { host, timers, keeper } = new Scene()
  keeper.start()
  host.interfaces = ['veth0']
  for (let i = 0; i < 10; i++) {
    host.changed()
    timers.pass(2)
  }
  t.same([...host.attached], ['veth0'])
})

t.test('an interface that cannot be attached is reported once and tried again less and less often', async (t) => {
  const { host, timers, log, keeper } = new Scene()
  host.interfaces = ['eth0', 'eth1']
  host.unattachable.set('eth0', new LbError('NATIVE', 'busy'))
  keeper.start()
  t.same([...host.attached], ['eth1'], 'the others are attached')
  timers.pass(1000 + 2000 + 4000)
  t.equal(host.passes, 4)
  t.match(log.of('interface not attached'), [{ interface: 'eth0', err: { message: 'busy' } }])
  host.unattachable.clear()
  timers.pass(60_000)
  t.same([...host.attached].sort(), ['eth0', 'eth1'])
  const { passes } = host
  timers.pass(3_600_000)
  t.equal(host.passes, passes, 'and then no more')
})

t.test('a pass that fails as a whole is reported and tried again', async (t) => {
  const { host, timers, log, keeper } = new Scene()
  host.attachError = new LbError('NATIVE', 'no netlink')
  keeper.start()
  t.match(log.of('interface not attached'), [{ err: { message: 'no netlink' } }])
  host.attachError = undefined
  timers.pass(1000)
  t.same([...host.attached], ['eth0'])
})

t.test('after close nothing is followed or tried again, and what is attached stays', async (t) => {
  const { host, timers, keeper } = new Scene()
  host.interfaces = ['eth0', 'eth1']
  host.unattachable.set('eth1', new LbError('NATIVE', 'busy'))
  keeper.start()
  keeper.close()
  t.notOk(host.following)
  t.equal(timers.pending, 0)
  t.same([...host.attached], ['eth0'])
})
