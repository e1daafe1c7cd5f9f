import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { LbError } from '../../src/model/errors.ts'
import type { Scheduler } from '../../src/model/types.ts'
import { idOf, keyOf, memoryTable, numberOf, seeded, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'

function wanted(n: number, servers: readonly number[], weight = 1): DesiredService {
  return { service: serviceOf(n, 'wlc'), servers: servers.map((server) => serverOf(server, weight)) }
}

t.test('a desired state is made in one edit, servers in the order of adding', async (t) => {
  const { table, handles } = memoryTable()
  const result = table.apply('manifest', [wanted(1, [1, 2, 3]), wanted(2, [])])
  t.same(result, { added: 2, changed: 0, removed: 0, failed: [] })
  t.same(serversOf(table, 1).map(numberOf), [3, 2, 1])
  t.equal(table.generation(), 1n)
  t.equal(table.service(keyOf(2))?.source, 'manifest')
  t.same(checkTable(handles), [])
})

t.test('what is as wanted is not written', async (t) => {
  const { table, maps } = memoryTable()
  table.apply('manifest', [wanted(1, [1, 2]), wanted(2, [3])])
  const ids = [1, 2].map((n) => table.service(keyOf(n))?.id ?? 0)
  const lists = ids.map((id) => maps.services.list(id))
  const result = table.apply('manifest', [wanted(1, [1, 2]), wanted(2, [3, 4])])
  t.same(result, { added: 0, changed: 1, removed: 0, failed: [] })
  t.equal(maps.services.list(ids[0] ?? 0), lists[0])
  t.not(maps.services.list(ids[1] ?? 0), lists[1])
})

t.test('servers that stay keep id, place and counts; a removed one that is wanted again comes back', async (t) => {
  const { table, maps } = memoryTable()
  table.apply('manifest', [wanted(1, [1, 2, 3])])
  const ids = [1, 2, 3].map((n) => idOf(table, 1, n))
  maps.serverStates.setActive(ids[1] ?? 0, 4)
  table.apply('manifest', [wanted(1, [3, 4, 1])])
  t.same(serversOf(table, 1).map(numberOf), [4, 3, 1])
  table.apply('manifest', [wanted(1, [1, 2, 3])])
  t.same(serversOf(table, 1).map(numberOf), [2, 3, 1])
  t.same(
    [1, 2, 3].map((n) => idOf(table, 1, n)),
    ids,
  )
  t.equal(serversOf(table, 1)[0]?.active, 4)
})

t.test('a source removes only what is its own', async (t) => {
  const { table } = memoryTable()
  table.addService(serviceOf(1))
  table.apply('manifest', [wanted(2, [1])])
  table.apply('kubernetes', [wanted(3, [1])])
  t.same(table.apply('manifest', []), { added: 0, changed: 0, removed: 1, failed: [] })
  t.same(
    table.services().map(({ source }) => source),
    ['command', 'kubernetes'],
  )
})

t.test('a service of another source is reported and left alone', async (t) => {
  const { table } = memoryTable()
  table.addService(serviceOf(1))
  const { added, failed } = table.apply('manifest', [wanted(1, [1]), wanted(2, [1])])
  t.equal(added, 1)
  t.match(failed, [{ key: keyOf(1), error: { code: 'SERVICE_EXISTS', message: /source "command"/ } }])
  t.same(serversOf(table, 1), [])
})

t.test('what cannot be programmed is reported, the rest is done, and what it replaced stays', async (t) => {
  const { table, handles } = memoryTable()
  table.apply('manifest', [wanted(1, [1])])
  const twice = wanted(2, [1, 1])
  const noScheduler = { ...wanted(1, [2]), service: serviceOf(1, 'nosuch' as Scheduler) }
  const badWeight = wanted(3, [1], -1)
  const { failed, added } = table.apply('manifest', [noScheduler, twice, badWeight, wanted(4, [1]), wanted(4, [2])])
  t.equal(added, 1)
  t.same(
    failed.map(({ error }) => (error instanceof LbError ? error.code : error)),
    ['NO_SCHEDULER', 'SERVER_EXISTS', 'RANGE', 'SERVICE_EXISTS'],
  )
  t.same(serversOf(table, 1).map(numberOf), [1])
  t.same(serversOf(table, 4).map(numberOf), [1])
  t.same(checkTable(handles), [])
})

t.test('when the table fills up the services that did not fit are named, and the others are complete', async (t) => {
  const { table, handles } = memoryTable({ servers: 8 })
  const { added, failed } = table.apply('manifest', [wanted(1, [1, 2, 3]), wanted(2, [1, 2, 3]), wanted(3, [1, 2, 3])])
  t.equal(added, 2)
  t.match(failed, [{ key: keyOf(3), error: { code: 'TABLE_FULL' } }])
  t.equal(table.service(keyOf(3)), undefined)
  t.same(checkTable(handles), [])
})

t.test('random desired states are reached from any other', async (t) => {
  const random = seeded(8)
  const { table, handles } = memoryTable()
  for (let round = 0; round < 60; round++) {
    const desired: DesiredService[] = []
    for (let n = 0; n < 20; n++) {
      if (random(3) === 0) continue
      const servers = Array.from({ length: 12 }, (_, i) => i).filter(() => random(2) === 0)
      desired.push(wanted(n, servers, random(3)))
    }
    t.same(table.apply('kubernetes', desired).failed, [])
    const actual = table
      .services()
      .map((view) => [
        view.key,
        view.servers.map(numberOf).sort((a, b) => a - b),
        view.servers.map(({ weight }) => weight),
      ])
    const due = desired.map(({ service, servers }) => [
      service.key,
      servers.map(numberOf),
      servers.map(({ weight }) => weight),
    ])
    const order = (a: unknown, b: unknown): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)
    t.same(actual.sort(order), due.sort(order), `round ${round}`)
    t.same(table.apply('kubernetes', desired), { added: 0, changed: 0, removed: 0, failed: [] })
    handles.nowS += random(100)
  }
  t.same(checkTable(handles), [])
})

