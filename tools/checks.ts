/** What is checked of the tree before its tests run. */
import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'
import { oversized } from './size.ts'

/** What a check found: nothing, or the text to show. */
export interface Finding {
  readonly name: string
  readonly ok: boolean
  readonly output: string
}

/** The linter's program: we install it without its launcher, which would bring every platform's. */
export const biome = `node_modules/@biomejs/cli-linux-${process.arch}/biome`

/** The C files of the tree, sorted. */
export function cFiles(): string[] {
  return globSync('{bpf,native,tools,bench}/**/*.[ch]').sort()
}

/** The commands whose exit status is the answer. */
const commands = (): Readonly<Record<string, readonly string[]>> => ({
  format: [biome, 'format', '--colors=off', '.'],
  lint: [biome, 'lint', '--colors=off', '--error-on-warnings', '.'],
  types: ['node_modules/.bin/tsc', '-p', 'tsconfig.json'],
  'map layouts (node tools/abi-gen.ts writes them)': [process.execPath, 'tools/abi-gen.ts', '--check'],
})

function runCheck(name: string, [command = '', ...args]: readonly string[]): Finding {
  const done = spawnSync(command, args, { encoding: 'utf8' })
  const output = done.error === undefined ? done.stdout + done.stderr : `can't run ${command}: ${done.error.message}\n`
  return { name, ok: done.status === 0, output }
}

/** Names the C files that clang-format would change; its own messages are one per place. */
function checkCFormat(): Finding {
  const changed = cFiles().filter((file) => !runCheck('', ['clang-format-19', '--dry-run', '-Werror', file]).ok)
  const output = changed.map((file) => `${file}: not formatted (npm run format)\n`).join('')
  return { name: 'C format', ok: changed.length === 0, output }
}

function checkSizes(): Finding {
  const found = cFiles().flatMap((file) => oversized(file, readFileSync(file, 'utf8')))
  return { name: 'C size', ok: found.length === 0, output: found.map((line) => `${line}\n`).join('') }
}

/** Runs the checks one by one, in the checkout's root. */
export function* runChecks(): Generator<Finding> {
  for (const [name, command] of Object.entries(commands())) yield runCheck(name, command)
  yield checkCFormat()
  yield checkSizes()
}
