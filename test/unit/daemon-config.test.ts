import t from 'tap'
import { followFile } from '../../src/daemon/follow-file.ts'
import { Scene } from '../helpers/daemon-scene.ts'
import { FakeTimers } from '../helpers/fake-host.ts'

const kubernetes = ['--kubeconfig', '/k']

t.test('timeouts of IPVS are set when the table is opened, and left alone where none is asked for', async (t) => {
  const scene = new Scene(['--ipvs-tcp-timeout=100s', '--ipvs-udp-timeout=1m'], kubernetes)
  scene.daemon.start()
  t.same(scene.table.timeouts, [{ tcpS: 100, tcpFinS: 0, udpS: 60 }])
  const silent = new Scene([], kubernetes)
  silent.daemon.start()
  t.same(silent.table.timeouts, [])
})

t.test('what of the configuration has no effect is said at the start', async (t) => {
  const scene = new Scene(['--ipvs-strict-arp'], kubernetes)
  scene.daemon.start()
  t.same(scene.log.of('configuration'), [
    { warning: 'ipvs.strictARP: true has no effect: no virtual address is on a device' },
  ])
})

t.test('the end of a file as it was is told once; while it cannot be read, it has not changed', async (t) => {
  const timers = new FakeTimers()
  let text: string | undefined = 'mode: ipvs'
  let changes = 0
  const read = (path: string): string => {
    t.equal(path, '/f')
    if (text === undefined) throw new Error('ENOENT')
    return text
  }
  followFile({ path: '/f', text: 'mode: ipvs' }, timers, () => changes++, read)
  timers.pass(4000)
  text = undefined
  timers.pass(4000)
  t.equal(changes, 0)
  text = 'mode: nftables'
  timers.pass(2000)
  t.equal(changes, 1)
  timers.pass(10_000)
  t.equal(changes, 1)
  t.equal(timers.pending, 0)
})