t.test('a service brought again as the same object is not looked at, and one that goes is removed', async (t) => {
  const { table, maps, handles } = memoryTable()
  const [one, two, three] = [wanted(1, [1]), wanted(2, [1]), wanted(3, [1])]
  table.apply('manifest', [one, two])
  // Nobody who edits through the table could do this.
  maps.servers.setWeight(idOf(table, 1, 1), 77)
  t.same(table.apply('manifest', [one, two]), { added: 0, changed: 0, removed: 0, failed: [] })
  maps.servers.setWeight(idOf(table, 1, 1), 1)
  t.same(table.apply('manifest', [one, three]), { added: 1, changed: 0, removed: 1, failed: [] })
  t.same(
    table.services().map(({ key }) => key),
    [keyOf(1), keyOf(3)],
  )
  t.same(checkTable(handles), [])
})

t.test('an apply that changes nothing is no edit', async (t) => {
  const { table } = memoryTable()
  const one = wanted(1, [1])
  table.apply('manifest', [one])
  const generation = table.generation()
  table.apply('manifest', [one])
  table.apply('manifest', [wanted(1, [1])])
  t.equal(table.generation(), generation)
})

t.test('after an edit by somebody else everything is compared again', async (t) => {
  const { table, handles } = memoryTable()
  const other = new KernelTable(handles)
  const one = wanted(1, [1, 2])
  table.apply('manifest', [one])
  other.deleteServer(keyOf(1), serverOf(1))
  other.apply('kubernetes', [wanted(5, [1])])
  t.same(table.apply('manifest', [one]), { added: 0, changed: 1, removed: 0, failed: [] })
  t.same(serversOf(table, 1).map(numberOf).sort(), [1, 2])
})

t.test('a service that failed to change is removed once it is not wanted any more', async (t) => {
  const { table } = memoryTable()
  const two = wanted(2, [1])
  table.apply('manifest', [wanted(1, [1]), two])
  const bad = wanted(1, [1], -1)
  t.equal(table.apply('manifest', [bad, two]).failed.length, 1)
  t.ok(table.service(keyOf(1)))
  t.equal(table.apply('manifest', [bad, two]).failed.length, 1, 'it is tried every time')
  t.equal(table.apply('manifest', [two]).removed, 1)
  t.equal(table.service(keyOf(1)), undefined)
})

