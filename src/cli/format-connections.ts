/** Connection entries as `-L -c` prints them, timeouts and sync daemons. Pure. */
import type { Family, Timeouts } from '../model/types.ts'
import type { SyncDaemon } from '../sync/options.ts'
import { formatEndpoint, numericNames, type NamedProtocol, type NameLookup } from './format-name.ts'

/** What a line shows of a connection entry or a persistence template; ConnectionView is one. */
export interface ListedConnection {
  readonly family: Family
  readonly protocol: NamedProtocol
  readonly state: string
  readonly expiresS: number
  readonly client: { readonly address: string; readonly port: number }
  readonly virtual: { readonly address: string; readonly port: number }
  readonly server: { readonly family: Family; readonly address: string; readonly port: number }
  /** Another director told of it. */
  readonly synced?: boolean
  /** Persistence engine and what it keyed the template by. */
  readonly engine?: { readonly name: string; readonly data: string }
}

const columns = 'pro expire state       source             virtual            destination'

/** Characters in a piece of a listing: writing costs more than making a line. */
const pieceLength = 65536

/**
 * Entries in the order given, in pieces of many lines; with `engines` the header tells of the persistence engine's
 * columns.
 */
export function* formatConnections(
  connections: Iterable<ListedConnection>,
  engines: boolean,
  names: NameLookup = numericNames,
): Generator<string> {
  let piece = `IPVS connection entries\n${columns}${engines ? '        pe name          pe_data' : ''}\n`
  for (const connection of connections) {
    piece += connectionLine(connection, engines, names)
    if (piece.length < pieceLength) continue
    yield piece
    piece = ''
  }
  yield piece
}

function connectionLine(connection: ListedConnection, engines: boolean, names: NameLookup): string {
  const { family, protocol, engine } = connection
  const minutes = String(Math.floor(connection.expiresS / 60)).padStart(2, '0')
  const seconds = String(connection.expiresS % 60).padStart(2, '0')
  const client = formatEndpoint(connection.client, family, protocol, names)
  const virtual = formatEndpoint(connection.virtual, family, protocol, names)
  const server = formatEndpoint(connection.server, connection.server.family, protocol, names)
  const ends =
    engines && engine !== undefined ? `${server.padEnd(18)} ${engine.name.padEnd(16)} ${engine.data}` : server
  return (
    `${protocol.toUpperCase().padEnd(3)} ${minutes}:${seconds}  ${connection.state.padEnd(11)} ` +
    `${client.padEnd(18)} ${virtual.padEnd(18)} ${ends}\n`
  )
}

export function formatTimeouts(timeouts: Timeouts): string {
  return `Timeout (tcp tcpfin udp): ${timeouts.tcpS} ${timeouts.tcpFinS} ${timeouts.udpS}\n`
}

export function formatDaemons(daemons: readonly SyncDaemon[]): string {
  return daemons
    .map(
      (daemon) =>
        `${daemon.role} sync daemon (mcast=${daemon.interface}, syncid=${daemon.syncId}, ` +
        `maxlen=${daemon.maxLength}, group=${daemon.group}, port=${daemon.port}, ttl=${daemon.ttl})\n`,
    )
    .join('')
}
