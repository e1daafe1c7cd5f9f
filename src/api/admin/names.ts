/**
 * Names in URLs. Services: `tcp-10.0.0.1-80`, `udp-fd00::1-53`, `fwmark4-7`; servers: `10.0.0.2-8080`; connections:
 * `tcp-10.1.0.1-1000-10.0.0.1-80`, templates the same with `template-` before. Pure.
 */
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../../model/address.ts'
import { LbError } from '../../model/errors.ts'
import type { ConnectionKey, ConnectionProtocol, Family, Protocol, ServerKey, ServiceKey } from '../../model/types.ts'

const greatestPort = 65535
const greatestMark = 0xffffffff

export function formatServiceName(key: ServiceKey): string {
  return key.kind === 'fwmark' ? `fwmark${key.family}-${key.mark}` : `${key.protocol}-${key.address}-${key.port}`
}

/** NO_SERVICE: no service can have this name. */
export function parseServiceName(text: string): ServiceKey {
  const byMark = /^fwmark([46])-(\d{1,10})$/.exec(text)
  if (byMark !== null) {
    const mark = Number(byMark[2])
    if (mark < 1 || mark > greatestMark) throw new LbError('NO_SERVICE')
    return { kind: 'fwmark', family: byMark[1] === '6' ? 6 : 4, mark }
  }
  const [, protocol, rest = ''] = /^(tcp|udp|sctp)-(.*)$/.exec(text) ?? []
  const endpoint = parseEndpoint(rest)
  if (protocol === undefined || endpoint === undefined) throw new LbError('NO_SERVICE')
  return { kind: 'address', protocol: protocol as Protocol, ...endpoint }
}

export function formatServerName({ address, port }: ServerKey): string {
  return `${address}-${port}`
}

/** NO_SERVER: no server can have this name. */
export function parseServerName(text: string): ServerKey {
  const endpoint = parseEndpoint(text)
  if (endpoint === undefined) throw new LbError('NO_SERVER')
  return endpoint
}

export function formatConnectionName({ protocol, client, virtual, template }: ConnectionKey): string {
  const kind = template === true ? 'template-' : ''
  return `${kind}${protocol}-${client.address}-${client.port}-${virtual.address}-${virtual.port}`
}

/** NO_CONNECTION: no connection can have this name. */
export function parseConnectionName(text: string): ConnectionKey {
  const name = /^(template-)?(tcp|udp|sctp|ip)-([^-]*-\d{1,5})-([^-]*-\d{1,5})$/.exec(text)
  const client = parseEndpoint(name?.[3] ?? '')
  const virtual = parseEndpoint(name?.[4] ?? '')
  if (client === undefined || virtual?.family !== client.family) throw new LbError('NO_CONNECTION')
  const protocol = name?.[2] as ConnectionProtocol
  const ends = { client: withoutFamily(client), virtual: withoutFamily(virtual) }
  return { family: client.family, protocol, ...ends, ...(name?.[1] === undefined ? {} : { template: true }) }
}

function withoutFamily({ address, port }: ServerKey): ConnectionKey['client'] {
  return { address, port }
}

/** The family of an address, and its canonical text; undefined: it is none. */
export function readAddress(text: string): { readonly family: Family; readonly address: string } | undefined {
  const family = text.includes(':') ? 6 : 4
  const bytes = new Uint8Array(ADDRESS_BYTES)
  return writeAddress(bytes, 0, text, family) ? { family, address: formatAddress(bytes, 0, family) } : undefined
}

function parseEndpoint(text: string): ServerKey | undefined {
  const [, address = '', digits = ''] = /^(.*)-(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  const read = readAddress(address)
  return read === undefined || port > greatestPort ? undefined : { ...read, port }
}
