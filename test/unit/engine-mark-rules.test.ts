/** The table's own rules that mark packets. */
import t from 'tap'
import { LbFeature, LbLimit, LbMarkRuleArray } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import type { TableMarkRule } from '../../src/maps/mark-rules.ts'
import { memoryTable } from '../helpers/table-specs.ts'

const rules: readonly TableMarkRule[] = [
  { mark: 1, ifindex: 0 },
  {
    mark: 0xffffffff,
    ifindex: 7,
    family: 4,
    from: { family: 4, address: '10.2.0.0', length: 15 },
    to: { family: 4, address: '10.9.0.1', length: 32 },
    protocol: 'sctp',
    ports: { first: 80, last: 65535 },
  },
  { mark: 2, ifindex: 0, family: 6, to: { family: 6, address: 'fd00:9::', length: 57 }, protocol: 'udp' },
]

t.test('rules are read as they were written, in their order', async (t) => {
  const { table, handles, maps } = memoryTable()
  t.same(table.markRules(), [])
  table.editMarkRules(() => rules)
  t.same(table.markRules(), rules)
  t.equal(maps.config.features(0), LbFeature.FEATURE_MARK_RULES)
  t.same(checkTable(handles), [])
  table.editMarkRules((before) => before.slice(1))
  t.same(table.markRules(), rules.slice(1))
  table.editMarkRules(() => [])
  t.same(table.markRules(), [])
  t.equal(maps.config.features(0), 0)
})

t.test('a list in force is not written to, and the other one only when nobody reads it any more', async (t) => {
  const { table, handles } = memoryTable()
  const marks = () => {
    const records = new LbMarkRuleArray(handles.buffer('lb_mark_rules'))
    return [records.mark(0), records.mark(LbLimit.MAX_MARK_RULES)]
  }
  table.editMarkRules(() => [{ mark: 1, ifindex: 0 }])
  const before = marks()
  const graces = handles.graces
  table.editMarkRules(() => [{ mark: 2, ifindex: 0 }])
  t.same(before, [0, 1])
  t.same(marks(), [2, 1])
  t.ok(handles.graces > graces)
})

t.test('too many rules are refused, and those in force stay', async (t) => {
  const { table } = memoryTable()
  const many = Array.from({ length: LbLimit.MAX_MARK_RULES }, (_, i) => ({ mark: i + 1, ifindex: 0 }))
  table.editMarkRules(() => many)
  t.throws(() => table.editMarkRules((before) => [...before, { mark: 99, ifindex: 0 }]), { code: 'TABLE_FULL' })
  t.same(table.markRules(), many)
})
