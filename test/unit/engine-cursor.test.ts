import t from 'tap'
import type { KernelTable } from '../../src/engine/kernel-table.ts'
import type { TableMaps } from '../../src/maps/table-maps.ts'
import { idOf, keyOf, memoryTable, seeded, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'

/** The scheduler's state of the first service. */
function wrrState(maps: TableMaps): { readonly at: number; readonly weight: number } {
  const cursor = maps.serviceStates.cursor(1)
  return { at: Number(cursor >> 32n), weight: Number(cursor & 0xffffffffn) }
}

function setWrr(maps: TableMaps, at: number, weight: number): void {
  maps.serviceStates.setCursor(1, (BigInt(at) << 32n) | BigInt(weight))
}

t.test(
  'rr: adding and editing servers leaves the cursor, removing its server moves it to the one before',
  async (t) => {
    const { table, maps } = memoryTable()
    table.addService(serviceOf(1))
    for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n))
    const at = (n: number): bigint => BigInt(idOf(table, 1, n))
    maps.serviceStates.setCursor(1, at(2))
    table.addServer(keyOf(1), serverOf(4))
    table.editServer(keyOf(1), serverOf(2, 9))
    t.equal(maps.serviceStates.cursor(1), at(2))
    table.deleteServer(keyOf(1), serverOf(2))
    t.equal(maps.serviceStates.cursor(1), at(3))
    table.deleteServer(keyOf(1), serverOf(1))
    t.equal(maps.serviceStates.cursor(1), at(3))
    table.deleteServer(keyOf(1), serverOf(4))
    table.deleteServer(keyOf(1), serverOf(3))
    t.equal(maps.serviceStates.cursor(1), 0n, 'there is none before the head')
  },
)

t.test('wrr: servers of weights 1, 2 and 4 added one by one start at a current weight of 1', async (t) => {
  const { table, maps } = memoryTable()
  table.addService(serviceOf(1, 'wrr'))
  t.same(wrrState(maps), { at: 0, weight: 0 })
  for (const n of [1, 2, 4]) table.addServer(keyOf(1), serverOf(n, n))
  t.same(wrrState(maps), { at: 0, weight: 1 })
})

t.test('wrr: every change of servers goes back to the head, as ip_vs_wrr_dest_changed()', async (t) => {
  const rows = [
    // Weights of the servers, current weight before an edit that changes nothing, and after it.
    [[4, 4, 8], 8, 5],
    [[4, 4, 8], 5, 5],
    [[4, 4, 8], 4, 5],
    [[4, 4, 8], 3, 1],
    [[4, 4, 8], 0, 5],
    [[1, 3], 2, 2],
    [[1, 3], 9, 3],
    [[0, 0], 7, 0],
    [[6, 0], 6, 1],
  ] as const
  for (const [weights, before, after] of rows) {
    const { table, maps } = memoryTable()
    table.addService(serviceOf(1, 'wrr'))
    for (const [i, weight] of weights.entries()) table.addServer(keyOf(1), serverOf(i, weight))
    setWrr(maps, idOf(table, 1, 0), before)
    table.editServer(keyOf(1), serverOf(0, weights[0]))
    t.same(wrrState(maps), { at: 0, weight: after }, `weights ${weights.join(' ')}, from ${before}`)
  }
})

t.test('setting the same scheduler keeps its state, another starts afresh', async (t) => {
  const { table, maps } = memoryTable()
  table.addService(serviceOf(1, 'wrr'))
  for (const n of [2, 4]) table.addServer(keyOf(1), serverOf(n, n))
  setWrr(maps, idOf(table, 1, 2), 2)
  table.editService(serviceOf(1, 'wrr'))
  t.same(wrrState(maps), { at: idOf(table, 1, 2), weight: 2 })
  table.editService(serviceOf(1, 'rr'))
  t.equal(maps.serviceStates.cursor(1), 0n)
  table.editService(serviceOf(1, 'wrr'))
  t.same(wrrState(maps), { at: 0, weight: 3 }, 'mw is 4 - (2 - 1)')
})

/** The state of wrr as the kernel keeps it, over any history. */
class WrrModel {
  weights: number[] = []
  current = 0

  changed(): void {
    const divisor =
      this.weights
        .filter((w) => w > 0)
        .reduce((a, b) => {
          for (; b; [a, b] = [b, a % b]);
          return a
        }, 0) || 1
    const most = Math.max(0, ...this.weights)
    const limit = most ? most - (divisor - 1) : 0
    if (this.current > limit || this.current === 0) this.current = limit
    else if (divisor > 1) this.current = Math.floor(this.current / divisor) * divisor + 1
  }
}

t.test("wrr: over random histories of edits and picks the state is the kernel's", async (t) => {
  const random = seeded(3)
  const { table, maps } = memoryTable()
  const model = new WrrModel()
  table.addService(serviceOf(1, 'wrr'))
  const numbers: number[] = []
  for (let i = 0; i < 500; i++) {
    changeAtRandom(table, model, numbers, random)
    t.same(wrrState(maps), { at: 0, weight: model.current }, `after ${i + 1} edits`)
    model.current = random(model.current + 2)
    setWrr(maps, serversOf(table, 1)[0]?.id ?? 0, model.current)
  }
})

function changeAtRandom(
  table: KernelTable,
  model: WrrModel,
  numbers: number[],
  random: (limit: number) => number,
): void {
  const weight = random(4) * (1 + random(3))
  const at = random(numbers.length + 1)
  const n = numbers[at]
  if (n === undefined) {
    let fresh = random(10_000)
    while (numbers.includes(fresh)) fresh = random(10_000)
    table.addServer(keyOf(1), serverOf(fresh, weight))
    numbers.push(fresh)
    model.weights.push(weight)
  } else if (random(2) === 0) {
    table.editServer(keyOf(1), serverOf(n, weight))
    model.weights[at] = weight
  } else {
    table.deleteServer(keyOf(1), serverOf(n))
    numbers.splice(at, 1)
    model.weights.splice(at, 1)
  }
  model.changed()
}
