/** A control group for the clients on the director itself. */
import { mkdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { must } from '../../src/lab/command.ts'
import { groupRoot } from '../../src/native/cgroup.ts'

export class ControlGroup {
  /** As in /proc/PID/cgroup. */
  readonly name: string
  readonly #dir: string

  constructor(name: string) {
    this.name = `/bpvs-bench-${process.pid}-${name}`
    this.#dir = join(groupRoot(), this.name)
    mkdirSync(this.#dir)
  }

  /** Runs a command in the group, from its first instruction on; returns its output. NATIVE with what it said. */
  must(file: string, args: readonly string[]): Promise<string> {
    const script = 'echo $$ > "$0" && exec "$@"'
    return must('sh', ['-c', script, join(this.#dir, 'cgroup.procs'), file, ...args])
  }

  /** All of its processes must have ended. */
  remove(): void {
    rmdirSync(this.#dir)
  }
}
