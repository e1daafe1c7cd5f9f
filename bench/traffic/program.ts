/** The load's C program, compiled when its source is newer than what was built. */
import { mkdirSync, renameSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { must } from '../../src/lab/command.ts'
import { projectFile } from '../../src/lab/project.ts'

function changedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

/** Path of the program. NATIVE with the compiler's words if it can't be built. */
export async function buildProgram(): Promise<string> {
  const source = projectFile('bench/native/traffic.c')
  const output = projectFile('build/bench/traffic')
  if (changedAt(output) > changedAt(source)) return output
  mkdirSync(dirname(output), { recursive: true })
  await must('gcc', ['-O2', '-Wall', '-Wextra', '-Werror', '-pthread', '-o', `${output}.new`, source])
  renameSync(`${output}.new`, output)
  return output
}
