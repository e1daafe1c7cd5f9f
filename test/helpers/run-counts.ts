/** How often each program of a director ran: evidence of the hook that a packet took. */
import { readFileSync, writeFileSync } from 'node:fs'
import { must } from '../../src/lab/command.ts'
import type { Director } from './director.ts'

const statistics = '/proc/sys/kernel/bpf_stats_enabled'

interface Teardown {
  teardown(handler: () => void): void
}

/** Has the kernel count runs of programs for the time of a test. */
export function countRuns(t: Teardown): void {
  const before = readFileSync(statistics, 'utf8')
  t.teardown(() => writeFileSync(statistics, before))
  writeFileSync(statistics, '1')
}

export interface Runs {
  readonly xdp: number
  readonly ingress: number
  readonly egress: number
}

async function runsOf(pins: string, program: string): Promise<number> {
  const args = ['-j', 'prog', 'show', 'pinned', `${pins}/prog-${program}`]
  const { run_cnt = 0 } = JSON.parse(await must('bpftool', args)) as { run_cnt?: number }
  return run_cnt
}

/** Runs on all interfaces since the programs were loaded, while countRuns() was in force. */
export async function readRuns(director: Director): Promise<Runs> {
  const pins = director.pins()?.path ?? ''
  const [xdp, ingress, egress] = await Promise.all(
    ['lb_xdp', 'lb_tc_ingress', 'lb_tc_egress'].map((program) => runsOf(pins, program)),
  )
  return { xdp: xdp ?? 0, ingress: ingress ?? 0, egress: egress ?? 0 }
}
