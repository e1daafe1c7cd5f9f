/** What the loader computes without a kernel: sizes, jiffies, addresses, interface patterns, errors. */
import { groupMount } from '../../src/native/cgroup.ts'
import t from 'tap'
import { maps } from '../../src/abi/generated.ts'
import { wanted } from '../../src/native/attachments.ts'
import { hzFromSample, hzFromSamples, tickShift } from '../../src/native/hz.ts'
import { parseAddress } from '../../src/native/ip.ts'
import { loadError } from '../../src/native/load-error.ts'
import { defaultSizes, planGeometry } from '../../src/native/sizes.ts'

const S = 1_000_000_000n
/** A sample of a kernel with `hz`, `ms` after boot. */
const sample = (hz: number, ms: number): { jiffies: bigint; ktimeNs: bigint } => ({
  jiffies: (1n << 32n) - 300n * BigInt(hz) + BigInt(Math.floor((ms * hz) / 1000)),
  ktimeNs: BigInt(ms) * (S / 1000n),
})

t.test('default sizes stay below 64 MiB, on 2 CPUs and on 256', async (t) => {
  for (const cpus of [1, 2, 256]) {
    const { bytes } = planGeometry(defaultSizes, cpus)
    t.ok(bytes > 32 << 20 && bytes <= 64 << 20, `${cpus} CPUs: ${bytes}`)
  }
})

t.test('CPUs share lanes of counters only where lanes of their own would take too much memory', async (t) => {
  t.match(planGeometry(defaultSizes, 2).constants, { laneMask: 1, lanesShared: 0 })
  t.match(planGeometry(defaultSizes, 3).constants, { laneMask: 1, lanesShared: 1 })
  t.match(planGeometry({ ...defaultSizes, servers: 1024 }, 6).constants, { laneMask: 7, lanesShared: 0 })
  t.match(planGeometry({ ...defaultSizes, servers: 1 << 20 }, 8).constants, { laneMask: 0, lanesShared: 1 })
})

t.test('sizes become powers of two, masks fit them, and no map that depends on a size is forgotten', async (t) => {
  const { entries, constants } = planGeometry({ services: 1000, servers: 3000, cells: 5000, connections: 9000 }, 2)
  t.match(entries, {
    lb_services: 1024,
    lb_service_states: 1024,
    lb_servers: 4096,
    lb_server_states: 4096,
    lb_cells: 8192,
    lb_stats: 8192,
    lb_stats_base: 5120,
    lb_memos: 1024,
    lb_memo_lines: 1024,
    lb_conns: 16384,
    lb_service_index: 256,
    lb_filter: (2 * 65536) / 64,
  })
  t.equal(constants.serviceLineMask + 1, entries.lb_service_index)
  t.equal((2 * (constants.filterMask + 1)) / 64, entries.lb_filter)
  t.equal(constants.connLineMask + 1, entries.lb_conn_index)
  t.equal(constants.connMax, entries.lb_conns)
  const fixed = [
    'lb_config',
    'lb_book',
    'lb_defence',
    'lb_memo_pool',
    'lb_clock',
    'lb_next_hops',
    'lb_mark_rules',
    'lb_service_ranges',
    'lb_sync_conns',
    'lb_sync_daemons',
  ]
  t.same(
    Object.keys(maps).filter((name) => !(name in entries) && !fixed.includes(name)),
    [],
  )
})

t.test('a size that makes no sense is refused by name', async (t) => {
  for (const services of [0, 1, 1.5, Number.NaN, 2 ** 40]) {
    t.throws(() => planGeometry({ ...defaultSizes, services }, 2), { code: 'CONFIG', message: /services/ })
  }
})

t.test('one sample of the clocks tells jiffies a second, from boot to years of uptime', async (t) => {
  for (const hz of [24, 100, 250, 256, 300, 1000, 1024]) {
    for (const seconds of [1, 60, 250, 360, 3600, 86400, 10 ** 9]) {
      t.equal(hzFromSample(sample(hz, seconds * 1000 + 7)), hz, `${hz} after ${seconds} s`)
    }
  }
})

