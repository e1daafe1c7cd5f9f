/** Going back: the other proxy of this host gets all that is new, and our connections go on until they end. */
import type { ReconcilingTable } from '../engine/table.ts'
import type { Log } from '../observe/log.ts'
import type { Timers } from './ports.ts'

const lookMs = 1000

export interface HandOverOptions {
  readonly table: Pick<ReconcilingTable, 'changeSettings' | 'setServiceRanges' | 'services'>
  readonly log: Log
  readonly timers: Timers
  /** How long to wait, seconds. */
  readonly waitS: number
}

/** Takes nothing new from now on, and waits until there are no more connections; how many are left when the time is up. */
export async function handOver({ table, log, timers, waitS }: HandOverOptions): Promise<number> {
  table.changeSettings({ handover: 'to' })
  table.setServiceRanges([], false)
  const end = timers.now() + waitS * 1000
  let connections = countConnections(table)
  log.info({ connections, waitS }, 'handing over')
  while (connections > 0 && timers.now() < end) {
    await new Promise<void>((resolve) => timers.after(Math.min(lookMs, end - timers.now()), resolve))
    connections = countConnections(table)
  }
  return connections
}

function countConnections(table: HandOverOptions['table']): number {
  let sum = 0
  for (const { servers, insiders = [] } of table.services()) {
    for (const { active, inactive } of [...servers, ...insiders]) sum += active + inactive
  }
  return sum
}
