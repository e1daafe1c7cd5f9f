/** The container image: what the Dockerfile does, as far as it can be done without building one. */
import { spawnSync } from 'node:child_process'
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const lines = readFileSync(join(root, 'Dockerfile'), 'utf8')
  .replaceAll('\\\n', ' ')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
const instructions = lines.map((line) => /^([A-Z]+) +(.*)$/.exec(line)?.slice(1) ?? ['?', line])
const argumentsOf = (name: string): string[] => instructions.flatMap(([each, rest = '']) => (each === name ? rest : []))

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: '/', env, encoding: 'utf8' })
  if (error) throw error
  return { status, stdout, stderr }
}

t.test('the bases are pinned by digest, and no instruction is unknown', async (t) => {
  const known = ['FROM', 'WORKDIR', 'RUN', 'COPY', 'LABEL', 'CMD']
  t.same(
    instructions.filter(([name = '']) => !known.includes(name)),
    [],
  )
  t.equal(argumentsOf('FROM').length, 2)
  for (const from of argumentsOf('FROM')) t.match(from, /^[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}( AS build)?$/)
})

t.test('all that the build reads is in its context, and nothing that a build makes', async (t) => {
  const kept = readFileSync(join(root, '.dockerignore'), 'utf8')
    .split('\n')
    .flatMap((line) => (line.startsWith('!') ? line.slice(1) : []))
  for (const path of kept) t.ok(existsSync(join(root, path)), path)
  for (const path of ['node_modules', 'build', 'dist', '.git']) t.notOk(kept.includes(path), path)
  const steps = readFileSync(join(root, 'tools/setup/steps.mjs'), 'utf8')
  const read = [...steps.matchAll(/'((?:src|bpf|native|tools|package|ts|\.npm)[\w./-]*)'/g)].map(
    ([, path = '']) => path,
  )
  t.ok(read.length > 5)
  for (const path of read) t.ok(kept.includes(path.split('/')[0] ?? ''), `${path} is in the context`)
})

t.test('the packages that the build needs are the ones that setup looks for', async (t) => {
  const [install = ''] = argumentsOf('RUN')
  const system = readFileSync(join(root, 'tools/setup/system.mjs'), 'utf8')
  const [, list = ''] = /const buildPackages = \[([\s\S]*?)\n\]/.exec(system) ?? []
  const wanted = [...list.matchAll(/name: '([^']+)'/g)].map(([, name = '']) => name)
  t.same(/no-install-recommends (.*?) *&&/.exec(install)?.[1]?.split(' '), wanted)
})

t.test('a checkout that is ready to run is ready for an image, whatever the kernel', async (t) => {
  const done = run(process.execPath, [join(root, 'tools/setup.mjs'), 'build'], process.env)
  t.same(done, { status: 0, stdout: '', stderr: '' })
})

t.test('the image has the commands, under the names that they stand in for, and they start', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bpvs-image-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const image = join(folder, 'image')
  t.match(run(process.execPath, [join(root, 'tools/image.mjs'), image]), { status: 0, stdout: '', stderr: '' })
  const bin = join(image, 'usr/local/bin')
  const commands = ['bpvsadm', 'bpvsadm-restore', 'bpvsadm-save', 'bpvsd', 'kube-proxy']
  const ipvs = ['ipvsadm', 'ipvsadm-restore', 'ipvsadm-save']
  t.same(readdirSync(bin).sort(), [...commands, ...ipvs].sort())
  t.equal(readlinkSync(join(bin, 'kube-proxy')), '../../../opt/bpvs/bin/bpvsd')
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
  for (const name of ['bpvsd', 'kube-proxy']) {
    t.match(run(join(bin, name), ['--version']), { status: 0, stdout: `${name} ${version}\n` })
  }
  for (const name of ['bpvsadm', 'ipvsadm']) t.match(run(join(bin, name), ['--version']), { status: 0 })
  for (const name of ['bpvsadm-save', 'ipvsadm-save']) {
    t.match(run(join(bin, name), ['--nonsense'], process.env), { status: 1, stderr: `${name}: Script to save` })
  }
  for (const name of ['bpvsadm-restore', 'ipvsadm-restore'])
    t.doesNotThrow(() => accessSync(join(bin, name), constants.X_OK))
  // The one package that is in no bundle, and Node, load: nothing of the checkout is asked for.
  t.same(readdirSync(join(image, 'opt/bpvs/node_modules')).sort(), ['@koromix', 'koffi'])
  const load = "await import('koffi')"
  const opt = join(image, 'opt/bpvs')
  const { status, stderr } = spawnSync(join(opt, 'build/bin/node'), ['--input-type=module', '-e', load], {
    cwd: opt,
    encoding: 'utf8',
  })
  t.match({ status, stderr }, { status: 0, stderr: '' })
  t.notOk(existsSync(join(opt, 'node_modules/typescript')))
})

t.test('an image is not laid out over something that is there', async (t) => {
  t.match(run(process.execPath, [join(root, 'tools/image.mjs'), tmpdir()]), { status: 2 })
})
