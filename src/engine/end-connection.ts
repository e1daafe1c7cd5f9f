/** Ending one connection, or persistence template, because somebody asks for it. */
import { LbEnded, LbEndHow } from '../abi/generated.ts'
import { endConnection, findConnection } from '../maps/connection-end.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'
import type { ConnectionKey, ConnectionView } from '../model/types.ts'

/** What ending a connection may need, and may forbid it. */
export interface EndOptions {
  /** Called with the connection before anything is done to it: it goes on if this throws. */
  readonly check?: (connection: ConnectionView) => void
  /** Ends sockets whose connections are marked. Left out: nobody can. */
  readonly endSockets?: () => void
}

/** How often another try is made at a line that is locked. */
const TRIES = 3

/** Ends what was found by `key`, and nothing that took its place meanwhile. NO_CONNECTION, UNSUPPORTED, NATIVE, and what `check` throws. */
export function endByName(maps: TableMaps, key: ConnectionKey, { check, endSockets }: EndOptions): void {
  const found = findConnection(maps, key)
  if (found === undefined) throw new LbError('NO_CONNECTION')
  check?.(found.view)
  const order = (how: LbEndHow): LbEnded => {
    for (let i = 0; i < TRIES; i++) {
      const ended = endConnection(maps, found, how)
      if (ended !== LbEnded.ENDED_BUSY) return ended
    }
    throw new LbError('NATIVE', 'the line of the connection stays locked')
  }
  const ended = order(LbEndHow.END_NOW)
  if (ended === LbEnded.ENDED_NOT) throw new LbError('NO_CONNECTION')
  if (ended !== LbEnded.ENDED_SOCKET) return
  endSockets?.()
  if (order(LbEndHow.END_UNDO) !== LbEnded.ENDED_NOT) {
    throw new LbError('UNSUPPORTED', 'the socket cannot be ended: before Linux 6.5, or in a namespace out of sight')
  }
}
