/** Reads the connection table as the datapath left it, without a lock and without a system call. */
import { LbConnArray, LbConnFlag, LbFwd, LbServerArray, LbState, lbStateNames, LbTemplate } from '../abi/generated.ts'
import type { ConnectionProtocol, ConnectionState, ConnectionView, Family } from '../model/types.ts'
import { formatAddress } from '../model/address.ts'
import { protocolOf } from './names.ts'
import type { TableMaps } from './table-maps.ts'

const { at: offsets, size } = LbConnArray
const WORDS = size / 4
/** A connection's words that stay while it lives: addresses, ports, protocol, family. */
const KEY_WORDS = offsets.expires / 4
/** Ports of a template whose server was removed: no client's and no service's, as in ip_vs_check_template(). */
const VOID_PORT = 65535

/**
 * Connections, and persistence templates, that have not expired, in table order. One that ends or begins meanwhile may be
 * there or not. One that is masqueraded is one, whatever entries it has. A socket's has its whole time, as long as the socket is open.
 */
export function* readConnections(maps: TableMaps): Generator<ConnectionView> {
  const { conns, connPools } = maps
  const tick = currentTick(maps)
  // Entries from there on were never used.
  const end = Math.min(connPools.high(0), conns.length)
  const copy = new LbConnArray(new ArrayBuffer(size))
  for (let i = 0; i < end; i++) {
    if (conns.af(i) === 0 || conns.fwd(i) === LbFwd.FWD_RETURN) continue
    const view = readConnection(maps, i, tick, copy)
    if (view !== undefined) yield view
  }
}

/** The coarse clock of lb_conn.expires. */
export function currentTick(maps: TableMaps): number {
  const { jiffies } = maps.handles.clock()
  return Number(BigInt.asUintN(32, jiffies >> BigInt(maps.handles.rodata.tickShift)))
}

/** Entry `i`. Undefined if it has expired, or became another one as it was read into `copy`. */
export function readConnection(
  maps: TableMaps,
  i: number,
  tick: number,
  copy: LbConnArray,
): ConnectionView | undefined {
  const { conns, servers } = maps
  const at = i * WORDS
  for (let w = 0; w < WORDS; w++) copy.u32[w] = conns.u32[at + w] ?? 0
  const left = (copy.expires(0) - tick) | 0
  const server = copy.server(0)
  const socket = (copy.flags(0) & LbConnFlag.CONN_SOCKET) !== 0
  if ((left <= 0 && !socket) || server === 0 || server >= servers.length) return undefined
  for (let w = 0; w < KEY_WORDS; w++) if (copy.u32[w] !== conns.u32[at + w]) return undefined
  const family = familyOf(copy.af(0))
  const serverFamily = familyOf(servers.af(server))
  const gone = (copy.flags(0) & LbConnFlag.CONN_VOID) !== 0
  const view: ConnectionView = {
    family,
    protocol: protocolName(copy.proto(0)),
    state: stateName(copy),
    expiresS: socket ? timeoutOf(maps, copy) : secondsLeft(maps, left, timeoutOf(maps, copy)),
    client: { address: formatAddress(copy.u8, offsets.caddr, family), port: copy.cport(0) },
    virtual: { address: formatAddress(copy.u8, offsets.vaddr, family), port: gone ? VOID_PORT : copy.vport(0) },
    server: {
      family: serverFamily,
      address: formatAddress(servers.u8, server * LbServerArray.size + LbServerArray.at.addr, serverFamily),
      port: gone ? VOID_PORT : copy.dport(0),
    },
    ...(isTemplate(copy) ? { template: true } : {}),
  }
  return (copy.flags(0) & LbConnFlag.CONN_SYNC) === 0 ? view : { ...view, synced: true }
}

/** Whether the entry is a persistence template. */
function isTemplate(conn: LbConnArray): boolean {
  return (conn.proto(0) & LbTemplate.TEMPLATE) !== 0
}

function protocolName(proto: number): ConnectionProtocol {
  const number = proto & ~LbTemplate.TEMPLATE
  return number === 0 ? 'ip' : protocolOf(number)
}

function familyOf(af: number): Family {
  return af === 4 ? 4 : 6
}

/**
 * Whole seconds of `left` ticks. The kernel shows 14:59 at once for 15 minutes, because a jiffy has always passed;
 * ticks are rounded up when a connection is kept alive, so the full timeout is shown as one second less.
 */
function secondsLeft(maps: TableMaps, left: number, timeoutS: number): number {
  const { tickShift, hz } = maps.handles.rodata
  const seconds = Math.floor((left * 2 ** tickShift) / hz)
  return seconds > 0 && seconds === timeoutS ? seconds - 1 : seconds
}

/** Seconds that the entry was given when it was kept alive last, unless its state's timeout was changed since. */
function timeoutOf(maps: TableMaps, conn: LbConnArray): number {
  const state = conn.state(0)
  if (isTemplate(conn)) return conn.hopToken(0)
  return state < LbState.STATES ? maps.config.timeout(0, state) : 0
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

function stateName(conn: LbConnArray): ConnectionState {
  if (isTemplate(conn)) return (conn.flags(0) & LbConnFlag.CONN_ASSURED) === 0 ? 'NONE' : 'ASSURED'
  return stateNames[conn.state(0)] ?? 'NONE'
}