t.test('five minutes after boot one sample is not enough, and two are', async (t) => {
  for (const hz of [100, 250, 256, 300, 1000]) {
    for (const ms of [299_500, 300_000, 300_400]) {
      t.equal(hzFromSample(sample(hz, ms)), undefined, `${hz} after ${ms} ms`)
      t.equal(hzFromSamples(sample(hz, ms), sample(hz, ms + 500)), hz, `${hz} after ${ms} ms, twice`)
    }
  }
  t.throws(() => hzFromSamples(sample(10, 300_000), sample(10, 301_000)), { code: 'UNSUPPORTED' })
})

t.test('a tick is about a sixteenth of a second', async (t) => {
  t.same([1000, 300, 250, 100].map(tickShift), [6, 4, 4, 3])
})

t.test('addresses become bytes of network order', async (t) => {
  t.same(parseAddress('10.1.2.255'), { family: 4, bytes: Uint8Array.of(10, 1, 2, 255) })
  const six = (text: string): string => Buffer.from(parseAddress(text).bytes).toString('hex')
  t.equal(six('::'), '0'.repeat(32))
  t.equal(six('fd00:1::a'), 'fd00000100000000000000000000000a')
  t.equal(six('1:2:3:4:5:6:7:8'), '00010002000300040005000600070008')
  t.equal(six('::ffff:192.0.2.1'), '00000000000000000000ffffc0000201')
  for (const bad of ['', '1.2.3', 'fe80::1%eth0', 'name']) t.throws(() => parseAddress(bad), { code: 'INVALID' }, bad)
})

t.test('an interface is wanted if a pattern includes it and none excludes it', async (t) => {
  const policy = { include: ['eth*', 'veth?', 'lo'], exclude: ['lo', 'eth1'], xdp: 'off' as const }
  t.same(
    ['eth0', 'eth1', 'eth10', 'veth?', 'vethx', 'lo', 'xeth0'].filter((name) => wanted(policy, name)),
    ['eth0', 'eth10', 'veth?'],
  )
})

const verifierLog = (...lines: string[]): string =>
  [
    "libbpf: prog 'bad_read': BPF program load failed: Permission denied",
    "libbpf: prog 'bad_read': -- BEGIN PROG LOAD LOG --",
    ...lines,
    'processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0',
    '-- END PROG LOAD LOG --',
    "libbpf: prog 'bad_read': failed to load: -13",
  ].join('\n')

t.test('a refusal by the verifier names the program, shows the end of the log and keeps all of it', async (t) => {
  const log = verifierLog(
    ...Array.from({ length: 100 }, (_, i) => `${i}: (b7) r0 = ${i}`),
    'R1 offset is outside of the packet',
  )
  const error = loadError('lb.bpf.o', 13, log)
  t.equal(error.code, 'VERIFIER', 'though its errno is EACCES')
  t.match(error.message, /program bad_read:\n.*R1 offset is outside of the packet\nprocessed 2 insns/s)
  t.notMatch(error.message, /END PROG|r0 = 10\n/)
  t.ok(error.message.split('\n').length < 20)
  t.equal(error.detail.log, log)
})

t.test('a helper that the kernel lacks is named; a plain refusal is a lack of permission', async (t) => {
  t.match(loadError('lb.bpf.o', 22, verifierLog('invalid func unknown#9999')), {
    code: 'UNSUPPORTED',
    message: /#9999/,
  })
  t.match(loadError('lb.bpf.o', 22, verifierLog('unknown func bpf_fib_lookup#69')), { message: /bpf_fib_lookup#69/ })
  t.match(loadError('lb.bpf.o', 1, ''), { code: 'PERMISSION', detail: { errno: 1 } })
  t.match(loadError('lb.bpf.o', 12, 'libbpf: failed to create map\n'), {
    code: 'NATIVE',
    message: /ENOMEM.*create map/s,
  })
})

t.test('cgroup v2 is found where it is mounted', async (t) => {
  const v1 = 'cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0'
  t.equal(groupMount(`${v1}\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n`), '/sys/fs/cgroup/unified')
  t.equal(groupMount('none /run/my\\040groups cgroup2 rw 0 0\n'), '/run/my groups')
  t.equal(groupMount(v1), undefined)
})
