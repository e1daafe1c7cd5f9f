import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { isDone, perform, type Step } from '../../tools/setup/stamp.mjs'
import { type FileRun, reportFile, runFile } from '../../tools/run-tests.ts'
import { oversized } from '../../tools/size.ts'
import { type Counts, TapCounter } from '../../tools/tap-count.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A folder for one test, removed with it. Not below the checkout: others than root must reach it. */
function temporary(t: Tap): string {
  const folder = mkdtempSync(join(tmpdir(), 'bpvs-tooling-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  chmodSync(folder, 0o755)
  return folder
}
type Tap = Pick<typeof t, 'teardown'>

interface Run {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

function run(command: string, args: readonly string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Run {
  const { status, stdout, stderr, error } = spawnSync(command, args, { ...options, encoding: 'utf8' })
  if (error) throw error
  return { status, stdout, stderr }
}

const reportArguments = `
process.stdout.write(JSON.stringify([process.env.BPVS_ARGV0, process.cwd(), ...process.argv.slice(2)]))
process.exitCode = 7
`

/** A checkout that has been built, as far as the launchers look: their command reports how it was called. */
function builtCheckout(t: Tap): string {
  const folder = join(temporary(t), 'a checkout')
  for (const path of ['build/bin', 'dist/bundle']) mkdirSync(join(folder, path), { recursive: true })
  cpSync(join(root, 'bin'), join(folder, 'bin'), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  for (const main of ['dist/bundle/bpvsd.js', 'dist/bundle/bpvsadm.js'])
    writeFileSync(join(folder, main), reportArguments)
  symlinkSync(process.execPath, join(folder, 'build/bin/node'))
  return folder
}

t.test('a launcher runs its command from any directory and keeps arguments, name and exit status', async (t) => {
  const checkout = builtCheckout(t)
  const elsewhere = temporary(t)
  const link = join(elsewhere, 'ipvsadm')
  symlinkSync(join(checkout, 'bin/bpvsadm'), link)
  symlinkSync('ipvsadm', join(elsewhere, 'again'))
  symlinkSync(join(checkout, 'bin'), join(elsewhere, 'commands'))
  const path = `${elsewhere}${delimiter}${process.env.PATH ?? ''}`
  const rows: { how: string; command: string; cwd: string; name?: string }[] = [
    { how: 'by absolute path', command: join(checkout, 'bin/bpvsadm'), cwd: '/' },
    { how: 'by relative path', command: './bin/bpvsadm', cwd: checkout },
    { how: 'through a symbolic link with another name', command: link, cwd: '/' },
    { how: 'through a link to a link', command: './again', cwd: elsewhere },
    { how: 'through a link to its folder', command: 'commands/bpvsadm', cwd: elsewhere },
    { how: 'by name on the search path', command: 'ipvsadm', cwd: '/', name: link },
    { how: 'bpvsd as well', command: join(checkout, 'bin/bpvsd'), cwd: '/' },
  ]
  for (const { how, command, cwd, name = command } of rows) {
    const { status, stdout } = run(command, ['-A', 'two words', '', '*'], { cwd, env: { ...process.env, PATH: path } })
    t.strictSame(JSON.parse(stdout), [name, cwd, '-A', 'two words', '', '*'], how)
    t.equal(status, 7, `${how}: exit status`)
  }
})

t.test('a launcher of a checkout that is not built says so in one line and fails', async (t) => {
  const checkout = builtCheckout(t)
  for (const gone of ['dist', 'build']) {
    rmSync(join(checkout, gone), { recursive: true })
    for (const name of ['bpvsadm', 'bpvsd']) {
      const { status, stderr } = run(join(checkout, 'bin', name), ['-L'])
      t.match(stderr, new RegExp(`^${name}: not built yet: run "npm test" or "npm start" in .*/a checkout first\\n$`))
      t.equal(status, 1)
    }
  }
})

t.test('setup without root says in one line that root is needed, and fails', async (t) => {
  const folder = temporary(t)
  cpSync(join(root, 'tools'), join(folder, 'tools'), { recursive: true })
  const setup = join(folder, 'tools/setup.mjs')
  const program = `process.setuid?.(65534); await import(${JSON.stringify(setup)})`
  const { status, stdout, stderr } = run(process.execPath, ['--input-type=module', '-e', program])
  t.equal(stderr, 'bpvs: must be run as root: it loads programs into the kernel\n')
  t.equal(stdout, '')
  t.equal(status, 1)
})

t.test('a step of setup is done until the content of an input, its flags or its output change', async (t) => {
  const folder = temporary(t)
  const [input, output] = [join(folder, 'input'), join(folder, 'output')]
  let runs = 0
  const make = (): void => {
    runs += 1
    writeFileSync(output, '')
  }
  const step: Step = { name: 'a', stamp: join(folder, 's/stamp'), inputs: [input], outputs: [output], run: make }
  writeFileSync(input, 'one')
  t.notOk(isDone(step), 'never run')
  perform(step)
  t.equal(runs, 1)
  t.ok(isDone(step), 'run')
  utimesSync(input, 1, 1)
  t.ok(isDone(step), 'another time of the same content')
  t.notOk(isDone({ ...step, salt: '-O3' }), 'other flags')
  rmSync(output)
  t.notOk(isDone(step), 'no output')
  perform(step)
  writeFileSync(input, 'two')
  t.notOk(isDone(step), 'other content')
})

t.test('a step of setup that fails is not done', async (t) => {
  const folder = temporary(t)
  const failing = (): void => {
    throw new Error('compiler says no')
  }
  const step: Step = { name: 'a', stamp: join(folder, 'stamp'), inputs: [], outputs: [], run: failing }
  t.throws(() => perform(step), { message: 'compiler says no' })
  t.notOk(isDone(step))
})

const streams: { name: string; tap: string; counts: Counts }[] = [
  {
    name: 'only the deepest points count',
    tap: '# Subtest: f\n    # Subtest: a\n        ok 1 - x\n        ok 2 - y\n    ok 1 - a\n    ok 2 - z\nok 1 - f',
    counts: { passed: 3, failed: 0, skipped: 0 },
  },
  {
    name: 'a failed assertion counts once, not again for what contains it',
    tap: '        not ok 1 - x\n        ok 2 - y\n    not ok 1 - a\nnot ok 1 - f',
    counts: { passed: 1, failed: 1, skipped: 0 },
  },
  {
    name: 'a file that failed although all its assertions passed counts as a failure',
    tap: '    ok 1 - x\n    # test count(1) != plan(null)\nnot ok 1 - f\n  ---\n  signal: SIGKILL\n  ...',
    counts: { passed: 1, failed: 1, skipped: 0 },
  },
  {
    name: 'a failure in one file does not hide that the next one crashed',
    tap: '    not ok 1 - x\nnot ok 1 - f\n    ok 1 - y\nnot ok 2 - g',
    counts: { passed: 1, failed: 2, skipped: 0 },
  },
  {
    name: 'skipped and todo are neither passed nor failed',
    tap: '    ok 1 - x # SKIP no kernel\n    not ok 2 - y # TODO later\nok 1 - f',
    counts: { passed: 0, failed: 0, skipped: 2 },
  },
  {
    name: 'diagnostics are no test points',
    tap: '    not ok 1 - x\n      ---\n      found: |\n        ok 1 - y\n        not ok\n      ...\nnot ok 1 - f',
    counts: { passed: 0, failed: 1, skipped: 0 },
  },
  {
    name: 'a subtest in braces counts as one that comes before its point',
    tap: 'ok 1 - f {\n    ok 1 - x\n    ok 2 - y {\n        ok 1 - z\n    }\n}',
    counts: { passed: 2, failed: 0, skipped: 0 },
  },
  { name: 'bailing out is a failure', tap: 'ok 1 - f\nBail out! no', counts: { passed: 1, failed: 1, skipped: 0 } },
]

t.test('counts of a TAP stream are true', async (t) => {
  for (const { name, tap, counts } of streams) {
    const counter = new TapCounter()
    for (const line of tap.split('\n')) counter.line(line)
    t.strictSame(counter.counts, counts, name)
  }
})

const reports: { name: string; run: Partial<FileRun>; lines: string[]; counts: Counts }[] = [
  {
    name: 'a file that passed: one line, and one for each skip',
    run: { tap: ['ok 1 - x', 'ok 2 - y # SKIP no tcx', '1..2'] },
    lines: ['ok   f: 1 passed, 0 failed, 1 skipped (12 ms)', '     skipped: y (no tcx)'],
    counts: { passed: 1, failed: 0, skipped: 1 },
  },
  {
    name: 'a file that failed: all it said',
    run: { tap: ['not ok 1 - x'], stderr: ['oh'], trouble: 'status 1' },
    lines: ['FAIL f: 0 passed, 1 failed, 0 skipped (12 ms)', 'not ok 1 - x', 'oh', '     ended with status 1'],
    counts: { passed: 0, failed: 1, skipped: 0 },
  },
  {
    name: 'a file that was killed after its last assertion failed',
    run: { tap: ['ok 1 - x'], trouble: 'SIGKILL' },
    lines: ['FAIL f: 1 passed, 1 failed, 0 skipped (12 ms)', 'ok 1 - x', '     ended with SIGKILL'],
    counts: { passed: 1, failed: 1, skipped: 0 },
  },
  {
    name: 'a file without an assertion failed',
    run: { tap: [] },
    lines: ['FAIL f: 0 passed, 1 failed, 0 skipped (12 ms)', '     ended with status 0, having checked nothing'],
    counts: { passed: 0, failed: 1, skipped: 0 },
  },
]

t.test('the report of a test file says what matters', async (t) => {
  for (const { name, run, lines, counts } of reports) {
    const whole = { file: 'f', tap: [], stderr: [], trouble: undefined, ms: 12.4, ...run }
    t.strictSame(reportFile(whole), { lines, counts }, name)
  }
})

t.test('a test file that does not end is killed and reported', async (t) => {
  const file = join(temporary(t), 'hangs.mjs')
  writeFileSync(file, "console.log('ok 1 - x'); setInterval(() => {}, 1000)")
  const result = await runFile(file, 1000, new AbortController().signal)
  t.match(result, { tap: ['ok 1 - x'], trouble: 'time-out after 1 s' })
})

t.test('a test file is passed the signal that stops the run', async (t) => {
  const file = join(temporary(t), 'waits.mjs')
  const program = `
    process.once('SIGTERM', () => { console.log('ok 1 - cleaned up'); process.exit(3) })
    setInterval(() => {}, 1000)
    process.kill(process.ppid, 'SIGUSR2')
  `
  writeFileSync(file, program)
  const stop = new AbortController()
  const ready = (): void => stop.abort('SIGTERM')
  process.once('SIGUSR2', ready)
  t.teardown(() => process.off('SIGUSR2', ready))
  const result = await runFile(file, 20_000, stop.signal)
  t.match(result, { tap: ['ok 1 - cleaned up'], trouble: 'status 3' })
})

t.test('a C function over the budget is found with its place', async (t) => {
  const body = (lines: number): string => `int f(void)\n{\n${'\tg();\n'.repeat(lines)}}\n`
  t.strictSame(oversized('a.c', body(60)), [])
  t.strictSame(oversized('a.c', `\n${body(61)}`), ['a.c:3: function of 61 lines, more than 60'])
  t.strictSame(oversized('a.h', '\n'.repeat(401)), ['a.h:1: 401 lines, more than 400'])
})

const forbidden: { file: string; text: string; rule: RegExp }[] = [
  {
    file: 'src/engine/a.ts',
    text: "import koffi from 'koffi'\nkoffi.load('')\n",
    rule: /koffi is imported only in src\/native/,
  },
  { file: 'src/cli/a.ts', text: "import { b } from '../kube/b.ts'\nb()\n", rule: /src\/cli imports .* only/ },
  { file: 'src/model/a.ts', text: "import { b } from '../abi/b.ts'\nb()\n", rule: /src\/model imports nothing/ },
  { file: 'src/native/a.ts', text: "import { b } from './b.ts'\nexport const a = b\n", rule: /noImportCycles/ },
  { file: 'src/model/a.ts', text: 'export default 1\n', rule: /noDefaultExport/ },
]

t.test('the linter refuses imports against the direction of dependencies', async (t) => {
  const biome = join(root, `node_modules/@biomejs/cli-linux-${process.arch}/biome`)
  for (const { file, text, rule } of forbidden) {
    const folder = temporary(t)
    for (const name of ['biome.json', '.gitignore', 'package.json']) cpSync(join(root, name), join(folder, name))
    mkdirSync(join(folder, file, '..'), { recursive: true })
    writeFileSync(join(folder, file), text)
    writeFileSync(join(folder, file, '../b.ts'), "import { a } from './a.ts'\nexport const b = a\n")
    const { status, stdout, stderr } = run(biome, ['lint', '--colors=off', '.'], { cwd: folder })
    t.match(stdout + stderr, rule, text)
    t.not(status, 0)
  }
})
