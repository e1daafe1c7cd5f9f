/**
 * The state of a service's scheduler, which the datapath moves at any time: it compares and exchanges, and so does
 * this. rr: id of the server used last, 0: none. wrr: that id << 32 | current weight (cw). Others have none. lblc and lblcr
 * remember where addresses were sent, in records of their own, void when the service's epoch is another.
 */
import { LbSched, LbServiceStateArray } from '../abi/generated.ts'
import type { TableMaps } from '../maps/table-maps.ts'
import type { WeightSummary } from '../maps/lists.ts'

/**
 * A scheduler is set: by -A, or by -E where another was. wrr begins at the head with cw = mw, as ip_vs_wrr_init_svc().
 */
export function resetCursor(maps: TableMaps, id: number, scheduler: number, weights: WeightSummary): void {
  const start = scheduler === LbSched.SCHED_WRR ? BigInt(weights.maxWeight) : 0n
  Atomics.store(maps.serviceStates.u64, wordOf(id), start)
  forgetAddresses(maps, id)
}

/** A service, or its id, is free: whoever has the id next begins anew. */
export function clearState(maps: TableMaps, id: number): void {
  Atomics.store(maps.serviceStates.u64, wordOf(id), 0n)
  forgetAddresses(maps, id)
}

/** Makes void all that lblc and lblcr remember of a service; the sweeper then lets go of the servers. */
export function forgetAddresses(maps: TableMaps, id: number): void {
  Atomics.add(maps.serviceStates.u32, (id * LbServiceStateArray.size + LbServiceStateArray.at.epoch) / 4, 1)
}

/**
 * A server was added, edited or removed: wrr goes back to the head, cw as ip_vs_wrr_dest_changed(). rr does not mind.
 */
export function serversChanged(maps: TableMaps, id: number, scheduler: number, weights: WeightSummary): void {
  if (scheduler !== LbSched.SCHED_WRR) return
  exchange(maps, id, (cursor) => BigInt(nextWeight(Number(cursor & 0xffffffffn), weights)))
}

/** A server leaves the list (or its id is freed): a cursor on it goes to the server before it; 0: to the head. */
export function leaveServer(maps: TableMaps, id: number, scheduler: number, server: number, before: number): void {
  if (scheduler === LbSched.SCHED_RR) {
    exchange(maps, id, (cursor) => (cursor === BigInt(server) ? BigInt(before) : cursor))
  } else if (scheduler === LbSched.SCHED_WRR) {
    exchange(maps, id, (cursor) => (cursor >> 32n === BigInt(server) ? cursor & 0xffffffffn : cursor))
  }
}

function nextWeight(current: number, { gcd, maxWeight }: WeightSummary): number {
  if (current === 0 || current > maxWeight) return maxWeight
  return gcd > 1 ? Math.floor(current / gcd) * gcd + 1 : current
}

function exchange(maps: TableMaps, id: number, change: (cursor: bigint) => bigint): void {
  const { u64 } = maps.serviceStates
  const at = wordOf(id)
  for (let seen = Atomics.load(u64, at); ; ) {
    const before = Atomics.compareExchange(u64, at, seen, change(seen))
    if (before === seen) return
    seen = before
  }
}

function wordOf(id: number): number {
  return (id * LbServiceStateArray.size + LbServiceStateArray.at.cursor) / 8
}
