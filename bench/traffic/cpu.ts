/**
 * CPU time of processes as the scheduler counts it, in nanoseconds: exact, and blind to what other processes of the
 * machine do. What the network does in softirq is in it, as it runs on top of the process that sends, or in ksoftirqd.
 * (Not on kernels with CONFIG_IRQ_TIME_ACCOUNTING, which take it out: there only `systemTicks` has it.)
 */
import { readdirSync, readFileSync } from 'node:fs'

/** The threads of a process. */
function threadsOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}`)
}

function runTimeNs(path: string): number {
  return Number(readFileSync(`${path}/schedstat`, 'utf8').split(' ')[0])
}

/** What the processes' threads have used. */
export function processCpuNs(pids: readonly number[]): number {
  return pids.flatMap(threadsOf).reduce((sum, thread) => sum + runTimeNs(thread), 0)
}

/** The kernel's threads for softirqs that are put off. */
export function findKsoftirqd(): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('ksoftirqd/')
      } catch {
        return false
      }
    })
}

/** Clock ticks that the whole machine was busy since it was started: everything but idle, iowait and steal. */
export function systemTicks(): number {
  const [, ...fields] = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields.map(Number)
  return user + nice + system + irq + softirq
}
