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

for (const seed of [5, 6, 7]) {
  t.test(`the same where the table is nearly full all the time (seed ${seed})`, async (t) => {
    const sizes = { services: 24, servers: 80, cells: 64, lines: 2 }
    const { mismatches, violations, edits } = runRandomEdits({ seed, edits: 2500, services: 12, servers: 20, sizes })
    t.same(mismatches, [])
    t.same(violations, [])
    t.ok(edits.succeeded > 500, 'most edits find room')
    t.ok(edits.full > 5, 'some find none')
  })
}
