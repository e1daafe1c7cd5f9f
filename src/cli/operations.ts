/** The operations of this host's kernel. Loads the native parts, so it is imported only when a command needs them. */
import { check, hooks, kernelPorts, openKernelTable, unloadTable, verdicts } from '../engine/open.ts'
import { addMarkRule, deleteMarkRule, listMarkRules } from '../engine/mark-rules.ts'
import { syncDaemons } from '../sync/control.ts'
import type { Operations } from './session.ts'

export const kernelOperations: Operations = {
  openTable: openKernelTable,
  unload: unloadTable,
  hooks,
  verdicts,
  check,
  kernelPorts,
  markRules: { list: listMarkRules, add: addMarkRule, delete: deleteMarkRule },
  syncDaemons,
}
