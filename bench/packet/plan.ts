/** What the programs of the bench send (struct bench_plan), and the same flows as the floors' maps hold them. */
import { littleEndian } from '../../src/abi/codec.ts'
import type { Family } from '../../src/model/types.ts'
import { parseAddress } from '../../src/native/ip.ts'
import type { StructLayout } from '../../src/native/layout.ts'

/** enum bench_shape */
export const shapes = { request: 0, reply: 1, foreign: 2 } as const

/** TCP flags by what a packet is. */
export const tcpFlags = { syn: 2, ack: 16 } as const

/** IPPROTO_TCP */
const TCP = 6
/** Bytes of a packet: Ethernet, the larger IP header, TCP, and some payload. */
export const PACKET = 94

/** Ports of one client address, as flow_ends() deals them. */
const PORTS = 16384
/** Of each client address. */
export const FIRST_PORT = 1024

/** Flow n: the n-th client endpoint to the n-th service, both going round. */
export interface Flows {
  readonly family: Family
  /** The first client address. */
  readonly client: string
  /** The first service's address, and the port of all. */
  readonly vaddr: string
  readonly vport: number
  /** The server that replies come from. */
  readonly server: string
  readonly sport: number
  /** How many flows to go round; they begin with the second. */
  readonly flows: number
  /** Services that the requests go round. */
  readonly over: number
}

/** A plan: flows, and what of them is sent. */
export interface Plan extends Flows {
  readonly shape: keyof typeof shapes
  readonly flags: keyof typeof tcpFlags
  /** The host itself sends it. */
  readonly own?: boolean
}

function wide(address: string): Uint8Array {
  const bytes = new Uint8Array(16)
  bytes.set(parseAddress(address).bytes)
  return bytes
}

/** The bytes of struct bench_plan, from its layout. */
export function encodePlan(layout: StructLayout, plan: Plan): Uint8Array {
  const bytes = new Uint8Array(layout.size)
  const view = new DataView(bytes.buffer)
  const at = (name: string): number => {
    const field = layout.fields.find((one) => one.name === name)
    if (field === undefined) throw new RangeError(`struct bench_plan has no field ${name}`)
    return field.offset
  }
  bytes.set(wide(plan.vaddr), at('vaddr'))
  bytes.set(wide(plan.server), at('server'))
  bytes.set(wide(plan.client), at('client'))
  view.setUint16(at('vport'), plan.vport)
  view.setUint16(at('sport'), plan.sport)
  view.setUint16(at('shape'), shapes[plan.shape], littleEndian)
  view.setUint8(at('proto'), TCP)
  view.setUint8(at('tcp_flags'), tcpFlags[plan.flags])
  view.setUint32(at('flows'), plan.flows, littleEndian)
  view.setUint32(at('services'), plan.over, littleEndian)
  view.setUint32(at('length'), PACKET, littleEndian)
  return bytes
}

/** What the last run did, as the program returned it. */
export function decodeAction(layout: StructLayout, bytes: Uint8Array): number {
  const field = layout.fields.find(({ name }) => name === 'action')
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(field?.offset ?? 0, littleEndian)
}

/** Bytes of struct floor_key4 or floor_key6, and of struct floor_value. */
export function floorKeySize(family: Family): number {
  return family === 4 ? 16 : 40
}
export const FLOOR_VALUE = 48

/** Writes an address plus `n` (in its last word). */
function putAddress(view: DataView, at: number, address: Uint8Array, family: Family, n: number): void {
  const size = family === 4 ? 4 : 16
  for (let i = 0; i < size; i++) view.setUint8(at + i, address[i] ?? 0)
  view.setUint32(at + size - 4, (view.getUint32(at + size - 4) + n) >>> 0)
}

/** Keys of the flows first <= n < end, packed. */
export function floorKeys(flows: Flows, first: number, end: number): Uint8Array {
  const { family } = flows
  const size = floorKeySize(family)
  const width = family === 4 ? 4 : 16
  const bytes = new Uint8Array((end - first) * size)
  const view = new DataView(bytes.buffer)
  const client = wide(flows.client)
  const vaddr = wide(flows.vaddr)
  for (let n = first; n < end; n++) {
    const at = (n - first) * size
    putAddress(view, at, client, family, Math.floor(n / PORTS))
    putAddress(view, at + width, vaddr, family, n % flows.over)
    view.setUint16(at + 2 * width, FIRST_PORT + (n % PORTS))
    view.setUint16(at + 2 * width + 2, flows.vport)
    view.setUint32(at + 2 * width + 4, TCP, littleEndian)
  }
  return bytes
}

/** Values of the same flows: the number of the server, from 1. */
export function floorConnections(flows: Flows, first: number, end: number): Uint8Array {
  const bytes = new Uint8Array((end - first) * FLOOR_VALUE)
  const view = new DataView(bytes.buffer)
  for (let n = first; n < end; n++) view.setUint32((n - first) * FLOOR_VALUE, 1 + (n % flows.over), littleEndian)
  return bytes
}

/** Keys and values of servers 1 to `count`: all have the address and port of the first. */
export function floorServers(flows: Flows, count: number): { readonly keys: Uint8Array; readonly values: Uint8Array } {
  const size = floorKeySize(flows.family)
  const width = flows.family === 4 ? 4 : 16
  const keys = new Uint8Array(count * size)
  const values = new Uint8Array(count * FLOOR_VALUE)
  const server = wide(flows.server)
  for (let n = 0; n < count; n++) {
    new DataView(keys.buffer).setUint32(n * size + width, n + 1, littleEndian)
    values.set(server, n * FLOOR_VALUE)
    new DataView(values.buffer).setUint16(n * FLOOR_VALUE + 16, flows.sport)
  }
  return { keys, values }
}
