/** The files /proc/net/ip_vs* as the kernel's IPVS writes them (ip_vs_ctl.c, ip_vs_conn.c, ip_vs_app.c). Pure. */
import type { Counters, Family, Rates, ServerView } from '../model/types.ts'
import { addressWords } from './address.ts'
import type { ListedConnection } from './format-connections.ts'
import type { ListedService } from './format-listing.ts'

/** Names of the files. */
export const procFiles = [
  'ip_vs',
  'ip_vs_app',
  'ip_vs_conn',
  'ip_vs_conn_sync',
  'ip_vs_stats',
  'ip_vs_stats_percpu',
] as const
export type ProcFile = (typeof procFiles)[number]

const methodNames = { masq: 'Masq', tunnel: 'Tunnel', droute: 'Route' } as const

/** Services in the order given. `hz`: the kernel's, as it writes persistence in jiffies. */
export function formatProcServices(services: Iterable<ListedService>, hz: number): string {
  let text =
    'IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n' +
    '  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n'
  for (const service of services) {
    text += `${serviceLine(service, hz)}\n`
    for (const server of service.servers) text += `${serverLine(server)}\n`
  }
  return text
}

/** An IPv6 service does not tell of one-packet scheduling, and in one by address a blank is missing. */
function serviceLine(service: ListedService, hz: number): string {
  const { key, scheduler } = service
  const ops = service.onePacket ? 'ops ' : ''
  const start =
    key.kind === 'fwmark'
      ? `FWM  ${hex(key.mark, 8)} ${scheduler} ${ops}`
      : `${key.protocol.toUpperCase()}  ${endpoint(key)} ${scheduler} ${key.family === 4 ? `${ops} ` : ''}`
  if (service.persistence === undefined) return start
  const { timeoutS, mask } = service.persistence
  return `${start}persistent ${timeoutS * hz} ${typeof mask === 'number' ? prefixWord(mask) : addressHex(4, mask)}`
}

/** The length of an IPv6 mask, which the kernel takes for a word in network order. */
function prefixWord(length: number): string {
  return `${hex(length, 2)}000000`
}

function serverLine(server: ServerView): string {
  const { method, weight, active, inactive } = server
  const counts = `${String(active).padEnd(10)} ${String(inactive).padEnd(10)}`
  return `  -> ${endpoint(server)}      ${methodNames[method].padEnd(7)} ${String(weight).padEnd(6)} ${counts}`
}

/** Entries in the order given; `origins`: with where they come from, as in ip_vs_conn_sync. */
export function* formatProcConnections(
  connections: Iterable<ListedConnection>,
  { origins }: { readonly origins: boolean },
): Generator<string> {
  yield `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       ${origins ? 'Origin Expires' : 'Expires PEName PEData'}\n`
  for (const { family, protocol, state, expiresS, client, virtual, server, engine, synced } of connections) {
    const ends = [
      `${addressHex(family, client.address)} ${hex(client.port, 4)}`,
      `${addressHex(family, virtual.address)} ${hex(virtual.port, 4)}`,
      `${addressHex(server.family, server.address)} ${hex(server.port, 4)}`,
    ].join(' ')
    const origin = origins ? ` ${synced === true ? 'SYNC' : 'LOCAL'}`.padEnd(7) : ''
    const data = origins || engine === undefined ? '' : ` ${engine.name} ${engine.data}`
    const left = String(expiresS).padStart(7)
    yield `${protocol.toUpperCase().padEnd(3)} ${ends} ${state.padEnd(11)}${origin} ${left}${data}\n`
  }
}

const statsHeads = [
  '   Total Incoming Outgoing         Incoming         Outgoing',
  '   Conns  Packets  Packets            Bytes            Bytes',
] as const
const ratesHead = ' Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s'

export function formatProcStats(counters: Counters, rates: Rates): string {
  return [...statsHeads, numbers(counters), '', ratesHead, numbers(rates), ''].join('\n')
}

/** `cpus`: what each counted. */
export function formatProcCpuStats(cpus: readonly Counters[], counters: Counters, rates: Rates): string {
  const rows = cpus.map((each, cpu) => `${cpu.toString(16).toUpperCase().padStart(3)} ${numbers(each)}`)
  const [first, second] = statsHeads
  const heads = [`    ${first}`, `CPU ${second}`]
  return [...heads, ...rows, `  ~ ${numbers(counters)}`, '', `    ${ratesHead}`, `    ${numbers(rates)}`, ''].join('\n')
}

/** There are no application helpers. */
export const procApplications = 'prot port    usecnt name\n'

function numbers({ conns, inPkts, outPkts, inBytes, outBytes }: Counters): string {
  const short = [conns, inPkts, outPkts].map((value) => hex(value, 0).padStart(8))
  return [...short, hex(inBytes, 0).padStart(16), hex(outBytes, 0).padStart(16)].join(' ')
}

function endpoint({ family, address, port }: { family: Family; address: string; port: number }): string {
  const host = addressHex(family, address)
  return `${family === 6 ? `[${host}]` : host}:${hex(port, 4)}`
}

/** An IPv4 address as eight digits, an IPv6 one in eight groups of four, small letters. */
function addressHex(family: Family, address: string): string {
  const words = addressWords({ family, address }).map((word) => hex(word, 8))
  if (family === 4) return words.join('')
  return words.map((word) => `${word.slice(0, 4)}:${word.slice(4)}`.toLowerCase()).join(':')
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).toUpperCase().padStart(digits, '0')
}
