/** Services with policies and servers for insiders under random edits, dying writers, and damage. */
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { readList } from '../../src/maps/lists.ts'
import type { ServerSpec } from '../../src/model/types.ts'
import { DyingHandles } from '../helpers/dying-handles.ts'
import {
  keyOf,
  type MemoryTable,
  memoryTable,
  numberOf,
  policyOf,
  seeded,
  idsOf,
  lan,
  office,
  wanted,
} from '../helpers/table-specs.ts'

/** What a service may be wanted as. */
function randomWant(random: (limit: number) => number, n: number): DesiredService {
  const some = () => [1, 2, 3, 4, 5, 6].filter(() => random(2) === 0)
  const scheduler = (['rr', 'wrr', 'sh'] as const)[random(3)]
  const sources = Array.from({ length: 1 + random(9) }, () => ({ ...office, address: `192.0.${random(250)}.0` }))
  const policy = [undefined, policyOf({ whenEmpty: 'drop' }), policyOf({ sources })][random(3)]
  const want = wanted(n, some(), random(2) === 0 ? undefined : some(), policy, scheduler)
  const weigh = (servers: readonly ServerSpec[]) => servers.map((each) => ({ ...each, weight: 1 + random(2) }))
  return {
    service: want.service,
    servers: weigh(want.servers),
    ...(want.insiders && { insiders: weigh(want.insiders) }),
  }
}

function describe(want: DesiredService | undefined): unknown {
  if (want === undefined) return undefined
  const { service, servers, insiders } = want
  const drops = service.policy?.whenEmpty === 'drop'
  return [service.scheduler, drops, servers.map(numberOf).sort(), insiders?.map(numberOf).sort()]
}

for (const [seed, sizes] of [
  [1, {}],
  [2, { services: 32, servers: 96, cells: 96, lines: 2 }],
] as const) {
  t.test(`random desired states are what the table has, and it is consistent (seed ${seed})`, async (t) => {
    const random = seeded(seed)
    const { table, maps, handles } = memoryTable(sizes)
    const got = new Map<number, unknown>()
    let full = 0
    for (let i = 0; i < 600; i++) {
      const all = [1, 2, 3, 4, 5, 6].filter(() => random(4) > 0).map((n) => randomWant(random, n))
      const { failed } = table.apply('kubernetes', all)
      full += failed.length
      const refused = new Set(failed.map(({ key }) => key))
      const wants = new Map(all.map((want) => [numberOf(want.service.key as never), want]))
      for (const n of [1, 2, 3, 4, 5, 6]) {
        const want = wants.get(n)
        if (want === undefined) got.delete(n)
        else if (!refused.has(want.service.key)) got.set(n, describe(want))
        const view = table.service(keyOf(n))
        const is = view === undefined ? undefined : describe({ service: view, ...view })
        if (JSON.stringify(is) !== JSON.stringify(got.get(n))) t.same(is, got.get(n), `state ${i}, service ${n}`)
      }
      const id = 1 + random(maps.book.serviceHigh(0))
      const first = maps.services.list(id) === 0 ? undefined : readList(maps.cells, maps.services.list(id)).ids[0]
      if (first !== undefined) maps.serverStates.setActive(first, random(2))
      handles.nowS += random(60)
      const violations = checkTable(handles)
      if (violations.length > 0) t.same(violations, [], `state ${i}`)
    }
    t.equal(full > 20, seed === 2, `${full} were refused for want of room`)
  })
}

t.test('after a writer died in the middle of it the next edit puts the table in order', async (t) => {
  const random = seeded(3)
  const handles = new DyingHandles()
  const table = new KernelTable(handles)
  let deaths = 0
  for (let i = 0; i < 400; i++) {
    handles.left = random(6)
    try {
      table.apply(
        'kubernetes',
        [1, 2, 3].filter(() => random(3) > 0).map((n) => randomWant(random, n)),
      )
    } catch (error) {
      if (error instanceof Error && error.message === 'killed') deaths++
    }
    handles.left = Number.POSITIVE_INFINITY
    handles.nowS += random(60)
    table.zero()
    const violations = checkTable(handles)
    if (violations.length > 0) t.same(violations, [], `edit ${i}`)
  }
  t.ok(deaths > 50, `${deaths} writers died`)
})

t.test(
  'a writer that died between the two lists leaves servers of insiders that are configured as all others',
  async (t) => {
    const memory = memoryTable()
    const { table, maps, handles } = memory
    const want = wanted(1, [1, 2], [2, 3], policyOf({ whenEmpty: 'drop' }), 'wrr')
    table.apply('kubernetes', [want])
    const before = table.services()
    const { insiders } = idsOf(memory, 1)
    maps.cells.setListPolicy(maps.services.list(insiders), 0)
    maps.services.setTimeout(insiders, 9)
    t.match(checkTable(handles), [/configured otherwise/])
    maps.book.setEditing(0, 1)
    table.zero()
    t.same(table.services(), before)
    t.same(checkTable(handles), [])
  },
)

t.test('the check tells what is wrong with insiders and with who may come', async (t) => {
  const rows: readonly (readonly [RegExp, (memory: MemoryTable, head: number, insiders: number) => void])[] = [
    [/is none/, ({ maps }, head) => maps.cells.setAudienceInsiders(maps.services.list(head) + 1, 200)],
    [/nothing leads there/, ({ maps }, head) => maps.cells.setAudienceInsiders(maps.services.list(head) + 1, 0)],
    [/not known as such/, ({ maps }, head) => maps.services.setPair(head, 0)],
    [/another name/, ({ maps }, _, insiders) => maps.services.setVport(insiders, 81)],
    [/configured otherwise/, ({ maps }, _, insiders) => maps.services.setTimeout(insiders, 9)],
    [
      /not in order/,
      ({ maps }, head) => {
        const at = maps.cells.audienceAllowed(maps.services.list(head) + 1)
        maps.cells.setIntervalFirst(at, new Uint8Array(16).fill(255))
      },
    ],
  ]
  for (const [violation, breakIt] of rows) {
    const memory = memoryTable()
    memory.table.apply('kubernetes', [wanted(1, [], [2], policyOf({ sources: [lan, office] }))])
    t.same(checkTable(memory.handles), [])
    const { head, insiders } = idsOf(memory, 1)
    breakIt(memory, head, insiders)
    t.match(checkTable(memory.handles).join('; '), violation)
  }
})
