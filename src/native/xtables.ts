/** Tables of iptables-legacy in the calling thread's network namespace: which chains they have; chains are removed. */
import { readFileSync } from 'node:fs'
import { littleEndian } from '../abi/codec.ts'
import { bind, check, type Signature } from './library.ts'
import { chainsOf, countEntries, withoutChains, type XtTable, xtSizes } from './xtables-table.ts'

interface Functions {
  bpvs_xtables_get(family: number, option: number, value: Uint8Array, length: number): number
  bpvs_xtables_set(
    family: number,
    option: number,
    value: Uint8Array,
    length: number,
    counters: Uint8Array | null,
  ): number
}

const c = bind<Functions>({
  bpvs_xtables_get: ['int', 'uint32', 'int', 'void *', 'uint32'],
  bpvs_xtables_set: ['int', 'uint32', 'int', 'void *', 'uint32', 'void *'],
} satisfies Record<keyof Functions, Signature>)

const families = [4, 6] as const
type Family = (typeof families)[number]

/** Numbers of options, and where things are in what goes with them: struct ipt_getinfo, ipt_get_entries, ipt_replace, xt_counters_info. */
const info = { option: 64, size: 84, validHooks: 32, hooks: 36, underflows: 56, count: 76, length: 80 } as const
const get = { option: 65, length: 32, entries: 40 } as const
const replace = {
  option: 64,
  validHooks: 32,
  count: 36,
  length: 40,
  hooks: 44,
  underflows: 64,
  counters: 84,
  entries: 96,
} as const
const add = { option: 65, count: 32, counters: 40 } as const

/** One of the kernel's tables. `validHooks`: a bit for each hook that it has. */
export interface LegacyTable {
  readonly name: string
  readonly validHooks: number
  readonly table: XtTable
}

/** Tables that there are: looking at others would make them. */
function tableNames(family: Family): string[] {
  try {
    return readFileSync(`/proc/thread-self/net/${family === 4 ? 'ip' : 'ip6'}_tables_names`, 'utf8')
      .split('\n')
      .filter((name) => name !== '')
  } catch {
    return []
  }
}

/** The table of a name, which is made if there is none. NATIVE, PERMISSION. */
export function readLegacyTable(family: Family, name: string): LegacyTable {
  const about = Buffer.alloc(info.size)
  about.write(name)
  check(c.bpvs_xtables_get(family, info.option, about, about.length), 'IPT_SO_GET_INFO', name)
  const numbers = new DataView(about.buffer, about.byteOffset, about.length)
  const five = (at: number) =>
    Array.from({ length: xtSizes.hooks }, (_, i) => numbers.getUint32(at + 4 * i, littleEndian))
  const length = numbers.getUint32(info.length, littleEndian)
  const all = Buffer.alloc(get.entries + length)
  all.write(name)
  new DataView(all.buffer, all.byteOffset).setUint32(get.length, length, littleEndian)
  check(c.bpvs_xtables_get(family, get.option, all, all.length), 'IPT_SO_GET_ENTRIES', name)
  return {
    name,
    validHooks: numbers.getUint32(info.validHooks, littleEndian),
    table: { family, entries: all.subarray(get.entries), hooks: five(info.hooks), underflows: five(info.underflows) },
  }
}

/** Has some table such a chain? NATIVE, PERMISSION. */
export function hasLegacyChain(chain: string): boolean {
  return families.some((family) =>
    tableNames(family).some((name) => chainsOf(readLegacyTable(family, name).table).includes(chain)),
  )
}

/** Removes chains, and the rules that lead to them; how many chains. Counters of what stays are kept. NATIVE, PERMISSION. */
export function removeLegacyChains(gone: (chain: string) => boolean): number {
  let removed = 0
  for (const family of families) {
    for (const name of tableNames(family)) {
      const found = readLegacyTable(family, name)
      const chains = chainsOf(found.table).filter(gone).length
      if (chains > 0) write(found, gone)
      removed += chains
    }
  }
  return removed
}

function write({ name, validHooks, table }: LegacyTable, gone: (chain: string) => boolean): void {
  const reduced = withoutChains(table, gone)
  const counters = replaceLegacyTable({ name, validHooks, table: reduced.table }, countEntries(table))
  addCounters(name, table.family, reduced.kept, counters)
}

/**
 * Puts a table in the place of the one of its name, which has `before` entries, in one step; their counters. NATIVE: also if somebody
 * else has changed it since it was read (EAGAIN).
 */
export function replaceLegacyTable({ name, validHooks, table }: LegacyTable, before: number): Buffer {
  const { family, entries, hooks, underflows } = table
  const message = Buffer.alloc(replace.entries + entries.length)
  const numbers = new DataView(message.buffer, message.byteOffset)
  const set = (at: number, value: number): void => numbers.setUint32(at, value, littleEndian)
  message.write(name)
  set(replace.validHooks, validHooks)
  set(replace.count, countEntries(table))
  set(replace.length, entries.length)
  for (const [i, at] of hooks.entries()) set(replace.hooks + 4 * i, at)
  for (const [i, at] of underflows.entries()) set(replace.underflows + 4 * i, at)
  set(replace.counters, before)
  entries.copy(message, replace.entries)
  const counters = Buffer.alloc(before * xtSizes.counters)
  const result = c.bpvs_xtables_set(family, replace.option, message, message.length, counters)
  check(result, 'IPT_SO_SET_REPLACE', name)
  return counters
}

/** A table begins with counters of 0. */
function addCounters(name: string, family: Family, kept: readonly number[], counters: Buffer): void {
  const size = xtSizes.counters
  const message = Buffer.alloc(add.counters + kept.length * size)
  message.write(name)
  new DataView(message.buffer, message.byteOffset).setUint32(add.count, kept.length, littleEndian)
  for (const [i, entry] of kept.entries())
    counters.copy(message, add.counters + i * size, entry * size, (entry + 1) * size)
  check(c.bpvs_xtables_set(family, add.option, message, message.length, null), 'IPT_SO_SET_ADD_COUNTERS', name)
}
