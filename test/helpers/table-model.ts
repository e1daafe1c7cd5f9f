/** Random edits of a table in memory, against a model that is nothing but arrays. */
import { checkTable } from '../../src/engine/check.ts'
import { LbError } from '../../src/model/errors.ts'
import type { ErrorCode } from '../../src/model/errors.ts'
import type { Scheduler } from '../../src/model/types.ts'
import type { MemorySizes } from './memory-handles.ts'
import { keyOf, memoryTable, numberOf, seeded, serverOf, serviceOf } from './table-specs.ts'
import type { MemoryTable } from './table-specs.ts'

interface ModelService {
  scheduler: Scheduler
  servers: { n: number; weight: number }[]
}

/** What an edit is expected to do: the model's change, or the code of the refusal. */
type Expectation = ErrorCode | (() => void)

export interface RandomEdits {
  readonly seed: number
  readonly edits: number
  readonly services: number
  readonly servers: number
  /** A table so small that edits may find it full, and then change nothing. */
  readonly sizes?: Partial<MemorySizes>
}

export interface RandomResult {
  readonly mismatches: string[]
  readonly violations: string[]
  readonly edits: { succeeded: number; refused: number; full: number }
}

/** Stops at the first difference. */
export function runRandomEdits({ seed, edits, services, servers, sizes }: RandomEdits): RandomResult {
  const random = seeded(seed)
  const memory = memoryTable(sizes)
  const model = new Map<number, ModelService>()
  const result: RandomResult = { mismatches: [], violations: [], edits: { succeeded: 0, refused: 0, full: 0 } }
  for (let i = 0; i < edits; i++) {
    const [what, edit, expected] = randomEdit(memory, model, random, services, servers)
    const code = outcome(edit)
    if (code === 'TABLE_FULL' && sizes !== undefined) {
      result.edits.full++
    } else if (typeof expected === 'function') {
      if (code === undefined) expected()
      else result.mismatches.push(`edit ${i}, ${what}: ${code}`)
      result.edits.succeeded++
    } else {
      if (code !== expected) result.mismatches.push(`edit ${i}, ${what}: ${code ?? 'done'}, not ${expected}`)
      result.edits.refused++
    }
    disturb(memory, random)
    result.mismatches.push(...compare(memory, model).map((text) => `edit ${i}, ${what}: ${text}`))
    if (i % 10 === 0 || i === edits - 1) {
      result.violations.push(...checkTable(memory.handles).map((text) => `edit ${i}, ${what}: ${text}`))
    }
    if (result.mismatches.length + result.violations.length > 0) return result
  }
  return result
}

function outcome(edit: () => void): ErrorCode | undefined {
  try {
    edit()
    return undefined
  } catch (error) {
    if (error instanceof LbError) return error.code
    throw error
  }
}

function randomEdit(
  { table }: MemoryTable,
  model: Map<number, ModelService>,
  random: (limit: number) => number,
  services: number,
  servers: number,
): [what: string, edit: () => void, expected: Expectation] {
  const n = random(services)
  const service = model.get(n)
  const server = random(servers)
  const weight = random(5)
  const scheduler = (['rr', 'wrr', 'wlc', 'dh', 'sh', 'mh'] as const)[random(6)] ?? 'rr'
  const known = service?.servers.find((entry) => entry.n === server)
  switch (random(12)) {
    case 0:
    case 1:
      return [
        `-A ${n}`,
        () => table.addService(serviceOf(n, scheduler)),
        service
          ? 'SERVICE_EXISTS'
          : () => {
              model.set(n, { scheduler, servers: [] })
            },
      ]
    case 2:
      return [
        `-E ${n}`,
        () => table.editService(serviceOf(n, scheduler)),
        service
          ? () => {
              service.scheduler = scheduler
            }
          : 'NO_SERVICE',
      ]
    case 3:
      return [
        `-D ${n}`,
        () => table.deleteService(keyOf(n)),
        service
          ? () => {
              model.delete(n)
            }
          : 'NO_SERVICE',
      ]
    case 4:
    case 5:
      return [
        `-e ${n} ${server}`,
        () => table.editServer(keyOf(n), serverOf(server, weight)),
        known
          ? () => {
              known.weight = weight
            }
          : service
            ? 'NO_SERVER'
            : 'SERVICE_NOT_DEFINED',
      ]
    case 6:
    case 7:
      return [
        `-d ${n} ${server}`,
        () => table.deleteServer(keyOf(n), serverOf(server)),
        known && service
          ? () => {
              service.servers.splice(service.servers.indexOf(known), 1)
            }
          : service
            ? 'NO_SERVER'
            : 'SERVICE_NOT_DEFINED',
      ]
    default:
      return [
        `-a ${n} ${server}`,
        () => table.addServer(keyOf(n), serverOf(server, weight)),
        known
          ? 'SERVER_EXISTS'
          : service
            ? () => {
                service.servers.unshift({ n: server, weight })
              }
            : 'SERVICE_NOT_DEFINED',
      ]
  }
}

/** Time passes, and the datapath counts, picks and forgets. */
function disturb({ handles, maps }: MemoryTable, random: (limit: number) => number): void {
  handles.nowS += random(30)
  const service = 1 + random(maps.serviceMax - 1)
  const list = maps.services.list(service)
  if (list === 0 || maps.cells.listCount(list) === 0) return
  const server = maps.cells.slotServer(list + 1, 0)
  maps.serverStates.setActive(server, random(2))
  maps.stats.setConns(server, maps.stats.conns(server) + 1n)
  if (maps.cells.listSched(list) === 1) maps.serviceStates.setCursor(service, BigInt(server))
  if (maps.cells.listSched(list) === 2) {
    maps.serviceStates.setCursor(service, (BigInt(server) << 32n) | BigInt(random(5)))
  }
}

function compare({ table }: MemoryTable, model: ReadonlyMap<number, ModelService>): string[] {
  const describe = (scheduler: string, servers: readonly (readonly [n: number, weight: number])[]): string =>
    `${scheduler} ${servers.map(([n, weight]) => `${n}=${weight}`).join(' ')}`
  const actual = new Map(
    table.services().map((view) => {
      const number = view.key.kind === 'address' ? numberOf(view.key) : -1
      return [
        number,
        describe(
          view.scheduler,
          view.servers.map((server) => [numberOf(server), server.weight] as const),
        ),
      ]
    }),
  )
  const found: string[] = []
  for (const [n, { scheduler, servers }] of model) {
    const due = describe(
      scheduler,
      servers.map((entry) => [entry.n, entry.weight] as const),
    )
    if (actual.get(n) !== due) found.push(`service ${n} is "${actual.get(n)}", not "${due}"`)
    actual.delete(n)
  }
  return [...found, ...Array.from(actual.keys(), (n) => `service ${n} should not be there`)]
}
