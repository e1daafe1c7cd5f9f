import { readFileSync } from 'node:fs'
import t from 'tap'
import { type Environment, run } from '../../src/cli/run.ts'
import type { Operations } from '../../src/cli/session.ts'
import { LbError } from '../../src/model/errors.ts'
import { foreignTunables, tunables } from '../../src/model/settings.ts'
import { ModelTable, modelOperations } from '../helpers/model-table.ts'
import { hostsResolver, runCommand } from '../helpers/recordings.ts'
import { memoryTable, serverOf, serviceOf } from '../helpers/table-specs.ts'

const empty = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
`

/** Operations on a namespace where no table may be made. */
function untouchable(): Operations {
  return {
    ...modelOperations(),
    openTable: ({ create }) => {
      if (create) throw new Error('a table was made')
      return undefined
    },
  }
}

t.test('a namespace without a table looks like one with an empty table, and stays without', async (t) => {
  const operations = untouchable()
  const rows: readonly (readonly [string, number, string, string])[] = [
    ['', 0, empty, ''],
    ['-Ln', 0, empty, ''],
    ['-S', 0, '', ''],
    ['-C', 0, '', ''],
    ['-Z', 0, '', ''],
    ['-L --timeout', 0, 'Timeout (tcp tcpfin udp): 900 120 300\n', ''],
    [
      '-Lnc',
      0,
      'IPVS connection entries\npro expire state       source             virtual            destination\n',
      '',
    ],
    ['-L -t 10.9.0.1:80', 1, '', 'No such service\n'],
    ['-Z -t 10.9.0.1:80', 255, '', 'No such service\n'],
    ['-E -t 10.9.0.1:80', 255, '', 'No such service\n'],
    ['-D -t 10.9.0.1:80', 255, '', 'No such service\n'],
    ['-a -t 10.9.0.1:80 -r 10.2.0.1', 255, '', 'Service not defined\n'],
    ['-e -t 10.9.0.1:80 -r 10.2.0.1', 255, '', 'Service not defined\n'],
    ['-d -t 10.9.0.1:80 -r 10.2.0.1', 255, '', 'Service not defined\n'],
    ['-A -t 10.9.0.1:80 -s nosuch', 255, '', 'Scheduler or persistence engine not found\n'],
    ['--set 0 0 0', 0, '', ''],
  ]
  for (const [line, rc, out, err] of rows) {
    const outcome = await runCommand(
      line.split(' ').filter((word) => word !== ''),
      { operations },
    )
    t.same(outcome, { rc, out, err }, line)
  }
})

t.test('the first service makes the table, and so does the first timeout or setting', async (t) => {
  for (const line of ['-A -t 10.9.0.1:80', '--set 1 0 0', '--sysctl sloppy_tcp=1', '--bypass never']) {
    let made = 0
    const operations: Operations = {
      ...modelOperations(),
      openTable: ({ create }) => {
        if (create) made++
        return create ? new ModelTable() : undefined
      },
    }
    t.equal((await runCommand(line.split(' '), { operations })).rc, 0)
    t.equal(made, 1, line)
  }
})

t.test('tunables are listed, shown and set as with sysctl', async (t) => {
  const operations = modelOperations()
  const run = (line: string) => runCommand(line.split(' '), { operations })
  const all = tunables.map(({ name, initial }) => `net.ipv4.vs.${name} = ${initial}\n`).join('')
  t.same(await run('--sysctl'), { rc: 0, out: all, err: '' })
  const rows: readonly (readonly [string, string])[] = [
    ['--sysctl drop_entry', 'net.ipv4.vs.drop_entry = 0\n'],
    ['--sysctl=drop_entry=3', 'net.ipv4.vs.drop_entry = 3\n'],
    [
      '--sysctl net.ipv4.vs.sloppy_tcp=1 net/ipv4/vs/amemthresh',
      'net.ipv4.vs.sloppy_tcp = 1\nnet.ipv4.vs.amemthresh = 1024\n',
    ],
    ['--sysctl drop_entry sloppy_tcp', 'net.ipv4.vs.drop_entry = 3\nnet.ipv4.vs.sloppy_tcp = 1\n'],
  ]
  for (const [line, out] of rows) t.same(await run(line), { rc: 0, out, err: '' }, line)
})

t.test('of a line with a wrong setting nothing is set, and what is wrong is told', async (t) => {
  const operations = modelOperations()
  const rows: readonly (readonly [string, RegExp])[] = [
    ['--sysctl nosuch', /^net\.ipv4\.vs\.nosuch is not known$/m],
    ['--sysctl constructor', /is not known$/m],
    ['--sysctl sloppy_tcp=1 conntrack=1', /^net\.ipv4\.vs\.conntrack does not apply: netfilter /],
    ['--sysctl sloppy_tcp=1 drop_entry=4', /^net\.ipv4\.vs\.drop_entry: "4" is not a whole number from 0 to 3$/m],
    ['--sysctl sloppy_tcp=', /"" is not a whole number/],
    ['--sysctl sloppy_tcp=-1', /"-1" is not a whole number/],
  ]
  for (const [line, message] of rows) {
    const { rc, out, err } = await runCommand(line.split(' '), { operations })
    t.same({ rc, out }, { rc: 255, out: '' }, line)
    t.match(err, message)
  }
  t.equal((await runCommand(['--sysctl', 'sloppy_tcp'], { operations })).out, 'net.ipv4.vs.sloppy_tcp = 0\n')
})

t.test('what IPVS has and bpvs does not is refused with the reason, shown or set', async (t) => {
  const operations = modelOperations()
  for (const [name, reason] of Object.entries(foreignTunables)) {
    for (const word of [name, `net.ipv4.vs.${name}=1`]) {
      const outcome = await runCommand(['--sysctl', word], { operations })
      t.same(outcome, { rc: 255, out: '', err: `net.ipv4.vs.${name} does not apply: ${reason}\n` }, word)
    }
  }
})

t.test('whether connections bypass the stack is shown and set', async (t) => {
  const operations = modelOperations()
  const run = (line: string) => runCommand(line.split(' '), { operations })
  t.same(await run('--bypass'), { rc: 0, out: 'auto\n', err: '' })
  for (const mode of ['never', 'always', 'auto']) {
    t.same(await run(`--bypass ${mode}`), { rc: 0, out: '', err: '' })
    t.equal((await run('--bypass')).out, `${mode}\n`)
  }
  t.same(await run('--bypass sometimes'), { rc: 2, out: '', err: 'unexpected argument sometimes\n' })
  t.same(await run('--bypass never now'), { rc: 2, out: '', err: 'unexpected argument now\n' })
})

t.test('ports of masqueraded connections are shown and set, unless the kernel gives them to others', async (t) => {
  const operations = modelOperations()
  const run = (line: string) => runCommand(line.split(' '), { operations })
  t.same(await run('--masquerade-ports'), { rc: 0, out: 'none\n', err: '' })
  t.same(await run('--masquerade-ports 1024-29999'), { rc: 0, out: '', err: '' })
  t.equal((await run('--masquerade-ports')).out, '1024-29999\n')
  const rows = [
    ['20000-32768', 255, 'ports 20000-32768 meet net.ipv4.ip_local_port_range, 32768-60999'],
    ['many', 255, '"many" is no range of ports from 1024 to 65535'],
    ['2000-3000 4000', 2, 'unexpected argument 4000'],
  ] as const
  for (const [words, rc, err] of rows) {
    t.same(await run(`--masquerade-ports ${words}`), { rc, out: '', err: `${err}\n` })
  }
  t.equal((await run('--masquerade-ports')).out, '1024-29999\n')
})

t.test('docs/bpvsadm.md has every tunable with its default and effect, and why others are none', async (t) => {
  const text = readFileSync(new URL('../../docs/bpvsadm.md', import.meta.url), 'utf8')
  for (const { name, initial, effect } of tunables)
    t.ok(text.includes(`| \`${name}\` | ${initial} | ${effect} |`), name)
  for (const [name, reason] of Object.entries(foreignTunables)) t.ok(text.includes(`| \`${name}\` | ${reason} |`), name)
})

