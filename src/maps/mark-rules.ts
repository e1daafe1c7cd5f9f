/**
 * The table's own rules that mark packets: two lists in lb_mark_rules, of which lb_config.mark_rules names the one in force.
 * A new list goes into the other one, and comes into force by one store.
 */
import { LbConfigArray, LbLimit, LbMarkRuleArray } from '../abi/generated.ts'
import { formatAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Family, MarkRule, Prefix } from '../model/types.ts'
import { protocolNumber, protocolOf } from './names.ts'
import { prefixBytes, prefixLength } from './prefixes.ts'
import type { TableMaps } from './table-maps.ts'

/** A rule as the table has it: the interface by its index, 0: any. */
export interface TableMarkRule extends Omit<MarkRule, 'interface'> {
  readonly ifindex: number
}

const anywhere: Prefix = { family: 6, address: '::', length: 0 }

/** How many rules are in force. */
export function countMarkRules(maps: TableMaps): number {
  return maps.config.markRules(0) & 0xffff
}

/** The rules in force, in their order. */
export function readMarkRules(maps: TableMaps): TableMarkRule[] {
  const records = recordsOf(maps)
  const first = maps.config.markRules(0) >>> 16
  return Array.from({ length: countMarkRules(maps) }, (_, i) => readRule(records, first + i))
}

/** Puts other rules in force. TABLE_FULL, INVALID; nothing has changed then. The table's lock is held. */
export function writeMarkRules(maps: TableMaps, rules: readonly TableMarkRule[]): void {
  if (rules.length > LbLimit.MAX_MARK_RULES) throw new LbError('TABLE_FULL', undefined, { map: 'lb_mark_rules' })
  const records = recordsOf(maps)
  const first = maps.config.markRules(0) >>> 16 === 0 ? LbLimit.MAX_MARK_RULES : 0
  maps.handles.gracePeriod() /* nobody reads the list that was in force before this one any more */
  for (const [i, rule] of rules.entries()) writeRule(records, first + i, rule)
  const word = LbConfigArray.at.markRules / 4
  Atomics.store(maps.config.u32, word, (first << 16) | rules.length)
}

function recordsOf(maps: TableMaps): LbMarkRuleArray {
  return new LbMarkRuleArray(maps.handles.buffer('lb_mark_rules'))
}

function readRule(records: LbMarkRuleArray, i: number): TableMarkRule {
  const af = records.af(i)
  const proto = records.proto(i)
  const family: Family = af === 6 ? 6 : 4
  const from = readPrefix(records.saddr(i), records.smask(i), family)
  const to = readPrefix(records.daddr(i), records.dmask(i), family)
  const [first, last] = [records.portFirst(i), records.portLast(i)]
  return {
    mark: records.mark(i),
    ifindex: records.ifindex(i),
    ...(af === 0 ? {} : { family }),
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(proto === 0 ? {} : { protocol: protocolOf(proto) }),
    ...(first === 0 && last === 65535 ? {} : { ports: { first, last } }),
  }
}

function writeRule(records: LbMarkRuleArray, i: number, rule: TableMarkRule): void {
  const { from, to, ports = { first: 0, last: 65535 } } = rule
  const source = prefixBytes(from ?? anywhere)
  const destination = prefixBytes(to ?? anywhere)
  records.setSaddr(i, source.address)
  records.setSmask(i, source.mask)
  records.setDaddr(i, destination.address)
  records.setDmask(i, destination.mask)
  records.setMark(i, rule.mark)
  records.setIfindex(i, rule.ifindex)
  records.setPortFirst(i, ports.first)
  records.setPortLast(i, ports.last)
  records.setProto(i, rule.protocol === undefined ? 0 : protocolNumber(rule.protocol))
  records.setAf(i, rule.family ?? 0)
}

/** Undefined: no bit counts. */
function readPrefix(address: Uint8Array, mask: Uint8Array, family: Family): Prefix | undefined {
  const length = prefixLength(mask)
  return length === 0 ? undefined : { address: formatAddress(address, 0, family), family, length }
}
