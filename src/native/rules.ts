/** Rules of policy routing, and which of them send marked packets to the veth. */
import { littleEndian } from '../abi/codec.ts'
import { bind, check, errno, type Signature } from './library.ts'

/** A rule; its place among those of its preference is that of its making. */
export interface Rule {
  readonly family: 4 | 6
  readonly pref: number
  readonly action: 'lookup' | 'goto' | 'nop' | 'other'
  /** Of a look-up. */
  readonly table: number
  /** Of a goto: a preference. */
  readonly target: number
  readonly mark: number
  /** 0: any mark. */
  readonly mask: number
  /** Who made it: RTPROT_*. */
  readonly protocol: number
  /** Interface that the packet came in by; '': any. */
  readonly iif: string
  /** It asks for more than this says. */
  readonly more: boolean
}

export interface RuleChange {
  readonly do: 'add' | 'delete'
  readonly rule: Rule
}

/** The numbers that docs/architecture.md lists: of our rules, of the routing table, and of who made both. */
export const steering = { table: 181, protocol: 181, pref: 0, anchorPref: 1, peer: 'bpvs1' } as const

const LOCAL_TABLE = 255
const PROTOCOL_KERNEL = 2
const WHOLE_MARK = 0xffffffff

interface Functions {
  bpvs_rules(family: number, out: Uint8Array, room: number): number
  bpvs_rule_change(rule: Uint8Array, add: number): number
}

const c = bind<Functions>({
  bpvs_rules: ['int', 'uint32', 'void *', 'uint32'],
  bpvs_rule_change: ['int', 'void *', 'int'],
} satisfies Record<keyof Functions, Signature>)

const RECORD = 40 /* struct bpvs_rule */
const NAME_AT = 24
const actions = ['other', 'lookup', 'goto', 'nop'] as const /* by FR_ACT_* */

function readRule(record: Buffer): Rule {
  const word = (n: number): number => new DataView(record.buffer, record.byteOffset).getUint32(n * 4, littleEndian)
  return {
    pref: word(0),
    table: word(1),
    mark: word(2),
    mask: word(3),
    target: word(4),
    family: record[20] === 4 ? 4 : 6,
    action: actions[record[21] ?? 0] ?? 'other',
    protocol: record[22] ?? 0,
    more: record[23] !== 0,
    iif: record.toString('utf8', NAME_AT, record.indexOf(0, NAME_AT)),
  }
}

function writeRule(rule: Rule): Buffer {
  const record = Buffer.alloc(RECORD)
  const words = [rule.pref, rule.table, rule.mark, rule.mask, rule.target]
  const view = new DataView(record.buffer, record.byteOffset)
  for (const [n, value] of words.entries()) view.setUint32(n * 4, value, littleEndian)
  record.set([rule.family, actions.indexOf(rule.action), rule.protocol], 20)
  record.write(rule.iif, NAME_AT, 'utf8')
  return record
}

/** The rules of a family, in their order; none where the kernel has no such family. */
export function listRules(family: 4 | 6): Rule[] {
  for (let room = 64; ; room *= 4) {
    const out = Buffer.alloc(room * RECORD)
    const result = c.bpvs_rules(family, out, room)
    if (result === -errno.EAFNOSUPPORT || result === -errno.EOPNOTSUPP) return []
    const count = check(result, 'RTM_GETRULE')
    if (count > room) continue
    return Array.from({ length: count }, (_, i) => readRule(out.subarray(i * RECORD, (i + 1) * RECORD)))
  }
}

/** Adds or removes one rule. NATIVE, PERMISSION. */
export function changeRule(change: RuleChange): void {
  const add = change.do === 'add'
  check(c.bpvs_rule_change(writeRule(change.rule), Number(add)), add ? 'RTM_NEWRULE' : 'RTM_DELRULE')
}

function ownRule(family: 4 | 6, rule: Partial<Rule>): Rule {
  const plain = { target: 0, mark: 0, mask: 0, iif: '', more: false, table: 0 } as const
  return { ...plain, family, action: 'lookup', pref: steering.pref, protocol: steering.protocol, ...rule }
}

function isLocal(rule: Rule): boolean {
  return rule.action === 'lookup' && rule.table === LOCAL_TABLE && rule.mask === 0 && rule.iif === '' && !rule.more
}

/**
 * What makes the rules of a family send packets with these marks to our table, and others nowhere else than before:
 *
 *     0: from all iif bpvs1 goto 1          what came back from the veth
 *     0: from all fwmark M lookup 181       for each mark
 *     1: from all lookup local              was the first rule, at 0
 *
 * In an order in which at no moment local addresses are not looked up, and which can begin anew wherever it ended.
 */
export function planRules(family: 4 | 6, present: readonly Rule[], marks: ReadonlySet<number>): RuleChange[] {
  const own = present.filter((rule) => rule.protocol === steering.protocol)
  const first = present.find((rule) => rule.pref === 0 && rule.protocol !== steering.protocol && isLocal(rule))
  const anchor = own.find((rule) => rule.pref === steering.anchorPref)
  const guard = own.find((rule) => rule.action === 'goto')
  const marked = own.filter((rule) => rule.mask !== 0)
  const add = (rule: Partial<Rule>): RuleChange => ({ do: 'add', rule: ownRule(family, rule) })
  const remove = (rules: readonly (Rule | undefined)[]): RuleChange[] =>
    rules.flatMap((rule) => (rule === undefined ? [] : [{ do: 'delete', rule }]))
  if (marks.size === 0) {
    const moved = anchor !== undefined && isLocal(anchor) && first === undefined
    const back = moved ? [add({ table: LOCAL_TABLE, protocol: PROTOCOL_KERNEL })] : []
    return [...back, ...remove([...marked, anchor, guard])]
  }
  const kept = guard === undefined ? [] : marked.filter((rule) => marks.has(rule.mark))
  const known = new Set(kept.map((rule) => rule.mark))
  const isAnchorLocal = anchor === undefined ? first !== undefined : isLocal(anchor)
  const newAnchor = isAnchorLocal ? { table: LOCAL_TABLE } : ({ action: 'nop' } as const)
  return [
    ...(anchor === undefined ? [add({ pref: steering.anchorPref, ...newAnchor })] : []),
    ...remove(marked.filter((rule) => !kept.includes(rule))),
    ...(guard === undefined ? [add({ action: 'goto', target: steering.anchorPref, iif: steering.peer })] : []),
    ...Array.from(marks)
      .filter((mark) => !known.has(mark))
      .map((mark) => add({ mark, mask: WHOLE_MARK, table: steering.table })),
    ...(isAnchorLocal ? remove([first]) : []),
  ]
}
