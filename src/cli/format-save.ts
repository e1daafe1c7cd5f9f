/** The table as command lines that `-R` takes: what `-S` prints. Pure. */
import type { ServerView, ServiceKey } from '../model/types.ts'
import type { ListedService } from './format-listing.ts'
import { formatEndpoint, isFullMask, numericNames, portProtocol, type NameLookup } from './format-name.ts'
import { formatSchedulerFlags } from './scheduler-flags.ts'
import { sortedServers, sortServices } from './sort.ts'

const methodOptions = { masq: '-m', tunnel: '-i', droute: '-g' } as const
const checksumOptions = { none: '--tun-nocsum', csum: '--tun-csum', remcsum: '--tun-remcsum' } as const
const protocolOptions = { tcp: '-t', udp: '-u', sctp: '--sctp-service' } as const

/** The option and its argument that name a service: `-t 10.9.0.1:80`, `-f 7 -6`. */
export function serviceArguments(key: ServiceKey, names: NameLookup = numericNames): string {
  if (key.kind === 'fwmark') return `-f ${key.mark}${key.family === 6 ? ' -6' : ''}`
  return `${protocolOptions[key.protocol]} ${formatEndpoint(key, key.family, key.protocol, names)}`
}

/** All lines, each ended by a newline; services and servers in the listing's order. */
export function formatSave(services: readonly ListedService[], names: NameLookup = numericNames): string {
  return sortServices(services)
    .flatMap((service) => saveService(service, names))
    .join('')
}

function saveService(service: ListedService, names: NameLookup): string[] {
  const where = serviceArguments(service.key, names)
  return [
    `-A ${where} -s ${service.scheduler}${serviceOptions(service)}\n`,
    ...sortedServers(service.servers).map((server) => `-a ${where} -r ${saveServer(service.key, server, names)}\n`),
  ]
}

/** Thresholds are not saved, as ipvsadm does not save them. */
function saveServer(key: ServiceKey, server: ServerView, names: NameLookup): string {
  const words = [
    formatEndpoint(server, server.family, portProtocol(key), names),
    methodOptions[server.method],
    '-w',
    String(server.weight),
  ]
  if (server.method === 'tunnel') {
    const tunnel = server.tunnel ?? ({ type: 'ipip', port: 0, checksum: 'none' } as const)
    words.push('--tun-type', tunnel.type)
    if (tunnel.type === 'gue') words.push('--tun-port', String(tunnel.port))
    if (tunnel.type !== 'ipip') words.push(checksumOptions[tunnel.checksum])
  }
  return words.join(' ')
}

function serviceOptions(service: ListedService): string {
  const words: string[] = []
  const { persistence } = service
  if (persistence !== undefined) {
    words.push('-p', String(persistence.timeoutS))
    if (!isFullMask(persistence.mask)) words.push('-M', String(persistence.mask))
  }
  if (service.engine !== undefined) words.push('--pe', service.engine)
  if (service.onePacket) words.push('-o')
  if (service.schedulerFlags.length > 0)
    words.push('-b', formatSchedulerFlags(service.scheduler, service.schedulerFlags))
  return words.map((word) => ` ${word}`).join('')
}
