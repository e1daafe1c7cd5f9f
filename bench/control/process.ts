/** What a process takes of the machine, as the kernel tells. */
import { readFileSync } from 'node:fs'

/** Ticks of /proc in a second: USER_HZ, the same everywhere. */
const ticksPerSecond = 100

/** Time on a CPU since its start, seconds. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Resident memory of its own, MiB: without the tables, which it shares with the kernel, and files. */
export function memoryMib(pid: number): number {
  const [, kib = '0'] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kib) / 1024
}
