/** Reads the connection table as the datapath left it, without a lock and without a system call. */
import { LbConnArray, LbServerArray, LbState, lbStateNames } from '../abi/generated.ts'
import type { ConnectionState, ConnectionView, Family } from '../model/types.ts'
import { formatAddress } from '../model/address.ts'
import { protocolOf } from './names.ts'
import type { TableMaps } from './table-maps.ts'

const { at: offsets, size } = LbConnArray
const WORDS = size / 4
/** A connection's words that stay while it lives: addresses, ports, protocol, family. */
const KEY_WORDS = offsets.expires / 4

/** Connections that have not expired, in table order. One that ends or begins meanwhile may be there or not. */
export function* readConnections(maps: TableMaps): Generator<ConnectionView> {
  const { conns, connPools } = maps
  const tick = currentTick(maps)
  // Entries from there on were never used.
  const end = Math.min(connPools.high(0), conns.length)
  const copy = new LbConnArray(new ArrayBuffer(size))
  for (let i = 0; i < end; i++) {
    if (conns.af(i) === 0) continue
    const view = readConnection(maps, i, tick, copy)
    if (view !== undefined) yield view
  }
}

/** The coarse clock of lb_conn.expires. */
export function currentTick(maps: TableMaps): number {
  const { jiffies } = maps.handles.clock()
  return Number(BigInt.asUintN(32, jiffies >> BigInt(maps.handles.rodata.tickShift)))
}

/** Undefined if it has expired, or became another one as it was read into `copy`. */
function readConnection(maps: TableMaps, i: number, tick: number, copy: LbConnArray): ConnectionView | undefined {
  const { conns, servers } = maps
  const at = i * WORDS
  for (let w = 0; w < WORDS; w++) copy.u32[w] = conns.u32[at + w] ?? 0
  const left = (copy.expires(0) - tick) | 0
  const server = copy.server(0)
  if (left <= 0 || server === 0 || server >= servers.length) return undefined
  for (let w = 0; w < KEY_WORDS; w++) if (copy.u32[w] !== conns.u32[at + w]) return undefined
  const family = familyOf(copy.af(0))
  const serverFamily = familyOf(servers.af(server))
  return {
    family,
    protocol: protocolOf(copy.proto(0)),
    state: stateName(copy.state(0)),
    expiresS: secondsLeft(maps, left, copy.state(0)),
    client: { address: formatAddress(copy.u8, offsets.caddr, family), port: copy.cport(0) },
    virtual: { address: formatAddress(copy.u8, offsets.vaddr, family), port: copy.vport(0) },
    server: {
      family: serverFamily,
      address: formatAddress(servers.u8, server * LbServerArray.size + LbServerArray.at.addr, serverFamily),
      port: copy.dport(0),
    },
  }
}

function familyOf(af: number): Family {
  return af === 4 ? 4 : 6
}

/**
 * Whole seconds of `left` ticks. The kernel shows 14:59 at once for 15 minutes, because a jiffy has always passed;
 * ticks are rounded up when a connection is kept alive, so the full timeout is shown as one second less.
 */
function secondsLeft(maps: TableMaps, left: number, state: number): number {
  const { tickShift, hz } = maps.handles.rodata
  const seconds = Math.floor((left * 2 ** tickShift) / hz)
  const timeout = state < LbState.STATES ? maps.config.timeout(0, state) : 0
  return seconds > 0 && seconds === timeout ? seconds - 1 : seconds
}

/** States that the kernel names otherwise in its listings than in its source. */
const listedNames: Readonly<Record<number, ConnectionState>> = {
  [LbState.UDP_NORMAL]: 'UDP',
  [LbState.SCTP_COOKIE_SENT]: 'C-SENT',
  [LbState.SCTP_COOKIE_REPLIED]: 'C-REPLIED',
  [LbState.SCTP_COOKIE_WAIT]: 'C-WAIT',
  [LbState.SCTP_COOKIE_ECHOED]: 'C-ECHOED',
  [LbState.SCTP_SHUTDOWN_SENT]: 'S-SENT',
  [LbState.SCTP_SHUTDOWN_RECEIVED]: 'S-RECEIVED',
  [LbState.SCTP_SHUTDOWN_ACK_SENT]: 'S-ACK-SENT',
}

/** By enum lb_state. */
const stateNames = lbStateNames.map(
  (name, state) => listedNames[state] ?? (name.replace(/^(TCP|SCTP)_/, '') as ConnectionState),
)

function stateName(state: number): ConnectionState {
  return stateNames[state] ?? 'NONE'
}
