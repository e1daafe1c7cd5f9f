import t from 'tap'
import { allocateCells } from '../../src/maps/cells.ts'
import { pushFree, reclaimCells, retireCells, useCells } from '../../src/maps/free-cells.ts'
import { orderFor, readList, summarizeWeights, writeList } from '../../src/maps/lists.ts'
import type { TableMaps } from '../../src/maps/table-maps.ts'
import { checkCells } from '../../src/engine/check-cells.ts'
import { LbError } from '../../src/model/errors.ts'
import { memoryTable, seeded } from '../helpers/table-specs.ts'

/** A list of `servers` that service `id` points at, written as an edit does it. */
function setList(maps: TableMaps, id: number, servers: number): void {
  const cell = allocateCells(maps, orderFor(servers))
  const ids = Array.from({ length: servers }, (_, i) => id * 1000 + i)
  writeList(
    maps.cells,
    cell,
    { service: id, scheduler: 1, flags: 0, table: 0, policy: 0 },
    { ids, weights: ids.map(() => 1) },
  )
  const old = maps.services.list(id)
  useCells(maps, cell)
  maps.switchList(id, cell)
  if (old !== 0) retireCells(maps, old)
  maps.book.setServiceHigh(0, Math.max(maps.book.serviceHigh(0), id + 1))
}

function dropList(maps: TableMaps, id: number): void {
  const old = maps.services.list(id)
  maps.switchList(id, 0)
  retireCells(maps, old)
}

t.test('a range has room for the head and four servers in each further cell', async (t) => {
  for (const [servers, order] of [
    [0, 0],
    [1, 1],
    [4, 1],
    [5, 2],
    [12, 2],
    [13, 3],
    [65536, 15],
  ] as const) {
    t.equal(orderFor(servers), order, `${servers} servers`)
  }
})

t.test('the weights of a list are summarized as wrr wants them', async (t) => {
  t.same(summarizeWeights([]), { gcd: 1, maxWeight: 0, total: 0 })
  t.same(summarizeWeights([0, 0]), { gcd: 1, maxWeight: 0, total: 0 })
  t.same(summarizeWeights([4, 0, 6]), { gcd: 2, maxWeight: 5, total: 10 })
  t.same(summarizeWeights([3, 3]), { gcd: 3, maxWeight: 1, total: 6 })
  t.same(summarizeWeights([2147483647, 2147483647, 2147483647]).total, 0xffffffff)
})

t.test('random lists never overlap, none is lost, and each keeps its content', async (t) => {
  const random = seeded(11)
  const { maps } = memoryTable({ cells: 1024 })
  const sizes = new Map<number, number>()
  for (let i = 0; i < 4000; i++) {
    const id = 1 + random(24)
    const size = random(3) === 0 ? random(100) : random(10)
    if (random(4) === 0 && sizes.has(id)) {
      dropList(maps, id)
      sizes.delete(id)
    } else {
      setList(maps, id, size)
      sizes.set(id, size)
    }
    if (i % 50 === 0) t.same(checkCells(maps), [], `after ${i} changes`)
  }
  for (const [id, size] of sizes) {
    t.same(
      readList(maps.cells, maps.services.list(id)).ids,
      Array.from({ length: size }, (_, i) => id * 1000 + i),
    )
  }
})

t.test('a retired list can be read until a grace period has passed, and not be taken before', async (t) => {
  const { maps, handles } = memoryTable({ cells: 64 })
  setList(maps, 1, 3)
  const old = maps.services.list(1)
  let edits = 0
  while (handles.graces === 0) {
    setList(maps, 1, 3)
    edits++
    if (handles.graces === 0) t.same(readList(maps.cells, old).ids, [1000, 1001, 1002])
    t.not(maps.services.list(1), handles.graces === 0 ? old : 0)
  }
  t.ok(edits >= 30, 'the grace period came when all cells were used')
})

t.test('many small edits share one grace period', async (t) => {
  const { maps, handles } = memoryTable({ cells: 65536 })
  for (let i = 0; i < 20_000; i++) setList(maps, 1 + (i % 10), 3)
  t.ok(handles.graces <= 5, `${handles.graces} grace periods in 20,000 edits`)
  t.same(checkCells(maps), [])
})

t.test('a large list fits as long as half of the cells are free, however scattered', async (t) => {
  const { maps, handles } = memoryTable({ cells: 1024, services: 1024 })
  // Single cells everywhere, then every second one freed: no two free cells are neighbours.
  for (let id = 1; id <= 1000; id++) setList(maps, id, 0)
  for (let id = 1; id <= 1000; id += 2) dropList(maps, id)
  const before = handles.graces
  setList(maps, 1001, 4 * 255)
  t.equal(orderFor(4 * 255), 8, 'the list takes a quarter of all cells')
  t.same(checkCells(maps), [])
  t.ok(handles.graces > before, 'what was moved was read by nobody when it was written over')
  for (let id = 2; id <= 1000; id += 2) t.equal(maps.cells.listService(maps.services.list(id)), id)
})

t.test('lists of mixed sizes are moved together when a large one needs the room', async (t) => {
  const random = seeded(5)
  for (let round = 0; round < 20; round++) {
    const { maps } = memoryTable({ cells: 512, services: 512 })
    let id = 0
    let used = 0
    for (; used < 440; ) {
      const servers = [0, 1, 5, 13, 30][random(5)] ?? 0
      setList(maps, ++id, servers)
      used += 2 ** orderFor(servers)
    }
    while (used > 250) {
      const victim = 1 + random(id)
      if (maps.services.list(victim) === 0) continue
      used -= 2 ** maps.cells.listOrder(maps.services.list(victim))
      dropList(maps, victim)
    }
    setList(maps, id + 1, 4 * 127)
    t.same(checkCells(maps), [], `round ${round}`)
  }
})

t.test('when there is no room the refusal says so, and nothing is lost', async (t) => {
  const { maps } = memoryTable({ cells: 64 })
  for (let id = 1; id <= 7; id++) setList(maps, id, 20)
  t.throws(() => allocateCells(maps, 3), new LbError('TABLE_FULL'))
  t.same(checkCells(maps), [])
  dropList(maps, 3)
  const cell = allocateCells(maps, 3)
  t.ok(cell > 0)
  pushFree(maps, cell, 3)
  reclaimCells(maps)
  t.same(checkCells(maps), [])
})