t.test('what the table cannot do is told, with status 255', async (t) => {
  const { persistenceEngines: _, ...operations } = modelOperations({ table: new ModelTable() })
  await runCommand(['-A', '-u', '10.9.0.1:53'], { operations })
  const rows: readonly (readonly [string, RegExp])[] = [
    ['--start-daemon master', /^No such device$/m],
    ['--stop-daemon master', /^No daemon is running$/m],
    ['-A -u 10.9.0.1:5060 -p --pe sip', /^Scheduler or persistence engine not found$/m],
  ]
  for (const [line, message] of rows) {
    const outcome = await runCommand(line.split(' '), { operations })
    t.equal(outcome.rc, 255, line)
    t.equal(outcome.out, '')
    t.match(outcome.err, message)
  }
})

t.test('where the service is missing and the wish is wrong, the missing service is told', async (t) => {
  class EagerTable extends ModelTable {
    override addServer(): void {
      throw new LbError('RANGE')
    }
  }
  const operations = modelOperations({ table: new EagerTable() })
  const line = '-a -t 10.9.0.1:80 -r 10.2.0.1:80 -y 5'.split(' ')
  t.equal((await runCommand(line, { operations })).err, 'Service not defined\n')
  await runCommand(['-A', '-t', '10.9.0.1:80'], { operations })
  t.equal((await runCommand(line, { operations })).err, 'Numerical result out of range\n')
})

t.test('an error that is no LbError is not hidden, and the table is closed', async (t) => {
  let closed = 0
  class BrokenTable extends ModelTable {
    override eachService(): never {
      throw new RangeError('a bug')
    }

    override close(): void {
      closed++
    }
  }
  await t.rejects(runCommand(['-Ln'], { operations: modelOperations({ table: new BrokenTable() }) }), {
    message: 'a bug',
  })
  t.equal(closed, 1)
})

