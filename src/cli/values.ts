/** Readers of option arguments, with ipvsadm's idea of what is a number and an address. Pure. */
import type { Family, Protocol } from '../model/types.ts'
import { formatIPv6, parseIPv6, parseLooseIPv4 } from './address.ts'

/** Names in arguments. */
export interface NameSource {
  /** IPv4 address of a host name (IPv6 names are not looked up, as in ipvsadm). */
  address(name: string): string | undefined
  portNumber(name: string, protocol: Protocol): number | undefined
}

/** A `host[:port]` argument; no port when none was given. */
export interface Endpoint {
  readonly family: Family
  readonly address: string
  readonly port?: number
}

const digitLimit = 20

/** A decimal number as strtol reads it (leading blanks and a sign are fine), within min and max; else undefined. */
export function readNumber(text: string, min: number, max: number): number | undefined {
  const match = /^[ \t-\r]*([+-]?)0*([0-9]+)$/.exec(text)
  if (match === null || (match[2] ?? '').length > digitLimit) return undefined
  const number = Number(`${match[1] ?? ''}${match[2] ?? ''}`)
  return number >= min && number <= max ? number : undefined
}

/** The number that a text begins with, as atoi reads it (32 bits of it); 0 when it begins with none. */
export function readLeadingNumber(text: string): number {
  const match = /^[ \t-\r]*([+-]?)([0-9]+)/.exec(text)
  const number = Number(BigInt.asIntN(32, BigInt(match?.[2] ?? 0)))
  return match?.[1] === '-' ? -number : number
}

/**
 * Reads `host:port`, `host`, `[address]:port` or a bare IPv6 address. A bracketed IPv4 address is taken, but its port
 * is not; digits alone are no host. Undefined when the argument makes no sense.
 */
export function readEndpoint(text: string, protocol: Protocol | undefined, names: NameSource): Endpoint | undefined {
  if (/^[0-9]*$/.test(text)) return undefined
  const bracketed = /^\[([^\]]*)\]:(.*)$/s.exec(text)
  if (text.startsWith('[') && bracketed === null) return undefined
  const inner = bracketed?.[1] ?? text
  const bytes = parseIPv6(inner)
  if (bytes !== undefined) return withPort({ family: 6, address: formatIPv6(bytes) }, bracketed?.[2], protocol, names)
  const colon = inner.lastIndexOf(':')
  const host = colon < 0 ? inner : inner.slice(0, colon)
  const address = parseLooseIPv4(host) ?? names.address(host)
  if (address === undefined) return undefined
  return withPort({ family: 4, address }, colon < 0 ? undefined : inner.slice(colon + 1), protocol, names)
}

function withPort(
  host: { family: Family; address: string },
  text: string | undefined,
  protocol: Protocol | undefined,
  names: NameSource,
): Endpoint | undefined {
  if (text === undefined) return host
  const port = readNumber(text, 0, 65535) ?? (protocol === undefined ? undefined : names.portNumber(text, protocol))
  return port === undefined ? undefined : { ...host, port }
}