t.test('a service wanted twice is refused the second time, whichever came before', async (t) => {
  const { table } = memoryTable()
  const one = wanted(1, [1])
  table.apply('manifest', [one])
  const { failed } = table.apply('manifest', [one, wanted(1, [2])])
  t.match(failed, [{ error: { code: 'SERVICE_EXISTS', message: 'TCP 10.9.0.1:80 is wanted twice' } }])
  t.same(serversOf(table, 1).map(numberOf), [1])
})

t.test('a change that found no room is remembered: the service goes when it is not wanted any more', async (t) => {
  const { table } = memoryTable({ servers: 4 })
  const two = wanted(2, [1, 2])
  table.apply('manifest', [wanted(1, [1]), two])
  t.match(table.apply('manifest', [wanted(1, [1, 2, 3]), two]).failed, [{ error: { code: 'TABLE_FULL' } }])
  t.same(serversOf(table, 1).map(numberOf), [1])
  t.equal(table.apply('manifest', [two]).removed, 1)
})

t.test('a service wanted twice stays as it was wanted first, each time everything is compared', async (t) => {
  const { table, handles } = memoryTable()
  const codes = (other: KernelTable): unknown[] =>
    other
      .apply('manifest', [wanted(1, [1]), wanted(1, [2])])
      .failed.map(({ error }) => (error instanceof LbError ? error.message : error))
  t.same(codes(table), ['TCP 10.9.0.1:80 is wanted twice'])
  t.same(codes(table), ['TCP 10.9.0.1:80 is wanted twice'])
  t.same(codes(new KernelTable(handles)), ['TCP 10.9.0.1:80 is wanted twice'])
  t.same(serversOf(table, 1).map(numberOf), [1])
})

/** Tables that lack one thing each for the 1,000 services that a source wants. */
const tooSmall = [
  { lacks: 'ids of services', sizes: { services: 9, lines: 512, servers: 4096 } },
  { lacks: 'ids of servers', sizes: { services: 4096, lines: 512, servers: 9 } },
  { lacks: 'cells', sizes: { services: 4096, lines: 512, servers: 4096, cells: 64 } },
] as const

for (const { lacks, sizes } of tooSmall) {
  t.test(`once ${lacks} are used up, a thousand refusals wait for no grace period`, async (t) => {
    const { table, handles, maps } = memoryTable(sizes)
    // Removed servers that connections refer to: they can't be reused, however often one looks.
    table.apply('manifest', [wanted(5000, [1, 2])])
    for (const n of [1, 2]) maps.serverStates.setActive(idOf(table, 5000, n), 1)
    const many = Array.from({ length: 1000 }, (_, i) => wanted(i + 1, [1, 2]))
    const before = handles.graces
    const { added, failed } = table.apply('manifest', many)
    t.equal(added + failed.length, 1000)
    t.ok(added > 0 && failed.length > 900)
    t.ok(
      failed.every(({ error }) => error instanceof LbError && error.code === 'TABLE_FULL'),
      'each is told why',
    )
    t.ok(handles.graces - before <= 3, `${handles.graces - before} grace periods`)
    t.same(checkTable(handles), [])
  })
}

t.test('a server removed after a refusal makes room for the next in the same edit', async (t) => {
  const { table, maps, handles } = memoryTable({ services: 64, lines: 64, servers: 4 })
  table.apply('manifest', [wanted(1, [1, 2]), wanted(2, [1]), wanted(3, [])])
  maps.serverStates.setActive(idOf(table, 1, 2), 1)
  table.apply('manifest', [wanted(1, [1]), wanted(2, [1]), wanted(3, [])])
  const { failed } = table.apply('manifest', [wanted(1, [1, 3]), wanted(2, []), wanted(3, [4])])
  t.match(failed, [{ key: keyOf(1), error: { code: 'TABLE_FULL' } }], 'the one removed server is in use')
  t.same(serversOf(table, 3).map(numberOf), [4], 'the second is not')
  t.same(checkTable(handles), [])
})
