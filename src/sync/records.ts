/** Connections of the table as records of the sync protocol, and the other way round. */
import { LbConnArray, LbConnFlag, LbFwd, LbState, LbTemplate, type LbSyncConnArray } from '../abi/generated.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import { connFlags, type SyncRecord } from './message.ts'

/** Where the states of a protocol begin in enum lb_state; they follow in IPVS's order. */
const firstState: ReadonlyMap<number, number> = new Map([
  [6, LbState.TCP_NONE],
  [17, LbState.UDP_NORMAL],
  [132, LbState.SCTP_NONE],
])

/** Two years: far below half of what ticks can count to, beyond which times would seem past. */
const LONGEST_S = 2 ** 26

/** The other state of a template is 0. */
const ASSURED = 1

/** A connection's bytes that stay while it lives: addresses, ports, protocol, family. */
const KEY_BYTES = LbConnArray.at.expires

/** What others are told of entry `i`; undefined if it ended, or became another one, as it was read. */
export function recordOf(maps: TableMaps, i: number): SyncRecord | undefined {
  const { conns, servers, services } = maps
  const at = i * LbConnArray.size
  const copy = new LbConnArray(conns.u8.slice(at, at + LbConnArray.size).buffer)
  const server = copy.server(0)
  const address = server > 0 && server < servers.length ? servers.addr(server).slice() : undefined
  const service = address === undefined ? 0 : servers.service(server)
  for (let b = 0; b < KEY_BYTES; b++) if (copy.u8[b] !== conns.u8[at + b]) return undefined
  if (address === undefined || copy.af(0) === 0) return undefined
  const template = (copy.proto(0) & LbTemplate.TEMPLATE) !== 0
  const protocol = copy.proto(0) & ~LbTemplate.TEMPLATE
  return {
    family: copy.af(0) === 6 ? 6 : 4,
    protocol,
    flags: wireFlags(copy, template),
    state: template ? assured(copy) : copy.state(0) - (firstState.get(protocol) ?? 0),
    fwmark: services.fwmark(service),
    timeoutS: template ? copy.hopToken(0) : maps.config.timeout(0, copy.state(0)),
    client: copy.caddr(0).slice(),
    clientPort: copy.cport(0),
    virtual: copy.vaddr(0).slice(),
    virtualPort: copy.vport(0),
    server: address,
    serverPort: copy.dport(0),
  }
}

function assured(conn: LbConnArray): number {
  return (conn.flags(0) & LbConnFlag.CONN_ASSURED) === 0 ? 0 : ASSURED
}

/** IPVS marks templates as inactive, and never by what is said of replies in our table. */
function wireFlags(conn: LbConnArray, template: boolean): number {
  const flags = conn.flags(0)
  if (template) {
    const oneWay = conn.fwd(0) === LbFwd.FWD_MASQ ? 0 : connFlags.NO_OUTPUT
    return conn.fwd(0) | oneWay | connFlags.TEMPLATE | connFlags.INACTIVE
  }
  return (
    conn.fwd(0) |
    ((flags & LbConnFlag.CONN_NOOUTPUT) === 0 ? 0 : connFlags.NO_OUTPUT) |
    ((flags & LbConnFlag.CONN_INACTIVE) === 0 ? 0 : connFlags.INACTIVE)
  )
}

/** Writes what a record tells, of a connection to `server` (its id), as entry `i` of a batch. */
export function putRecord(batch: LbSyncConnArray, i: number, record: SyncRecord, server: number): void {
  const template = (record.flags & connFlags.TEMPLATE) !== 0
  batch.clear(i)
  batch.setCaddr(i, record.client)
  batch.setVaddr(i, record.virtual)
  batch.setCport(i, record.clientPort)
  batch.setVport(i, record.virtualPort)
  batch.setDport(i, record.serverPort)
  batch.setProto(i, record.protocol | (template ? LbTemplate.TEMPLATE : 0))
  batch.setAf(i, record.family)
  batch.setServer(i, server)
  batch.setTimeout(i, Math.min(record.timeoutS, LONGEST_S))
  batch.setState(i, template ? LbState.TCP_NONE : (firstState.get(record.protocol) ?? 0) + record.state)
  const flag = template ? LbConnFlag.CONN_ASSURED : LbConnFlag.CONN_INACTIVE
  const set = template ? record.state === ASSURED : (record.flags & connFlags.INACTIVE) !== 0
  batch.setFlags(i, set ? flag : 0)
}
