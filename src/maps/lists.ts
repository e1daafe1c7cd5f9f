/** Lists of servers: a head and slots in a range of cells, in the kernel's order (the newest server first). */
import { LbCellArray, LbLimit, LbPolicy } from '../abi/generated.ts'
import { type Audience, audienceCell, writeAudience } from './audience.ts'

/** The servers of a service and the weights they count with, in list order. */
export interface ServerList {
  readonly ids: readonly number[]
  readonly weights: readonly number[]
}

/** What a scheduler wants to know about the weights of a list. */
export interface WeightSummary {
  /** wrr's di: the greatest common divisor of the weights above 0; 1 if there are none. */
  readonly gcd: number
  /** wrr's mw: the greatest weight - (di - 1); 0 if all are 0. */
  readonly maxWeight: number
  /** Sum of the weights, at most 2^32 - 1. */
  readonly total: number
}

const CELL_WORDS = LbCellArray.size / 4
const SLOT_WORDS = CELL_WORDS / LbLimit.CELL_SLOTS

/** Order of the smallest range (1 << order cells) with room for a head, `servers` slots and, if it has one, an audience. */
export function orderFor(servers: number, audience = false): number {
  return 32 - Math.clz32(Math.ceil(servers / LbLimit.CELL_SLOTS) + (audience ? 1 : 0))
}

/** As ip_vs_wrr_update_svc(). */
export function summarizeWeights(weights: readonly number[]): WeightSummary {
  let gcd = 0
  let max = 0
  let total = 0
  for (const weight of weights) {
    if (weight <= 0) continue
    total += weight
    if (weight > max) max = weight
    for (let a = weight; a !== 0; ) [gcd, a] = [a, gcd % a]
  }
  gcd ||= 1
  return { gcd, maxWeight: max === 0 ? 0 : max - (gcd - 1), total: Math.min(total, 0xffffffff) }
}

/** Reads the list whose head is `cell`. */
export function readList(cells: LbCellArray, cell: number): ServerList {
  const count = cells.listCount(cell)
  const ids = new Array<number>(count)
  const weights = new Array<number>(count)
  let at = (cell + 1) * CELL_WORDS
  for (let i = 0; i < count; i++, at += SLOT_WORDS) {
    ids[i] = cells.u32[at] ?? 0
    weights[i] = cells.i32[at + 1] ?? 0
  }
  return { ids, weights }
}

/** What a head says besides the servers. */
export interface ListHead {
  /** Id. */
  readonly service: number
  /** enum lb_sched */
  readonly scheduler: number
  /** enum lb_service_flag */
  readonly flags: number
  /** First cell of the buckets (see hash-tables.ts); 0: none. */
  readonly table: number
  /** enum lb_policy, without LB_POLICY_AUDIENCE */
  readonly policy: number
  /** Absent: the same servers for all, and everybody may come. */
  readonly audience?: Audience | undefined
}

/** Writes a list into a range that nobody reads: slots and audience first, then the head. */
export function writeList(cells: LbCellArray, cell: number, head: ListHead, list: ServerList): void {
  const { ids, weights } = list
  let at = (cell + 1) * CELL_WORDS
  for (let i = 0; i < ids.length; i++, at += SLOT_WORDS) {
    cells.u32[at] = ids[i] ?? 0
    cells.i32[at + 1] = weights[i] ?? 0
  }
  const { gcd, maxWeight, total } = summarizeWeights(weights)
  const order = orderFor(ids.length, head.audience !== undefined)
  if (head.audience !== undefined) writeAudience(cells, audienceCell(cell, order), head.audience)
  cells.clear(cell)
  cells.setListCount(cell, ids.length)
  cells.setListService(cell, head.service)
  cells.setListMaxWeight(cell, maxWeight)
  cells.setListGcd(cell, gcd)
  cells.setListSched(cell, head.scheduler)
  cells.setListFlags(cell, head.flags)
  cells.setListOrder(cell, order)
  cells.setListPolicy(cell, head.policy | (head.audience === undefined ? 0 : LbPolicy.POLICY_AUDIENCE))
  cells.setListTotalWeight(cell, total)
  cells.setListTable(cell, head.table)
}
