/**
 * Names of services and servers: the bytes that tell one from another, as they stand at the start of its record, one
 * character a byte. They compare as strings, serve as keys of a Map, and are written back without another conversion.
 */
import { Buffer } from 'node:buffer'
import { LbServerArray, LbServiceArray } from '../abi/generated.ts'
import { littleEndian } from '../abi/codec.ts'
import { ENDPOINT_SIZE } from '../native/endpoints.ts'
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Family, Protocol, ServerKey, ServiceKey } from '../model/types.ts'

/** Address 16, port 2, protocol 1, family 1, mark 4. */
export type ServiceName = string
/** Address 16, port 2, family 1. */
export type ServerName = string

export const SERVICE_NAME_BYTES = LbServiceArray.at.fwmark + 4
export const SERVER_NAME_BYTES = LbServerArray.at.af + 1

const PORT = LbServiceArray.at.vport
const PROTOCOL = LbServiceArray.at.proto
const SERVICE_FAMILY = LbServiceArray.at.af
const SERVER_FAMILY = LbServerArray.at.af
const MARK = LbServiceArray.at.fwmark
const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const
/** The port of FTP's control connections. */
export const FTP_PORT = 21
const scratch = Buffer.alloc(SERVICE_NAME_BYTES)

/** INVALID if the address, port or mark is none. */
export function serviceName(key: ServiceKey): ServiceName {
  clearScratch()
  scratch[SERVICE_FAMILY] = key.family
  if (key.kind === 'fwmark') {
    if (!Number.isInteger(key.mark) || key.mark < 1 || key.mark > 0xffffffff) {
      throw new LbError('INVALID', undefined, { what: 'firewall mark', value: key.mark })
    }
    if (littleEndian) scratch.writeUInt32LE(key.mark, MARK)
    else scratch.writeUInt32BE(key.mark, MARK)
  } else {
    putEndpoint(key)
    scratch[PROTOCOL] = protocolNumbers[key.protocol]
  }
  return scratch.toString('latin1')
}

/** A loop: a call of fill() takes longer than so few bytes. */
function clearScratch(): void {
  for (let i = 0; i < SERVICE_NAME_BYTES; i++) scratch[i] = 0
}

/** INVALID if the address or port is none. */
export function serverName(key: ServerKey): ServerName {
  clearScratch()
  putEndpoint(key)
  scratch[SERVER_FAMILY] = key.family
  return scratch.toString('latin1', 0, SERVER_NAME_BYTES)
}

/** The name of a service by address, from bytes as in lb_addr. */
export function addressName(family: Family, protocol: number, address: Uint8Array, port: number): ServiceName {
  scratch.fill(0)
  scratch.set(address)
  scratch.writeUInt16BE(port, PORT)
  scratch[PROTOCOL] = protocol
  scratch[SERVICE_FAMILY] = family
  return scratch.toString('latin1')
}

/** The name of a service by a firewall mark other than 0. */
export function markName(family: Family, mark: number): ServiceName {
  return serviceName({ kind: 'fwmark', family, mark })
}

/** The name of a server, from bytes as in lb_addr. */
export function endpointName(family: Family, address: Uint8Array, port: number): ServerName {
  scratch.fill(0)
  scratch.set(address)
  scratch.writeUInt16BE(port, PORT)
  scratch[SERVER_FAMILY] = family
  return scratch.toString('latin1', 0, SERVER_NAME_BYTES)
}

function putEndpoint(key: { readonly family: Family; readonly address: string; readonly port: number }): void {
  if (!writeAddress(scratch, 0, key.address, key.family)) {
    throw new LbError('INVALID', undefined, { what: `IPv${key.family} address`, value: key.address })
  }
  if (!Number.isInteger(key.port) || key.port < 0 || key.port > 65535) {
    throw new LbError('INVALID', undefined, { what: 'port', value: key.port })
  }
  scratch[PORT] = key.port >> 8
  scratch[PORT + 1] = key.port
}

