/** Desired states that are given by how they differ from the last. */
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { random } from '../helpers/random.ts'
import { keyOf, memoryTable, numberOf, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'

function wanted(n: number, servers: readonly number[], weight = 1): DesiredService {
  return { service: serviceOf(n, 'wlc'), servers: servers.map((server) => serverOf(server, weight)) }
}

t.test('only what changes name is looked at, and comes into force', async (t) => {
  const { table } = memoryTable()
  const [a, b, c, d] = [wanted(1, [1]), wanted(2, [1]), wanted(2, [1, 2]), wanted(3, [3])]
  table.apply('kubernetes', [a, b])
  t.same(table.apply('kubernetes', [a, c, d], { added: [c, d], dropped: [b] }), {
    added: 1,
    changed: 1,
    removed: 0,
    failed: [],
  })
  t.same(serversOf(table, 2).map(numberOf), [2, 1])
  t.same(table.apply('kubernetes', [c, d], { added: [], dropped: [a] }), {
    added: 0,
    changed: 0,
    removed: 1,
    failed: [],
  })
  t.equal(table.service(keyOf(1)), undefined)
})

t.test('what failed is tried again, whether changes name it or not, until it is no longer wanted', async (t) => {
  const { table } = memoryTable()
  const [a, b] = [wanted(1, [1]), wanted(2, [1])]
  table.addService(serviceOf(2))
  t.match(table.apply('kubernetes', [a, b]), { added: 1, failed: [{ key: keyOf(2) }] })
  t.match(table.apply('kubernetes', [a, b], { added: [], dropped: [] }), { added: 0, failed: [{ key: keyOf(2) }] })
  t.same(table.apply('kubernetes', [a], { added: [], dropped: [b] }).failed, [])
  t.match(table.apply('kubernetes', [a, b], { added: [b], dropped: [] }).failed, [{ key: keyOf(2) }])
  table.deleteService(keyOf(2))
  t.match(table.apply('kubernetes', [a, b], { added: [], dropped: [] }), { added: 1, failed: [] })
})

t.test('after the edit of somebody else everything is compared, whatever the changes say', async (t) => {
  const { table } = memoryTable()
  const [a, b] = [wanted(1, [1]), wanted(2, [1])]
  table.apply('kubernetes', [a])
  table.clear()
  t.match(table.apply('kubernetes', [a, b], { added: [b], dropped: [] }), { added: 2, failed: [] })
})

t.test('any sequence of changes comes to what the whole states come to', async (t) => {
  const pick = random(11)
  const byChanges = memoryTable()
  const whole = memoryTable()
  const now = new Map<number, DesiredService>()
  for (let step = 0; step < 400; step++) {
    const added: DesiredService[] = []
    const dropped: DesiredService[] = []
    for (const n of new Set(Array.from({ length: 1 + pick(3) }, () => 1 + pick(8)))) {
      const before = now.get(n)
      if (before !== undefined) dropped.push(before)
      now.delete(n)
      if (pick(4) === 0) continue
      const want = wanted(n, [1 + pick(4), 5 + pick(3)], pick(3))
      now.set(n, want)
      added.push(want)
    }
    // Somebody else edits now and then, both tables alike.
    if (pick(20) === 0) for (const { table } of [byChanges, whole]) table.clear()
    byChanges.table.apply('kubernetes', [...now.values()], { added, dropped })
    whole.table.apply(
      'kubernetes',
      [...now.values()].map(({ service, servers }) => ({ service, servers })),
    )
  }
  const text = ({ table }: typeof whole): string[] =>
    table
      .services()
      .map((view) => JSON.stringify([view.key, view.servers.map((server) => [server.address, server.weight])]))
      .sort()
  t.same(text(byChanges), text(whole))
  t.same(checkTable(byChanges.handles), [])
})
