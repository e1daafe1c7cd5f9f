/** Schedulers by name, and the names of their flags (`-b`): what a bit means depends on the scheduler. */
import { type SchedulerFlag, schedulerFlagNames } from '../model/scheduler-flags.ts'
import { schedulers, type Scheduler } from '../model/types.ts'
import { usageError } from './usage-error.ts'

export function isScheduler(name: string): name is Scheduler {
  return name === 'none' || (schedulers as readonly string[]).includes(name)
}

/** Flags as the listing and `-S` print them: the scheduler's own names first choice, joined by commas. */
export function formatSchedulerFlags(scheduler: string, flags: readonly SchedulerFlag[]): string {
  return [...flags]
    .sort()
    .map((flag) => nameOf(scheduler, flag))
    .join(',')
}

function nameOf(scheduler: string, flag: SchedulerFlag): string {
  const own = schedulerFlagNames.find((entry) => entry.flag === flag && entry.scheduler === scheduler)
  return own?.name ?? `flag-${flag}`
}

/** Reads the argument of `-b` for a scheduler: names joined by commas, in any order. Throws LbError USAGE. */
export function readSchedulerFlags(scheduler: string, text: string): SchedulerFlag[] {
  const flags = new Set<SchedulerFlag>()
  for (const word of text.split(',').filter((part) => part !== '')) {
    const entry = schedulerFlagNames.find((candidate) => candidate.name === word)
    if (entry === undefined) throw usageError(`invalid scheduler flag \`${word}'`)
    if (entry.scheduler !== undefined && entry.scheduler !== scheduler) {
      throw usageError(`incompatible scheduler flag \`${word}'`)
    }
    flags.add(entry.flag)
  }
  return [...flags].sort()
}
