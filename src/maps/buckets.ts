/** How schedulers by hash fill their buckets: with positions in the list of servers, in list order. Pure. */
import { hsiphash } from './hsiphash.ts'

/** What Maglev hashing knows of a server. */
export interface MaglevServer {
  /** Port and folded address (see foldAddress()). */
  readonly key: number
  /** The last weight that was not 0; 0: it never had one, and gets no bucket. */
  readonly weight: number
}

/** ip_vs_mh.c's two keys: golden ratios. Where a server begins to look for a bucket, and how far it goes on. */
const OFFSET_KEY = 2654435761
const SKIP_KEY = 2654446892
/** CONFIG_IP_VS_MH_TAB_INDEX / 2: of the greatest weight only so many bits count. */
const WEIGHT_BITS = 6

/** An address as the kernel hashes it: its 32-bit words (one of IPv4, four of IPv6), folded into one. Host order. */
export function foldAddress(address: DataView, at: number, family: number): number {
  let folded = address.getUint32(at)
  if (family === 6) for (let i = 4; i < 16; i += 4) folded ^= address.getUint32(at + i)
  return folded >>> 0
}

/** dh, as ip_vs_dh_reassign(): servers in turn, whatever their weights. */
export function fillInTurn(buckets: Uint16Array, servers: number): void {
  for (let i = 0; i < buckets.length; i++) buckets[i] = i % servers
}

/** sh, as ip_vs_sh_reassign(): each server as many buckets as its weight, but one if that is 0. */
export function fillByWeight(buckets: Uint16Array, weights: readonly number[]): void {
  let server = 0
  let given = 0
  for (let i = 0; i < buckets.length; i++) {
    buckets[i] = server
    if (++given < (weights[server] ?? 0)) continue
    server = (server + 1) % weights.length
    given = 0
  }
}

/**
 * mh, as ip_vs_mh_populate(): in turn each server takes the next free bucket of its own permutation, as often as its
 * weight says. Where nobody has a weight nobody can be chosen either, and all buckets are the first server's.
 */
export function fillMaglev(buckets: Uint16Array, servers: readonly MaglevServer[]): void {
  const size = buckets.length
  const turns = maglevTurns(servers)
  const places = Uint32Array.from(servers, ({ key }) => hsiphash(key, OFFSET_KEY) % size)
  const skips = Uint32Array.from(servers, ({ key }) => (hsiphash(key, SKIP_KEY) % (size - 1)) + 1)
  const taken = new Uint8Array(size)
  buckets.fill(0)
  let left = turns.some((turn) => turn > 0) ? size : 0
  for (let i = 0; left > 0; i = (i + 1) % servers.length) {
    let place = places[i] ?? 0
    const skip = skips[i] ?? 0
    for (let turn = turns[i] ?? 0; turn > 0 && left > 0; turn--, left--) {
      while (taken[place] !== 0) place = place + skip < size ? place + skip : place + skip - size
      taken[place] = 1
      buckets[place] = i
    }
    places[i] = place
  }
}

/** Buckets that each server takes in its turn, as ip_vs_mh_permutate(). */
function maglevTurns(servers: readonly MaglevServer[]): Uint32Array {
  let divisor = 0
  let most = 0
  for (const { weight } of servers) {
    most = Math.max(most, weight)
    for (let a = weight; a !== 0; ) [divisor, a] = [a, divisor % a]
  }
  const shift = most === 0 ? 0 : Math.max(0, 32 - Math.clz32(most / divisor) - WEIGHT_BITS)
  return Uint32Array.from(servers, ({ weight }) => (weight === 0 ? 0 : Math.max(1, (weight / divisor) >>> shift)))
}
