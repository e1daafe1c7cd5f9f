/** The mark rules of the calling thread's namespace, with interfaces by name. */
import type { TableMarkRule } from '../maps/mark-rules.ts'
import { LbError } from '../model/errors.ts'
import type { MarkRule } from '../model/types.ts'
import { listInterfaces } from '../native/interfaces.ts'
import { openExistingTable, openTable } from '../native/loader.ts'
import { KernelTable } from './kernel-table.ts'

/** The rules in their order; none without a table. An interface that is gone is called if#INDEX. */
export function listMarkRules(): MarkRule[] {
  const handles = openExistingTable()
  if (handles === undefined) return []
  const table = new KernelTable(handles)
  try {
    const names = new Map(listInterfaces().map(({ ifindex, name }) => [ifindex, name]))
    return table.markRules().map(({ ifindex, ...rule }) => {
      return ifindex === 0 ? rule : { ...rule, interface: names.get(ifindex) ?? `if#${ifindex}` }
    })
  } finally {
    table.close()
  }
}

/** Adds a rule behind the others; makes the table if there is none. INVALID, TABLE_FULL. */
export function addMarkRule(rule: MarkRule): void {
  const added = withIndex(rule)
  const table = new KernelTable(openTable())
  try {
    table.editMarkRules((rules) => [...rules, added])
  } finally {
    table.close()
  }
}

/** Removes the first rule that is the same. INVALID: there is none. */
export function deleteMarkRule(rule: MarkRule): void {
  const wanted = JSON.stringify(sorted(withIndex(rule)))
  const handles = openExistingTable()
  if (handles === undefined) throw missing()
  const table = new KernelTable(handles)
  try {
    table.editMarkRules((rules) => {
      const at = rules.findIndex((each) => JSON.stringify(sorted(each)) === wanted)
      if (at < 0) throw missing()
      return rules.toSpliced(at, 1)
    })
  } finally {
    table.close()
  }
}

function missing(): LbError {
  return new LbError('INVALID', 'No such mark rule')
}

function withIndex({ interface: name, ...rule }: MarkRule): TableMarkRule {
  if (name === undefined) return { ...rule, ifindex: 0 }
  const gone = /^if#(\d+)$/.exec(name)?.[1]
  const ifindex = gone === undefined ? listInterfaces().find((each) => each.name === name)?.ifindex : Number(gone)
  if (ifindex === undefined) throw new LbError('INVALID', `No such interface: ${name}`)
  return { ...rule, ifindex }
}

/** A rule in one order of its words; all ports are no word. */
function sorted({ mark, ifindex, from, to, protocol, ports, family }: TableMarkRule): unknown[] {
  const prefix = (each: TableMarkRule['from']) =>
    each === undefined || each.length === 0 ? [] : [each.address, each.length]
  return [mark, ifindex, prefix(from), prefix(to), protocol ?? '', ports?.first ?? 0, ports?.last ?? 65535, family ?? 0]
}
