/** Formats the tree: TypeScript, JSON and C. */
import { spawnSync } from 'node:child_process'
import { biome, cFiles } from './checks.ts'

const commands = [
  [biome, 'format', '--write', '.'],
  ['clang-format-19', '-i', ...cFiles()],
] as const

for (const [command, ...args] of commands) {
  const { status } = spawnSync(command, args, { stdio: 'inherit' })
  if (status !== 0) process.exitCode = 1
}
