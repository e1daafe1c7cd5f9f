/** What a line of results says of where it was measured. */
import { spawnSync } from 'node:child_process'
import { cpus, release } from 'node:os'
import { projectFile } from '../../src/lab/project.ts'

export interface Machine {
  /** Commit of the checkout, with "-dirty" if files differ from it; "" outside of git. */
  readonly commit: string
  readonly kernel: string
  readonly cpu: string
  readonly cpus: number
}

function git(...args: string[]): string | undefined {
  const done = spawnSync('git', args, { cwd: projectFile('.'), encoding: 'utf8' })
  return done.status === 0 ? done.stdout.trim() : undefined
}

export function describeMachine(): Machine {
  const head = git('rev-parse', '--short', '--verify', '--quiet', 'HEAD')
  const dirty = head !== undefined && git('status', '--porcelain') !== '' ? '-dirty' : ''
  const all = cpus()
  return {
    commit: head === undefined ? '' : head + dirty,
    kernel: release(),
    cpu: all[0]?.model ?? '',
    cpus: all.length,
  }
}
