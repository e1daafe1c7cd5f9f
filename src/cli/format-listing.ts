/** Services and servers as `-L` prints them. Pure. Column widths and blanks at line ends are ipvsadm's. */
import type { Counters, Rates, ServerView, ServiceKey, ServiceView } from '../model/types.ts'
import { formatEndpoint, isFullMask, numericNames, portProtocol, type NameLookup } from './format-name.ts'
import { formatSchedulerFlags } from './scheduler-flags.ts'
import { sortedServers, sortServices } from './sort.ts'

/** A service as the listing shows it; what is absent the table does not have. */
export interface ListedService extends ServiceView {
  /** Persistence engine. */
  readonly engine?: string
}

/** Which columns: what ipvsadm takes of several such options is the first of this list. */
export const listingColumns = ['stats', 'rate', 'thresholds', 'persistent-conn', 'tun-info'] as const
export type ListingColumns = (typeof listingColumns)[number] | 'plain'

export interface ListingStyle {
  readonly columns: ListingColumns
  /** Whole numbers, however long. */
  readonly exact: boolean
  /** By address and port; else in the table's own order. */
  readonly sorted: boolean
  /** Also servers that clients in pods and on the host itself get instead. */
  readonly insiders?: boolean
  readonly names?: NameLookup
}

/**
 * The first line of a listing: the kernel's IPVS, its version, and the size of its connection hash by default. It is the
 * same whatever the size of bpvs's connection table, because scripts compare it and bpvs has no chains to grow long.
 */
const title = 'IP Virtual Server version 1.2.1 (size=4096)\n'

const headers: Readonly<Record<ListingColumns, string>> = {
  plain:
    'Prot LocalAddress:Port Scheduler Flags\n' +
    '  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n',
  'tun-info':
    'Prot LocalAddress:Port Scheduler Flags\n' +
    '  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n',
  thresholds:
    'Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n' + '  -> RemoteAddress:Port\n',
  'persistent-conn':
    'Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n' + '  -> RemoteAddress:Port\n',
  stats:
    'Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n' + '  -> RemoteAddress:Port\n',
  rate:
    'Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n' + '  -> RemoteAddress:Port\n',
}

const methodNames = { masq: 'Masq', tunnel: 'Tunnel', droute: 'Route' } as const
const checksumMarks = { none: '-c', csum: '+c', remcsum: 'r+c' } as const

/** The whole table, of services that come one after the other: nothing of them is kept but their lines. */
export class TableListing {
  readonly #style: ListingStyle
  readonly #blocks: { readonly key: ServiceKey; readonly text: string }[] = []

  constructor(style: ListingStyle) {
    this.#style = style
  }

  add(service: ListedService): void {
    this.#blocks.push({ key: service.key, text: formatServiceBlock(service, this.#style) })
  }

