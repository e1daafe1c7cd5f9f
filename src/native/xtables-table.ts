/** A table of iptables as the kernel gives and takes it (struct ipt_entry, ip6t_entry): what chains it has, and one without some. */
import { littleEndian } from '../abi/codec.ts'
import { textOf } from './netlink.ts'

/** Where things are in an entry. */
const layouts = {
  4: { target: 88, next: 90, counters: 96 },
  6: { target: 140, next: 142, counters: 152 },
} as const
const COUNTERS = 16
/** struct xt_entry_target: its size, its name, then what is its own. */
const TARGET = { name: 2, data: 32 } as const
/** Begins a chain, which it names, or ends the table. */
const ERROR = 'ERROR'
const HOOKS = 5

/** Entries, and where the chains of each hook begin and end in them; of a hook that the table has not, anything. */
export interface XtTable {
  readonly family: 4 | 6
  readonly entries: Buffer
  readonly hooks: readonly number[]
  readonly underflows: readonly number[]
}

interface Entry {
  readonly at: number
  readonly bytes: Buffer
  /** The chain that it begins. */
  readonly chain?: string
  /** Where it goes on, if it is matched and that is another entry. */
  readonly to?: number
}

function entriesOf({ family, entries }: XtTable): Entry[] {
  const view = new DataView(entries.buffer, entries.byteOffset, entries.length)
  const found: Entry[] = []
  const { target, next } = layouts[family]
  for (let at = 0; at < entries.length; ) {
    const length = view.getUint16(at + next, littleEndian)
    const begin = at + view.getUint16(at + target, littleEndian)
    const name = textOf(entries.subarray(begin + TARGET.name, begin + TARGET.data))
    const verdict = name === '' ? view.getInt32(begin + TARGET.data, littleEndian) : -1
    const chain = name === ERROR ? textOf(entries.subarray(begin + TARGET.data)) : undefined
    const bytes = entries.subarray(at, at + length)
    found.push({ at, bytes, ...(chain === undefined ? {} : { chain }), ...(verdict < 0 ? {} : { to: verdict }) })
    at += length
  }
  return found
}

/** Names of the chains that are not the kernel's own. */
export function chainsOf(table: XtTable): string[] {
  return entriesOf(table).flatMap(({ chain }) => (chain === undefined || chain === ERROR ? [] : [chain]))
}

/** The table, and of each of its entries which one of the former table it was. */
export interface Reduced {
  readonly table: XtTable
  readonly kept: readonly number[]
}

/** Without the chains that `gone` says, and without the rules that lead to them. */
export function withoutChains(table: XtTable, gone: (chain: string) => boolean): Reduced {
  const entries = entriesOf(table)
  const removed = new Set<number>()
  let inside = false
  for (const { at, chain } of entries) {
    if (chain !== undefined) inside = chain !== ERROR && gone(chain)
    if (inside) removed.add(at)
  }
  const kept = entries.flatMap((entry, i) => {
    const { at, to, bytes } = entry
    const leadsThere = to !== undefined && to !== at + bytes.length && removed.has(to)
    return removed.has(at) || leadsThere ? [] : [{ entry, i }]
  })
  const places = newPlaces(entries, new Set(kept.map(({ i }) => i)))
  const place = (at: number): number => places.get(at) ?? 0
  const { target } = layouts[table.family]
  const moved = kept.map(({ entry: { bytes, to } }) => {
    const copy = Buffer.from(bytes)
    if (to === undefined) return copy
    const view = new DataView(copy.buffer, copy.byteOffset, copy.length)
    view.setInt32(view.getUint16(target, littleEndian) + TARGET.data, place(to), littleEndian)
    return copy
  })
  const { family, hooks, underflows } = table
  const reduced = { family, entries: Buffer.concat(moved), hooks: hooks.map(place), underflows: underflows.map(place) }
  return { table: reduced, kept: kept.map(({ i }) => i) }
}

/** Where each entry comes to be; of one that goes, the next that stays. */
function newPlaces(entries: readonly Entry[], kept: ReadonlySet<number>): Map<number, number> {
  const places = new Map<number, number>()
  let at = 0
  for (const [i, entry] of entries.entries()) {
    places.set(entry.at, at)
    if (kept.has(i)) at += entry.bytes.length
  }
  return places
}

/** How many entries there are. */
export function countEntries(table: XtTable): number {
  return entriesOf(table).length
}

export const xtSizes = { counters: COUNTERS, hooks: HOOKS } as const
