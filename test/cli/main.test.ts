/** The program as a process: what it is called as, its output, its status. Commands that need no table. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const isRoot = process.geteuid?.() === 0
const needsRoot: string | false = isRoot ? false : 'bpvsadm needs root for every command'

function bpvsadm(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env: { ...process.env, ...env } })
}

t.test('messages name the program as the launcher says, or else as it was started', { skip: needsRoot }, async (t) => {
  const named = bpvsadm(['-q'], { BPVS_ARGV0: '/usr/sbin/ipvsadm' })
  t.equal(named.status, 255)
  t.equal(named.stdout, '')
  t.equal(named.stderr, "Try `/usr/sbin/ipvsadm -h' or '/usr/sbin/ipvsadm --help' for more information.\n")
  const { BPVS_ARGV0: _, ...env } = process.env
  t.ok(spawnSync(process.execPath, [main, '-q'], { encoding: 'utf8', env }).stderr.startsWith(`Try \`${main} -h'`))
})

t.test('help is on standard output, with status 0', { skip: needsRoot }, async (t) => {
  const help = bpvsadm(['-h'])
  t.equal(help.status, 0)
  t.match(help.stdout, /^ipvsadm v1\.31 .*\nUsage:\n/)
  t.equal(help.stderr, '')
})

t.test(
  'lines to restore come from standard input, and an option error ends with status 2',
  { skip: needsRoot },
  async (t) => {
    const options = { encoding: 'utf8', input: '-v\n-A\n' } as const
    t.match(spawnSync(process.execPath, [main, '-R'], options), { status: 0, stdout: /^ipvsadm v1\.31/, stderr: '' })
    const wrong = spawnSync(process.execPath, [main, '-R'], { ...options, input: 'ipvsadm -A -w 1\n-v\n' })
    t.match(wrong, { status: 2, stdout: '', stderr: /^You need to supply the 'service-address' option/ })
  },
)

t.test('who is not root is told so, with status 2', { skip: isRoot && 'the tests run as root' }, async (t) => {
  t.match(bpvsadm(['-L']), { status: 2, stdout: '', stderr: /^Can't initialize ipvs: Permission denied/ })
})
