import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { keyOf, memoryTable, numberOf, seeded, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'
import { DyingHandles } from '../helpers/dying-handles.ts'

t.test('after a writer died in the middle of an edit the next edit puts the table in order', async (t) => {
  const random = seeded(2)
  const handles = new DyingHandles()
  const table = new KernelTable(handles)
  let deaths = 0
  for (let i = 0; i < 400; i++) {
    handles.left = random(4)
    try {
      if (random(3) === 0) {
        table.apply(
          'manifest',
          [1, 2, 3]
            .filter(() => random(2) === 0)
            .map((n) => ({
              service: serviceOf(n, (['wrr', 'sh', 'mh'] as const)[n % 3]),
              servers: [1, 2, 3, 4].filter(() => random(2) === 0).map((s) => serverOf(s, s)),
            })),
        )
      } else if (random(4) === 0) {
        table.clear()
      } else {
        table.addService(serviceOf(4 + random(5)))
      }
    } catch (error) {
      if (error instanceof Error && error.message === 'killed') deaths++
    }
    handles.left = Number.POSITIVE_INFINITY
    handles.nowS += random(60)
    table.zero()
    t.same(checkTable(handles), [], `edit ${i}`)
  }
  t.ok(deaths > 50, `${deaths} writers died`)
})

t.test('lost ids, ranges and counts are found again; what is in force stays as it is', async (t) => {
  const { table, maps, handles } = memoryTable()
  table.addService(serviceOf(1))
  table.addService(serviceOf(2))
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n, n))
  table.deleteServer(keyOf(1), serverOf(2))
  table.deleteService(keyOf(2))
  const before = table.services()
  maps.book.clear(0)
  maps.book.setServiceHigh(0, 3)
  maps.book.setServerHigh(0, 4)
  t.not(checkTable(handles).length, 0)
  maps.book.setEditing(0, 1)
  t.match(checkTable(handles), [/died/])
  table.zero()
  t.same(table.services(), before)
  t.same(checkTable(handles), [])
  table.addServer(keyOf(1), serverOf(2))
  t.same(serversOf(table, 1).map(numberOf), [2, 3, 1])
})

t.test('the check tells what is wrong', async (t) => {
  const rows: readonly (readonly [violation: RegExp, breakIt: (memory: ReturnType<typeof memoryTable>) => void])[] = [
    [/rank/, ({ maps }) => maps.servers.setRank(1, 7)],
    [/weight/, ({ maps }) => maps.servers.setWeight(1, 7)],
    [/not available/, ({ maps }) => maps.setAvailable(1, false)],
    [/names service/, ({ maps }) => maps.servers.setService(1, 2)],
    [/gcd/, ({ maps }) => maps.cells.setListGcd(maps.services.list(1), 5)],
    [/is not the head/, ({ maps }) => maps.cells.setListService(maps.services.list(1), 5)],
    [/cursor/, ({ maps }) => maps.serviceStates.setCursor(1, 3n)],
    [/not in the index/, ({ maps }) => maps.index.u64.fill(0n)],
    [
      /filter lacks/,
      ({ handles }) => {
        new Uint8Array(handles.buffer('lb_filter')).fill(0)
      },
    ],
    [/neither in use/, ({ maps }) => maps.book.setCellRetired(0, 0)],
    [
      /in another range/,
      ({ maps }) => maps.book.setCellFree(0, maps.cells.listOrder(maps.services.list(1)), maps.services.list(1)),
    ],
    [/servers are in lists/, ({ maps }) => maps.book.setServers(0, 9)],
    [/removed servers are kept/, ({ maps }) => maps.book.setTrashed(0, 9)],
    [/services are in force/, ({ maps }) => maps.book.setServices(0, 9)],
    [/is lost/, ({ maps }) => maps.services.setNext(1, 0)],
    [/features/, ({ maps }) => maps.config.setFeatures(0, 1)],
    [/and free/, ({ maps }) => maps.book.setServerFree(0, 1)],
  ]
  for (const [violation, breakIt] of rows) {
    const memory = memoryTable()
    memory.table.addService(serviceOf(1))
    memory.table.addServer(keyOf(1), serverOf(1, 3))
    memory.table.addServer(keyOf(1), serverOf(2))
    memory.table.deleteServer(keyOf(1), serverOf(2))
    t.same(checkTable(memory.handles), [])
    breakIt(memory)
    t.match(checkTable(memory.handles).join('; '), violation)
  }
})
