/** Address and port as text: numbers, or the names that the host knows. */
import type { ConnectionProtocol, Family, ServiceKey } from '../model/types.ts'

/** A protocol whose ports may have names. */
export type NamedProtocol = ConnectionProtocol

/** What names the host has. Asked for every address and port of an output, so it answers from memory. */
export interface NameLookup {
  host(address: string): string | undefined
  port(port: number, protocol: NamedProtocol): string | undefined
}

/** No names: what `-n` asks for. */
export const numericNames: NameLookup = { host: () => undefined, port: () => undefined }

/** ipvsadm composes the text in a buffer of 60 bytes, so a longer one loses its end, port and all. */
const longestEndpoint = 59

/** `address:port` or `[address]:port`, cut at 59 characters as ipvsadm does. `family`: of the address. */
export function formatEndpoint(
  { address, port }: { readonly address: string; readonly port: number },
  family: Family,
  protocol: NamedProtocol,
  names: NameLookup,
): string {
  const host = names.host(address) ?? address
  const text = `${family === 6 ? `[${host}]` : host}:${names.port(port, protocol) ?? port}`
  return text.length > longestEndpoint ? text.slice(0, longestEndpoint) : text
}

/** The protocol in which ports of a service's servers are named. */
export function portProtocol(key: ServiceKey): NamedProtocol {
  return key.kind === 'address' ? key.protocol : 'ip'
}

/** A persistence mask that tells every client address apart: neither listed nor saved. */
export function isFullMask(mask: string | number): boolean {
  return mask === 128 || mask === '255.255.255.255'
}
