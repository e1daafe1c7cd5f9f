/** Whether there is another proxy is found out before there is any service, and again, until nothing is left of it. */
import t from 'tap'
import { key, Scene, web } from '../helpers/daemon-scene.ts'

const metric = ({ metrics }: Scene): string => /^bpvs_takeover \d$/m.exec(metrics.registry.text())?.[0] ?? ''

/** The fields of a line of the log. */
const said = ({ log }: Scene, message: string) => log.lines.find((line) => line.message === message)?.fields

t.test('what is of no connection is left alone before the first service is there', async (t) => {
  const scene = new Scene()
  scene.host.proxy = ['nftables']
  scene.first = Scene.stateOf(web(1))
  const { table } = scene
  table.interfere = () => t.equal(table.settings().handover, 'from')
  t.plan(4)
  scene.daemon.start()
  t.ok(scene.table.entries.has(key(1)))
  t.match(said(scene, 'taking over from another proxy'), { found: ['nftables'], datagrams: true })
  t.equal(metric(scene), 'bpvs_takeover 1')
})

t.test('without another proxy nothing is set', async (t) => {
  const scene = new Scene()
  scene.daemon.start()
  scene.timers.pass(20_000)
  t.same(scene.table.changes, [])
  t.equal(metric(scene), 'bpvs_takeover 0')
  t.equal(scene.host.forgotten, 0)
})

t.test('it ends when rules and connections are gone', async (t) => {
  const scene = new Scene()
  scene.host.proxy = ['iptables', 'ipvs']
  scene.daemon.start()
  scene.host.proxy = []
  scene.host.translated = 2
  scene.timers.pass(60_000)
  t.equal(scene.table.settings().handover, 'from', 'connections are left')
  scene.host.translated = 0
  scene.timers.pass(6_000)
  t.equal(scene.table.settings().handover, 'none')
  t.equal(scene.host.forgotten, 1, 'and the kernel need translate no more')
  t.match(said(scene, 'taken over'), { connections: 0 })
  t.equal(metric(scene), 'bpvs_takeover 0')
})

t.test('it ends when connections have had their time; which begins anew when the other comes back', async (t) => {
  const scene = new Scene(['--takeover-limit-s', '60'])
  scene.host.proxy = ['nftables']
  scene.daemon.start()
  scene.host.translated = 2
  scene.host.proxy = []
  scene.timers.pass(50_000)
  scene.host.proxy = ['nftables']
  scene.timers.pass(6_000)
  scene.host.proxy = []
  scene.timers.pass(50_000)
  t.equal(scene.table.settings().handover, 'from')
  scene.timers.pass(20_000)
  t.equal(scene.table.settings().handover, 'none')
  t.match(said(scene, 'taken over'), { connections: 2 })
})

t.test('another proxy that comes later is found; a table that was to be handed over is ours again', async (t) => {
  const scene = new Scene()
  scene.daemon.start()
  scene.table.changeSettings({ handover: 'to' })
  scene.host.proxy = ['nftables']
  scene.timers.pass(6_000)
  t.equal(scene.table.settings().handover, 'from')
  scene.table.changeSettings({ handover: 'to' })
  scene.host.proxy = []
  scene.timers.pass(6_000)
  t.equal(scene.table.settings().handover, 'none')
})

t.test('the configuration may say on or off, whatever is there', async (t) => {
  const on = new Scene(['--takeover', 'on'])
  on.daemon.start()
  on.timers.pass(60_000)
  t.equal(on.table.settings().handover, 'from')
  const off = new Scene(['--takeover', 'off'])
  off.host.proxy = ['nftables']
  off.host.translated = 1
  off.daemon.start()
  off.timers.pass(60_000)
  t.equal(off.table.settings().handover, 'none')
})

t.test('what cannot be seen is said once, and nothing changes', async (t) => {
  const scene = new Scene()
  scene.host.proxy = ['nftables']
  scene.daemon.start()
  scene.host.findProxy = () => {
    throw new Error('no netlink')
  }
  scene.timers.pass(60_000)
  t.equal(scene.table.settings().handover, 'from')
  const lines = scene.log.lines.filter(({ message }) => message === 'cannot see whether there is another proxy')
  t.equal(lines.length, 1)
})
