/** Sockets that are connected to a server that was removed. */
import { join } from 'node:path'
import { findTablesDir, tableName } from './bpffs.ts'
import { inspect } from './pins.ts'
import { SocketHooks } from './socket-hooks.ts'
import { inAllNamespaces } from './stale.ts'

export interface StuckSockets {
  readonly ended: number
  /** Connections whose sockets could not be ended: before Linux 6.5, or in a namespace that is out of sight. */
  readonly left: number
}

/**
 * Ends the sockets of this namespace, or of all, that are connected to a server that was removed. Nothing is done if there are as
 * many as `known`, the number that was left last. PERMISSION, NATIVE.
 */
export function endStuckSockets(everywhere: boolean, known: number): StuckSockets {
  const tablesDir = findTablesDir()
  const dir = tablesDir === undefined ? undefined : join(tablesDir, tableName())
  if (dir === undefined || inspect(dir).kind === 'absent') return { ended: 0, left: 0 }
  const hooks = new SocketHooks(dir)
  const found = hooks.stuck()
  if (found === 0 || found === known) return { ended: 0, left: found }
  let ended = hooks.endStuck()
  if (everywhere && hooks.stuck() > 0) inAllNamespaces(() => (ended += hooks.endStuck()))
  return { ended, left: hooks.stuck() }
}
