/** Who the clients of sockets' connections are: nobody asks for it but listings. */
import { LbConnArray, LbConnFlag } from '../abi/generated.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { LbError } from '../model/errors.ts'

const TCP = 6
const { size, at } = LbConnArray
const WORDS = size / 4
const CLIENT = at.caddr / 4

/**
 * Has the kernel note the address and port of each socket of TCP in its connection, where that is missing. What it can't find, as it is
 * in a namespace that may not be entered, stays as it is.
 */
export function nameSockets(maps: TableMaps): void {
  if (!someUnnamed(maps) || !maps.handles.nameSockets(false) || !someUnnamed(maps)) return
  try {
    maps.handles.nameSockets(true)
  } catch (error) {
    if (!(error instanceof LbError) && !isRefused(error)) throw error
  }
}

function isRefused(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EACCES' || error.code === 'EPERM')
}

/** Whether a socket's client is known by its namespace's number still: sock_client() in bpf/sock_conn.h. */
function someUnnamed({ conns, connPools }: TableMaps): boolean {
  const end = Math.min(connPools.high(0), conns.length)
  for (let i = 0; i < end; i++) {
    if ((conns.flags(i) & LbConnFlag.CONN_SOCKET) === 0 || conns.proto(i) !== TCP || conns.af(i) === 0) continue
    if (isPlaceholder(conns, i)) return true
  }
  return false
}

/** In 0.0.0.0/8 or ::/64, where no packet comes from. */
function isPlaceholder(conns: LbConnArray, i: number): boolean {
  const first = i * WORDS + CLIENT
  if (conns.af(i) === 4) return conns.u8[i * size + at.caddr] === 0
  return conns.u32[first] === 0 && conns.u32[first + 1] === 0
}
