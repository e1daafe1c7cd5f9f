/** Tables of iptables-legacy lose chains, with the rules that lead there, and nothing else. */
import t from 'tap'
import { chainsOf, countEntries, withoutChains } from '../../src/native/xtables-table.ts'
import { xtTable, type XtChain } from '../helpers/xtables.ts'

const hooks: readonly XtChain[] = [
  { name: 'PREROUTING', hook: 0, rules: [{ to: 'KUBE-SERVICES' }, { to: 'MINE' }] },
  { name: 'INPUT', hook: 1, rules: [] },
  { name: 'OUTPUT', hook: 3, rules: [{ to: 'MINE' }, { to: 'KUBE-SERVICES' }] },
  { name: 'POSTROUTING', hook: 4, rules: [{ to: 'KUBE-SEP-A' }] },
]
const kube: readonly XtChain[] = [
  { name: 'KUBE-SERVICES', rules: [{ to: 'KUBE-SEP-A' }, { to: 'MINE' }] },
  { name: 'KUBE-SEP-A', rules: [{ to: 'ACCEPT' }] },
]
const mine: XtChain = { name: 'MINE', rules: [{ to: 'DROP' }, { to: 'KUBE-SEP-A' }, { to: 'LAST' }] }
const last: XtChain = { name: 'LAST', rules: [{ to: 'RETURN' }] }
const isKube = (name: string): boolean => name.startsWith('KUBE-')

for (const family of [4, 6] as const) {
  t.test(
    `IPv${family}: chains go wherever they are, what led there goes, and all others lead where they led`,
    async (t) => {
      for (const chains of [
        [...hooks, ...kube, mine, last],
        [...hooks, mine, ...kube, last],
        [...hooks, last, mine, ...kube],
      ]) {
        const table = xtTable(family, chains)
        const left = chains
          .filter(({ name }) => !isKube(name))
          .map(({ rules, ...chain }) => ({
            ...chain,
            rules: rules.filter((rule) => !('to' in rule && isKube(rule.to))),
          }))
        const { table: reduced, kept } = withoutChains(table, isKube)
        t.same(reduced, xtTable(family, left))
        t.equal(kept.length, countEntries(reduced))
      }
    },
  )

  t.test(`IPv${family}: a table without such chains is the same`, async (t) => {
    const table = xtTable(family, [...hooks.map((each) => ({ ...each, rules: [{ to: 'MINE' }] })), mine, last])
    t.same(withoutChains(table, (name) => name === 'OTHER').table, table)
    t.same(chainsOf(table), ['MINE', 'LAST'])
  })

  t.test(`IPv${family}: a rule that goes on with the next one goes on with the next that stays`, async (t) => {
    const rule = family === 4 ? 152 : 208
    const chains: readonly XtChain[] = [
      { name: 'PREROUTING', hook: 0, rules: [{ to: 'ACCEPT' }, { to: 'KUBE-SEP-A' }, { to: 'DROP' }] },
      ...kube,
    ]
    const table = xtTable(family, chains)
    table.entries.writeInt32LE(rule, rule - 8) /* the first rule, for packets that it counts and no more */
    const { entries } = withoutChains(table, isKube).table
    t.equal(entries.readInt32LE(rule - 8), rule)
    t.equal(entries.readInt32LE(2 * rule - 8), -1, 'which is the one that drops')
  })
}
