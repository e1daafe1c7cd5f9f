/** The table of the calling thread's network namespace, and what else its clients ask of the kernel. */
import type { AttachPolicy } from '../native/attachments.ts'
import { openExistingTable, openTable, socketHooks, tableAttachments } from '../native/loader.ts'
import type { TableSizes } from '../native/sizes.ts'
import { readVerdicts } from '../maps/verdicts.ts'
import { checkTable } from './check.ts'
import { KernelTable } from './kernel-table.ts'
import type { ReconcilingTable } from './table.ts'

export { unloadTable } from '../native/loader.ts'
export { kernelPorts } from '../native/local-ports.ts'

/** How to open: `sizes` and `policy` count only where the table has to be made. */
export interface OpenOptions {
  readonly create: boolean
  readonly sizes?: Partial<TableSizes>
  readonly policy?: AttachPolicy
}

/**
 * Opens the namespace's table; with `create` it is made, and its programs attached, if there is none. Undefined: there
 * is none and none was asked for. LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
 */
export function openKernelTable({ create, ...options }: OpenOptions): ReconcilingTable | undefined {
  const handles = create ? openTable(options) : openExistingTable()
  return handles === undefined ? undefined : new KernelTable(handles)
}

/** What is attached where: by interface, then to a control group (index 0). Empty without a table. */
export function hooks(): { ifindex: number; interface: string; hook: string; mode: string }[] {
  const attachments = tableAttachments()
  if (attachments === undefined) return []
  const sockets = socketHooks().map((hook) => ({ ifindex: 0, interface: '-', hook, mode: 'cgroup' }))
  return [...attachments.list().map(({ kind, ...attachment }) => ({ ...attachment, mode: kind })), ...sockets]
}

/** Packets refused, dropped or otherwise noted, by name; empty without a table. */
export function verdicts(): { name: string; count: bigint }[] {
  const handles = openExistingTable()
  if (handles === undefined) return []
  try {
    return Array.from(readVerdicts(handles), ([name, count]) => ({ name, count }))
  } finally {
    handles.close()
  }
}

/** Contradictions in the table, a sentence each; empty without a table. */
export function check(): string[] {
  const handles = openExistingTable()
  if (handles === undefined) return []
  try {
    return checkTable(handles)
  } finally {
    handles.close()
  }
}