t.test('help and version need no table, and nothing works without privilege', async (t) => {
  const operations = async (): Promise<Operations> => {
    throw new Error('the kernel was asked')
  }
  let out = ''
  let err = ''
  const environment: Environment = {
    program: 'lb',
    privileged: true,
    operations,
    resolver: hostsResolver(''),
    stdin: async function* () {},
    stdout: (text) => {
      out += text
    },
    stderr: (text) => {
      err += text
    },
  }
  for (const word of ['-h', '-v', '--bpvs-help']) t.equal(await run([word], environment), 0)
  t.match(out, /^ {2}lb -A\|E virtual-service /m)
  t.match(out, /^ {2}--unload /m)
  t.equal(err, '')
  for (const word of ['-h', '-L', '--hooks', '-nonsense'])
    t.equal(await run([word], { ...environment, privileged: false }), 2)
  t.match(err, /^Can't initialize ipvs: Permission denied \(you must be root\)\nAre you sure/)
})

t.test('a restore acts on each line as it comes, also if the line comes in pieces', async (t) => {
  const table = new ModelTable()
  const seen: number[] = []
  async function* stdin(): AsyncGenerator<string> {
    for (const piece of ['-A -t 10.9.0.1:80\n-A -t 10', '.9.0.2:80\n', '-A -t 10.9.0.3:80']) {
      yield piece
      seen.push(table.services().length)
    }
  }
  const environment: Environment = {
    program: 'lb',
    privileged: true,
    operations: async () => modelOperations({ table }),
    resolver: hostsResolver(''),
    stdin,
    stdout: (text) => t.fail(text),
    stderr: (text) => t.fail(text),
  }
  t.equal(await run(['-R'], environment), 0)
  t.same(seen, [1, 2, 2])
  t.equal(table.services().length, 3)
})

t.test("bpvs's own commands show what is there, and take no further words", async (t) => {
  const operations = modelOperations({ table: new ModelTable(), interfaces: ['eth0'] })
  const rows: readonly (readonly [string, number, RegExp, string])[] = [
    ['--hooks', 0, /^eth0 +2 +tcx\/ingress +link$/m, ''],
    ['--verdicts', 0, /^NO_SERVER +3$/m, ''],
    ['--start-daemon backup --mcast-interface eth0 --syncid 3', 0, /^$/, ''],
    ['--sync-daemons', 0, /^Daemon .* Waiting\nbackup +eth0 +3 +0 +0 +0 +0 +0$/m, ''],
    ['--check', 0, /^the table is consistent$/m, ''],
    ['--unload', 0, /^$/, ''],
    ['--unload', 0, /^nothing of bpvs is loaded/, ''],
    ['--hooks -n', 2, /^$/, 'unexpected argument -n\n'],
    ['-L --hooks', 255, /^$/, '--hooks: unknown option\n'],
  ]
  for (const [line, rc, out, err] of rows) {
    const outcome = await runCommand(line.split(' '), { operations })
    t.equal(outcome.rc, rc, line)
    t.match(outcome.out, out)
    t.equal(outcome.err, err)
  }
  const contradictory = { ...operations, check: () => ['server 3 is in no service'] }
  t.same(await runCommand(['--check'], { operations: contradictory }), {
    rc: 1,
    out: 'server 3 is in no service\n',
    err: '',
  })
})

t.test("-E to mh with more servers than it takes is refused in ipvsadm's words", async (t) => {
  const { table } = memoryTable({ servers: 8192, cells: 8192 })
  const servers = Array.from({ length: 4094 }, (_, i) => serverOf(i + 1))
  table.apply('command', [{ service: serviceOf(1, 'rr'), servers }])
  const operations: Operations = { ...modelOperations(), openTable: () => table }
  t.same(await runCommand('-E -t 10.9.0.1:80 -s mh'.split(' '), { operations }), {
    rc: 255,
    out: '',
    err: 'Invalid operation.  Possibly wrong module version, address not unicast, ...\n',
  })
})

t.test('sync daemons and servers of another family than their service exclude each other', async (t) => {
  const operations = modelOperations({ table: new ModelTable(), interfaces: ['eth0'] })
  const outcome = (line: string) => runCommand(line.split(' '), { operations })
  const start = '--start-daemon master --mcast-interface eth0'
  const mixed = '-t 10.9.0.1:80 -r [fd00:2::1]:80'
  await outcome('-A -t 10.9.0.1:80')
  t.equal((await outcome(`-a ${mixed} -i`)).rc, 0)
  const refused = /^Invalid operation\. /
  t.match(await outcome(start), { rc: 255, err: refused })
  t.equal((await outcome(`-d ${mixed}`)).rc, 0)
  t.equal((await outcome(start)).rc, 0)
  t.match(await outcome(`-a ${mixed} -i`), { rc: 255, err: refused })
  t.equal((await outcome('--stop-daemon master')).rc, 0)
  t.equal((await outcome(`-a ${mixed} -i`)).rc, 0)
})