  /** The text, in pieces. */
  *pieces(): Generator<string> {
    yield title + headers[this.#style.columns]
    for (const { text } of this.#style.sorted ? sortServices(this.#blocks) : this.#blocks) yield text
  }
}

export function formatTable(services: readonly ListedService[], style: ListingStyle): string {
  const listing = new TableListing(style)
  for (const service of services) listing.add(service)
  return [...listing.pieces()].join('')
}

/** One service, without the first line. */
export function formatService(service: ListedService, style: ListingStyle): string {
  return headers[style.columns] + formatServiceBlock(service, style)
}

function formatServiceBlock(service: ListedService, style: ListingStyle): string {
  const names = style.names ?? numericNames
  const lines = (servers: readonly ServerView[], arrow: '->' | '=>'): string =>
    (style.sorted ? sortedServers(servers) : servers)
      .map((server) => `${serverLine(service, server, style, names, arrow)}\n`)
      .join('')
  const insiders = style.insiders === true ? lines(service.insiders ?? [], '=>') : ''
  return `${serviceLine(service, style, names)}\n${lines(service.servers, '->')}${insiders}`
}

function serviceLine(service: ListedService, style: ListingStyle, names: NameLookup): string {
  const name = serviceName(service.key, names)
  if (style.columns === 'stats') return name.padEnd(33) + numbers(service.counters, style.exact)
  if (style.columns === 'rate') return name.padEnd(33) + numbers(service.rates, style.exact)
  const words = [name, service.scheduler]
  if (service.schedulerFlags.length > 0)
    words.push(`(${formatSchedulerFlags(service.scheduler, service.schedulerFlags)})`)
  if (service.persistence !== undefined) {
    words.push(`persistent ${service.persistence.timeoutS}`)
    if (!isFullMask(service.persistence.mask)) words.push(`mask ${service.persistence.mask}`)
  }
  if (service.engine !== undefined) words.push(`pe ${service.engine}`)
  if (service.onePacket) words.push('ops')
  return words.join(' ')
}

/** A mark is printed as a signed number, as ipvsadm does. */
function serviceName(key: ServiceKey, names: NameLookup): string {
  if (key.kind === 'fwmark') return `FWM  ${key.mark | 0}${key.family === 6 ? ' IPv6' : ''}`
  return `${key.protocol.toUpperCase().padEnd(4)} ${formatEndpoint(key, key.family, key.protocol, names)}`
}

function serverLine(
  service: ListedService,
  server: ServerView,
  style: ListingStyle,
  names: NameLookup,
  arrow: '->' | '=>',
): string {
  const start = `  ${arrow} ${serverName(service.key, server, names).padEnd(28)}`
  const counts = `${column(server.active, 10)} ${column(server.inactive, 10)}`
  switch (style.columns) {
    case 'stats':
      return start + numbers(server.counters, style.exact)
    case 'rate':
      return start + numbers(server.rates, style.exact)
    case 'thresholds':
      return `${start} ${column(server.upper, 10)} ${column(server.lower, 10)} ${counts}`
    case 'persistent-conn':
      return `${start} ${column(server.weight, 9)} ${column(server.persistent, 11)} ${counts}`
    case 'tun-info':
      return `${start} ${methodNames[server.method].padEnd(7)} ${tunnelInfo(server).padEnd(13)} ${column(server.weight, 6)} ${counts}`
    case 'plain':
      return `${start} ${methodNames[server.method].padEnd(7)} ${column(server.weight, 6)} ${counts}`
  }
}

/** An IPv4 server's name is cut at its column's width, an IPv6 one's is not. */
function serverName(key: ServiceKey, server: ServerView, names: NameLookup): string {
  const name = formatEndpoint(server, server.family, portProtocol(key), names)
  return server.family === 4 ? name.slice(0, 28) : name
}

function tunnelInfo(server: ServerView): string {
  if (server.method !== 'tunnel') return 'n/a'
  const tunnel = server.tunnel ?? ({ type: 'ipip', port: 0, checksum: 'none' } as const)
  if (tunnel.type === 'ipip') return 'ipip'
  return `${tunnel.type}${tunnel.type === 'gue' ? `:${tunnel.port}` : ''}:${checksumMarks[tunnel.checksum]}`
}

/** Columns of small numbers, by width: a long listing has hardly any other. */
const columns: string[][] = []

function column(value: number, width: number): string {
  const known = (columns[width] ??= [])
  if (value < 0 || value > 255) return String(value).padEnd(width)
  return (known[value] ??= String(value).padEnd(width))
}

function numbers(values: Counters | Rates, exact: boolean): string {
  const row = [values.conns, values.inPkts, values.outPkts, values.inBytes, values.outBytes]
  return row.map((value) => ` ${(exact ? String(value) : formatLargeNumber(value)).padStart(8)}`).join('')
}

/** A counter in at most eight characters, cut to thousands, millions (decimal) and so on. */
export function formatLargeNumber(value: bigint): string {
  if (value < 100_000_000n) return String(value)
  if (value < 1_000_000_000n) return `${value / 1_000n}K`
  if (value < 100_000_000_000n) return `${value / 1_000_000n}M`
  if (value < 100_000_000_000_000n) return `${value / 1_000_000_000n}G`
  return `${value / 1_000_000_000_000n}T`
}
