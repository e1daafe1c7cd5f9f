/** Names of schedulers' flags (`-b`): what a bit means depends on the scheduler. */

export type SchedulerFlag = 1 | 2 | 3

export interface SchedulerFlagName {
  readonly name: string
  readonly flag: SchedulerFlag
  /** The scheduler that gives the flag this meaning; absent: any. */
  readonly scheduler?: string
}

export const schedulerFlagNames: readonly SchedulerFlagName[] = [
  { name: 'sh-fallback', flag: 1, scheduler: 'sh' },
  { name: 'sh-port', flag: 2, scheduler: 'sh' },
  { name: 'mh-fallback', flag: 1, scheduler: 'mh' },
  { name: 'mh-port', flag: 2, scheduler: 'mh' },
  { name: 'flag-1', flag: 1 },
  { name: 'flag-2', flag: 2 },
  { name: 'flag-3', flag: 3 },
]
