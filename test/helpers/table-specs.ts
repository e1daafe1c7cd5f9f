/** Specs for tests, short to write; and what a test must know of a table in memory. */
import type { DesiredService } from '../../src/engine/table.ts'
import { readAudience } from '../../src/maps/audience.ts'
import { TableMaps } from '../../src/maps/table-maps.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type {
  Scheduler,
  ServerSpec,
  ServerView,
  ServiceKey,
  ServicePolicy,
  ServiceSpec,
} from '../../src/model/types.ts'
import { MemoryHandles } from './memory-handles.ts'
import type { MemorySizes } from './memory-handles.ts'

/** TCP service 10.9.0.<n>:80. */
export function keyOf(n: number, port = 80): ServiceKey {
  return { kind: 'address', family: 4, protocol: 'tcp', address: `10.9.${n >> 8}.${n & 255}`, port }
}

export function serviceOf(n: number, scheduler: Scheduler = 'rr'): ServiceSpec {
  return { key: keyOf(n), scheduler, schedulerFlags: [], onePacket: false }
}

/** Server 10.2.0.<n>:8080 behind NAT. */
export function serverOf(n: number, weight = 1, more: Partial<ServerSpec> = {}): ServerSpec {
  return {
    family: 4,
    address: `10.2.${n >> 8}.${n & 255}`,
    port: 8080,
    weight,
    method: 'masq',
    upper: 0,
    lower: 0,
    ...more,
  }
}

/** The number that serverOf() was given. */
export function numberOf({ address }: { readonly address: string }): number {
  const [, , high, low] = address.split('.')
  return Number(high) * 256 + Number(low)
}

export interface MemoryTable {
  readonly handles: MemoryHandles
  readonly maps: TableMaps
  readonly table: KernelTable
}

export function memoryTable(sizes: Partial<MemorySizes> = {}): MemoryTable {
  const handles = new MemoryHandles(sizes)
  return { handles, maps: new TableMaps(handles), table: new KernelTable(handles) }
}

/** Servers of service n, in list order. */
export function serversOf(table: KernelTable, n: number): readonly ServerView[] {
  return table.service(keyOf(n))?.servers ?? []
}

/** The id of server `server` of service `service`. */
export function idOf(table: KernelTable, service: number, server: number): number {
  const found = serversOf(table, service).find((view) => numberOf(view) === server)
  if (found === undefined) throw new Error(`service ${service} has no server ${server}`)
  return found.id
}

/** Numbers from a seed (mulberry32): below `limit`. */
export function seeded(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % limit
  }
}

/** A policy with only this of it. */
export function policyOf(more: Partial<ServicePolicy> = {}): ServicePolicy {
  const masquerade = { pods: false, node: false, others: false }
  return { masquerade, whenEmpty: 'refuse', nodePort: false, foreign: false, ...more }
}

/** Where clients may come from. */
export const office = { family: 4, address: '192.0.2.0', length: 24 } as const
export const lan = { family: 4, address: '10.0.0.0', length: 8 } as const

/** A service with servers by their numbers, and others for insiders. */
export function wanted(
  n: number,
  servers: readonly number[],
  insiders?: readonly number[],
  policy?: ServicePolicy,
  scheduler: 'rr' | 'wrr' | 'sh' | 'mh' = 'rr',
): DesiredService {
  return {
    service: { ...serviceOf(n, scheduler), ...(policy === undefined ? {} : { policy }) },
    servers: servers.map((server) => serverOf(server)),
    ...(insiders === undefined ? {} : { insiders: insiders.map((server) => serverOf(server)) }),
  }
}

/** Ids of a service and of the one that its list leads insiders to. */
export function idsOf({ table, maps }: MemoryTable, n: number): { head: number; insiders: number } {
  const head = table.service(keyOf(n))?.id ?? 0
  return { head, insiders: readAudience(maps.cells, maps.services.list(head))?.insiders ?? 0 }
}
