/** bpvsadm-save and bpvsadm-restore, around a bpvsadm that only notes how it was called. */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

const bin = fileURLToPath(new URL('../../bin/', import.meta.url))
const stub = `#!/bin/sh
echo "called: $*" >>"$LOG"
case $1 in
-R) cat >>"$LOG"; exit 3 ;;
-S) echo "the table $2"; exit 4 ;;
esac
`

/** Runs a wrapper, called as `name`. `calls` is what bpvsadm was called with and what it was given. */
function run(t: Test, name: string, args: readonly string[], input = '') {
  const dir = mkdtempSync(join(tmpdir(), 'bpvs wrappers '))
  t.teardown(() => rmSync(dir, { recursive: true }))
  const log = join(dir, 'log')
  writeFileSync(log, '')
  writeFileSync(join(dir, 'bpvsadm'), stub)
  chmodSync(join(dir, 'bpvsadm'), 0o755)
  for (const wrapper of ['bpvsadm-save', 'bpvsadm-restore']) {
    copyFileSync(join(bin, wrapper), join(dir, wrapper))
    symlinkSync(wrapper, join(dir, wrapper.replace('bpvs', 'ipvs')))
  }
  const options = { encoding: 'utf8', input, cwd: '/', env: { PATH: process.env.PATH, LOG: log } } as const
  const { status, stdout, stderr } = spawnSync(join(dir, name), args, options)
  return { status, stdout, stderr, calls: readFileSync(log, 'utf8') }
}

t.test('save prints what -S prints, with -n numbers, and ends with its status', async (t) => {
  const plain = { status: 4, stdout: 'the table \n', stderr: '', calls: 'called: -S\n' }
  t.same(run(t, 'bpvsadm-save', []), plain)
  t.same(run(t, 'ipvsadm-save', ['anything']), plain, 'words that are no options are passed over')
  t.same(run(t, 'ipvsadm-save', ['-n', '-n']), {
    status: 4,
    stdout: 'the table -n\n',
    stderr: '',
    calls: 'called: -S -n\n',
  })
})

t.test(
  'save tells what it is for, under the name that it was called as, when it does not know an option',
  async (t) => {
    for (const [name, option] of [
      ['bpvsadm-save', '-h'],
      ['ipvsadm-save', '--help'],
    ] as const) {
      t.same(run(t, name, ['-n', option]), {
        status: 1,
        stdout: '',
        stderr:
          `${name}: Script to save the IPVS table to stdout.\n` +
          '   With the -n option, prints out the table in numeric format.\n',
        calls: '',
      })
    }
  },
)

t.test('restore clears the table, then gives all lines but comments to -R, and ends with its status', async (t) => {
  const input = '# saved\n-A -t 10.9.0.1:80 -s rr\n #no comment\n-a -t a\\\\b:1 -r $HOME *\n#\n\n\n'
  t.same(run(t, 'ipvsadm-restore', ['-n'], input), {
    status: 3,
    stdout: '',
    stderr: '',
    calls: 'called: -C\ncalled: -R\n-A -t 10.9.0.1:80 -s rr\n #no comment\n-a -t a\\\\b:1 -r $HOME *\n',
  })
  t.equal(run(t, 'bpvsadm-restore', []).calls, 'called: -C\ncalled: -R\n\n', 'nothing to restore: the table is empty')
})
