import t from 'tap'
import { runRandomEdits } from '../helpers/table-model.ts'

for (const seed of [1, 2, 3, 4]) {
  t.test(`random edits leave the table as a simple model says, and consistent (seed ${seed})`, async (t) => {
    const { mismatches, violations, edits } = runRandomEdits({ seed, edits: 1500, services: 12, servers: 20 })
    t.same(mismatches, [])
    t.same(violations, [])
    t.ok(edits.succeeded > 500 && edits.refused > 50, 'edits of both kinds were tried')
  })
}

for (const [seed, cells] of [
  [5, 64],
  [6, 64],
  [7, 1024] /* room for the tables of three services of mh */,
] as const) {
  t.test(`the same where the table is nearly full all the time (seed ${seed})`, async (t) => {
    const sizes = { services: 24, servers: 80, cells, lines: 2 }
    const { mismatches, violations, edits } = runRandomEdits({ seed, edits: 2500, services: 12, servers: 20, sizes })
    t.same(mismatches, [])
    t.same(violations, [])
    t.ok(edits.succeeded > 500, 'most edits find room')
    t.ok(edits.full > 5, 'some find none')
  })
}
