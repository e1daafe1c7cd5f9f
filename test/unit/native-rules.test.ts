/** Policy routing for marked packets: which changes are made, in which order. */
import t from 'tap'
import { planRules, type Rule, type RuleChange } from '../../src/native/rules.ts'

const plain = { family: 4, target: 0, mark: 0, mask: 0, iif: '', more: false } as const
const lookup = (pref: number, table: number): Rule => ({ ...plain, action: 'lookup', pref, table, protocol: 2 })
const fresh = [lookup(0, 255), lookup(32766, 254), lookup(32767, 253)]

/** A rule as ip(8) writes it. */
function text({ pref, iif, mark, mask, action, table, target }: Rule): string {
  const which = `${iif === '' ? '' : ` iif ${iif}`}${mask === 0 ? '' : ` fwmark ${mark}`}`
  const what = action === 'goto' ? `goto ${target}` : action === 'nop' ? 'nop' : `lookup ${table}`
  return `${pref}:${which} ${what}`
}

const same = (a: Rule, b: Rule): boolean => text(a) === text(b)

/** What the kernel does with a change: a new rule comes behind those of its preference. */
function change(rules: readonly Rule[], { do: what, rule }: RuleChange): Rule[] {
  if (what === 'add') {
    const at = rules.findIndex(({ pref }) => pref > rule.pref)
    return rules.toSpliced(at < 0 ? rules.length : at, 0, rule)
  }
  const at = rules.findIndex((each) => same(each, rule) && each.protocol === rule.protocol)
  if (at < 0) throw new Error(`there is no rule ${text(rule)}`)
  return rules.toSpliced(at, 1)
}

/** Tables that a packet with a mark (0: none) looks in, one after the other. */
function tables(rules: readonly Rule[], mark: number, iif = 'eth0'): number[] {
  const found: number[] = []
  for (let i = 0; i < rules.length; i++) {
    const rule = rules[i]
    if (rule === undefined || (rule.iif !== '' && rule.iif !== iif) || (rule.mask !== 0 && rule.mark !== mark)) continue
    if (rule.action === 'lookup') found.push(rule.table)
    if (rule.action === 'goto') {
      const to = rules.findIndex(({ pref }) => pref === rule.target)
      if (to >= 0) i = to - 1
    }
  }
  return found
}

function apply(rules: readonly Rule[], marks: readonly number[]): Rule[] {
  return planRules(4, rules, new Set(marks)).reduce(change, [...rules])
}

const steered = ['0: iif bpvs1 goto 1', '0: fwmark 1 lookup 181', '0: fwmark 7 lookup 181', '1: lookup 255']
const others = ['32766: lookup 254', '32767: lookup 253']

t.test('marked packets look in our table before the local one, all others where they did', async (t) => {
  const rules = apply(fresh, [1, 7])
  t.same(rules.map(text), [...steered, ...others])
  t.same(tables(rules, 7), [181, 255, 254, 253])
  t.same(tables(rules, 0), [255, 254, 253])
  t.same(tables(rules, 7, 'bpvs1'), [255, 254, 253], 'what came back from the veth is not sent there again')
})

t.test('what is as it should be is left alone', async (t) => {
  t.same(planRules(4, apply(fresh, [1, 7]), new Set([1, 7])), [])
  t.same(planRules(4, fresh, new Set()), [])
})

t.test('marks come and go', async (t) => {
  const rules = apply(apply(fresh, [1, 2]), [2, 7])
  t.same(tables(rules, 1), [255, 254, 253])
  t.same(tables(rules, 7), [181, 255, 254, 253])
  t.same(apply(rules, []).map(text), fresh.map(text))
  t.same(
    apply(rules, []).map(({ protocol }) => protocol),
    [2, 2, 2],
    "the rule for local addresses is the kernel's own again",
  )
})

t.test('rules of others stay where they are, but those of preference 0 now come before the local table', async (t) => {
  const theirs = { ...lookup(0, 99), mark: 5, mask: 0xff, protocol: 4 }
  const rules = apply([lookup(0, 255), theirs, lookup(100, 100), ...fresh.slice(1)], [1])
  t.same(tables(rules, 5), [99, 255, 100, 254, 253])
  t.same(
    tables(apply(rules, []), 5),
    [99, 255, 100, 254, 253],
    'afterwards too: the kernel puts a rule behind those of its preference',
  )
})

t.test('where the rule for local addresses was moved by somebody else, it stays there', async (t) => {
  const moved = [lookup(100, 255), ...fresh.slice(1)]
  const rules = apply(moved, [1])
  t.same(rules.map(text), ['0: iif bpvs1 goto 1', '0: fwmark 1 lookup 181', '1: nop', ...moved.map(text)])
  t.same(tables(rules, 1, 'bpvs1'), [255, 254, 253])
  t.same(apply(rules, []).map(text), moved.map(text))
})

t.test('wherever it ends, local addresses are found, and the next attempt finishes', async (t) => {
  const scenes = [
    { name: 'from nothing', from: fresh, to: [1, 7] },
    { name: 'to nothing', from: apply(fresh, [1, 7]), to: [] },
    { name: 'from some to others', from: apply(fresh, [1, 2]), to: [2, 7] },
  ]
  for (const { name, from, to } of scenes) {
    const changes = planRules(4, from, new Set(to))
    const goal = apply(from, to).map(text).sort()
    for (let done = 0; done <= changes.length; done++) {
      const rules = changes.slice(0, done).reduce(change, [...from])
      t.ok(tables(rules, 0).includes(255), `${name}: after ${done} changes local addresses are looked up`)
      t.same(apply(rules, to).map(text).sort(), goal, `${name}: begun anew after ${done} changes`)
      t.same(apply(rules, []).map(text), fresh.map(text), `${name}: given up after ${done} changes`)
    }
  }
})