/** IPPROTO_*; 0 of a firewall mark's service. */
export function serviceProtocol(name: ServiceName): number {
  return name.charCodeAt(PROTOCOL)
}

export function serviceFamily(name: ServiceName): Family {
  return name.charCodeAt(SERVICE_FAMILY) === 4 ? 4 : 6
}

export function serverFamily(name: ServerName): Family {
  return name.charCodeAt(SERVER_FAMILY) === 4 ? 4 : 6
}

/** 4 or 16 bytes, by family. */
export function serverAddress(name: ServerName): Uint8Array {
  return Buffer.from(name.slice(0, serverFamily(name) === 4 ? 4 : ADDRESS_BYTES), 'latin1')
}

export function namedPort(name: ServiceName | ServerName): number {
  return (name.charCodeAt(PORT) << 8) | name.charCodeAt(PORT + 1)
}

/** The same server, or service, under port 0. */
export function withoutPort(name: ServerName | ServiceName): string {
  return `${name.slice(0, PORT)}\0\0${name.slice(PORT + 2)}`
}

/** Whether the service also takes the data connections of FTP, which come to other ports. */
export function servesFtp(name: ServiceName): boolean {
  return serviceProtocol(name) === protocolNumbers.tcp && namedPort(name) === FTP_PORT && namedMark(name) === 0
}

/** 0 of a service by address. */
export function namedMark(name: ServiceName): number {
  let mark = 0
  for (let i = 0; i < 4; i++) mark = mark * 256 + name.charCodeAt(littleEndian ? MARK + 3 - i : MARK + i)
  return mark
}

/** The name of the VIP record (see vips.ts) of a service's address; undefined of a firewall mark's service. */
export function vipName(name: ServiceName): ServiceName | undefined {
  if (namedMark(name) !== 0) return undefined
  return `${name.slice(0, ADDRESS_BYTES)}\0\0\0${name.charAt(SERVICE_FAMILY)}\0\0\0\0`
}

export function serviceKey(name: ServiceName): ServiceKey {
  const family = serviceFamily(name)
  const mark = namedMark(name)
  if (mark !== 0) return { kind: 'fwmark', family, mark }
  scratch.write(name, 0, 'latin1')
  const protocol = protocolOf(serviceProtocol(name))
  return { kind: 'address', family, protocol, address: formatAddress(scratch, 0, family), port: namedPort(name) }
}

/** The key whose name stands at `at`. */
export function readServerKey(bytes: Uint8Array, at: number): ServerKey {
  const family = bytes[at + SERVER_FAMILY] === 4 ? 4 : 6
  const port = ((bytes[at + PORT] ?? 0) << 8) | (bytes[at + PORT + 1] ?? 0)
  return { family, address: formatAddress(bytes, at, family), port }
}

/** IPPROTO_* of a protocol. */
export function protocolNumber(protocol: Protocol): number {
  return protocolNumbers[protocol]
}

/** The name of an IPPROTO_* that a service can have. */
export function protocolOf(number: number): Protocol {
  if (number === protocolNumbers.tcp) return 'tcp'
  return number === protocolNumbers.udp ? 'udp' : 'sctp'
}

/** Packs what a service's hash is of (see endpoints.ts): a mark stands as the address's first word. */
export function packService(target: Uint8Array, index: number, name: ServiceName): void {
  const at = index * ENDPOINT_SIZE
  for (let i = 0; i < ENDPOINT_SIZE; i++) target[at + i] = name.charCodeAt(i)
  if (namedMark(name) === 0) return
  for (let i = 0; i < 4; i++) target[at + i] = name.charCodeAt(MARK + i)
}

/** Packs what a server's hash is of, for packets of `protocol`. */
export function packServer(target: Uint8Array, index: number, name: ServerName, protocol: number): void {
  const at = index * ENDPOINT_SIZE
  for (let i = 0; i < ADDRESS_BYTES + 2; i++) target[at + i] = name.charCodeAt(i)
  target[at + ADDRESS_BYTES + 2] = protocol
  target[at + ADDRESS_BYTES + 3] = serverFamily(name)
}
