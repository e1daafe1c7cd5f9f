/** The kernel's hsiphash() of one number, as 64-bit machines have it: SipHash-1-3 folded to 32 bits (bpf/sched/siphash.h). */

/** v0 to v3, each as its low and its high half. */
const INITIAL = Int32Array.of(
  0x70736575,
  0x736f6d65,
  0x6e646f6d,
  0x646f7261,
  0x6e657261,
  0x6c796765,
  0x79746573,
  0x74656462,
)
/** The length of a number, 4, in the top byte of the block that it is hashed as. */
const LENGTH = 4 << 24

const v = new Int32Array(8)

/** `value` and `key` are unsigned 32-bit numbers; both halves of the 128-bit key are `key`. */
export function hsiphash(value: number, key: number): number {
  v.set(INITIAL)
  for (let word = 0; word < 8; word += 2) v[word] = at(word) ^ key
  v[6] = at(6) ^ value
  v[7] = at(7) ^ LENGTH
  round()
  v[0] = at(0) ^ value
  v[1] = at(1) ^ LENGTH
  v[4] = at(4) ^ 0xff
  for (let i = 0; i < 3; i++) round()
  return (at(0) ^ at(2) ^ at(4) ^ at(6)) >>> 0
}

function at(word: number): number {
  return v[word] ?? 0
}

function round(): void {
  mix(0, 2, 13)
  swapHalves(0)
  mix(4, 6, 16)
  mix(0, 6, 21)
  mix(4, 2, 17)
  swapHalves(4)
}

/** a += b; b = (b rotated left by `bits`) ^ a. */
function mix(a: number, b: number, bits: number): void {
  const low = at(b)
  const high = at(b + 1)
  const sum = (at(a) >>> 0) + (low >>> 0)
  v[a] = sum
  v[a + 1] = at(a + 1) + high + (sum > 0xffffffff ? 1 : 0)
  v[b] = ((low << bits) | (high >>> (32 - bits))) ^ at(a)
  v[b + 1] = ((high << bits) | (low >>> (32 - bits))) ^ at(a + 1)
}

/** A rotation by 32. */
function swapHalves(word: number): void {
  const low = at(word)
  v[word] = at(word + 1)
  v[word + 1] = low
}
