/** Numbers that look random and are the same in every run. */

/** Returns a function that gives whole numbers from 0 to below its argument (xorshift32 from `seed`, not 0). */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state % below
  }
}
