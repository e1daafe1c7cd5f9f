import t from 'tap'
import { loadConfig } from '../../src/config/load.ts'
import { conntrackValues, setKernelValues } from '../../src/daemon/conntrack.ts'
import { followFile } from '../../src/daemon/follow-file.ts'
import { Scene } from '../helpers/daemon-scene.ts'
import { FakeLog, FakeTimers } from '../helpers/fake-host.ts'

const kubernetes = ['--kubeconfig', '/k']

t.test('timeouts of IPVS are set when the table is opened, and left alone where none is asked for', async (t) => {
  const scene = new Scene(['--ipvs-tcp-timeout=100s', '--ipvs-udp-timeout=1m'], kubernetes)
  scene.daemon.start()
  t.same(scene.table.timeouts, [{ tcpS: 100, tcpFinS: 0, udpS: 60 }])
  const silent = new Scene([], kubernetes)
  silent.daemon.start()
  t.same(silent.table.timeouts, [])
})

t.test(
  "kube-proxy's tunables are set in its place, but where others are asked for; with manifests none is",
  async (t) => {
    const tunables = (source: readonly string[], ...args: readonly string[]): unknown => {
      const scene = new Scene(args, source)
      scene.daemon.start()
      return scene.table.changes
    }
    const both = { expire_nodest_conn: 1, expire_quiescent_template: 1 }
    t.same(tunables(kubernetes), [{ tunables: both }])
    t.same(tunables(kubernetes, '--sysctls', 'expire_nodest_conn=0,sloppy_tcp=1'), [
      { tunables: { ...both, expire_nodest_conn: 0, sloppy_tcp: 1 } },
    ])
    t.same(tunables(['--manifests', '/m']), [])
  },
)

t.test('servers that have drained are looked for with every beat, and are taken away', async (t) => {
  const scene = new Scene(['--drain-limit-s', '60'])
  scene.daemon.start()
  scene.timers.pass(3000)
  const { applies } = scene.table
  t.same(scene.table.drainLimits, [60])
  scene.table.drained = true
  scene.timers.pass(1000)
  t.equal(scene.table.applies, applies + 1)
  t.equal(scene.log.of('repaired what others changed').length, 0)
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

t.test(
  'connection tracking is set as kube-proxy does: by cores, within bounds, and what is 0 is left alone',
  async (t) => {
    const of = (cores: number, ...args: readonly string[]): Record<string, number> => {
      const invocation = loadConfig([...kubernetes, ...args], { env: {}, readFile: () => '' })
      if (invocation.run !== 'daemon') throw new Error('no daemon')
      const values = conntrackValues(invocation.kubeProxy.configuration, cores)
      return Object.fromEntries(values.map(({ path, value }) => [path.split('/').at(-1), value]))
    }
    t.same(of(2), {
      nf_conntrack_max: 131072,
      hashsize: 32768,
      nf_conntrack_tcp_timeout_established: 86400,
      nf_conntrack_tcp_timeout_close_wait: 3600,
    })
    t.match(of(8), { nf_conntrack_max: 262144, hashsize: 65536 })
    t.match(of(256), { nf_conntrack_max: 1048576 })
    t.match(of(256, '--conntrack-min=2000000'), { nf_conntrack_max: 2000000 })
    const none = [
      '--conntrack-max-per-core=0',
      '--conntrack-tcp-timeout-established=0s',
      '--conntrack-tcp-timeout-close-wait=0s',
    ]
    t.same(
      of(2, ...none, '--conntrack-udp-timeout=30s', '--conntrack-udp-timeout-stream=2m', '--conntrack-tcp-be-liberal'),
      {
        nf_conntrack_udp_timeout: 30,
        nf_conntrack_udp_timeout_stream: 120,
        nf_conntrack_tcp_be_liberal: 1,
      },
    )
  },
)

t.test('of the kernel only what differs is written; what is missing is passed over, what fails is said', async (t) => {
  const files = new Map([
    ['/same', '5\n'],
    ['/more', '9\n'],
    ['/other', '1\n'],
    ['/readonly', '1\n'],
  ])
  const written: string[] = []
  const log = new FakeLog()
  const read = (path: string): string => {
    const text = files.get(path)
    if (text === undefined) throw new Error('ENOENT')
    return text
  }
  const write = (path: string, text: string): void => {
    if (path === '/readonly') throw new Error('EACCES')
    written.push(`${path} ${text}`)
  }
  const values = [...files.keys(), '/missing'].map((path) => ({ path, value: 5 }))
  setKernelValues([...values, { path: '/more', value: 5, atLeast: true }], { read, write }, log)
  t.same(written, ['/more 5', '/other 5'])
  t.match(log.of('cannot set'), [{ path: '/readonly', value: 5, before: 1 }])
})
