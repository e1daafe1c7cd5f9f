/** How many jiffies the kernel has in a second, from one sample of its clocks. Pure. */
import { LbError } from '../model/errors.ts'

/** Jiffies (64 bits) and CLOCK_MONOTONIC in ns, read together. */
export interface ClockSample {
  readonly jiffies: bigint
  readonly ktimeNs: bigint
}

/** Values of CONFIG_HZ that architectures offer. */
const CANDIDATES = [24, 48, 64, 100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024, 1200]
/** INITIAL_JIFFIES: jiffies start so that 32 bits overflow five minutes after boot. */
const START_S = -300
/** Ticks a second that lb_tick_shift aims at, at least. */
const MIN_TICKS = 12

/**
 * Hz by the time since jiffies passed 2^32, or undefined if that was so close to the sample that candidates can't be
 * told apart: then take another, seconds later.
 */
export function hzFromSample({ jiffies, ktimeNs }: ClockSample): number | undefined {
  const seconds = Number(ktimeNs) / 1e9 + START_S
  const measured = Number(jiffies - (1n << 32n)) / seconds
  const near = CANDIDATES.toSorted((a, b) => Math.abs(a - measured) - Math.abs(b - measured))[0] ?? 0
  /* A jiffy or two of jitter, against the distance to the next candidate (at least 2% away). */
  return Math.abs(seconds) > 1 && Math.abs(near / measured - 1) < 0.008 ? near : undefined
}

/** Hz by the difference of two samples. UNSUPPORTED if it is no rate that Linux has. */
export function hzFromSamples(a: ClockSample, b: ClockSample): number {
  const measured = Number(b.jiffies - a.jiffies) / (Number(b.ktimeNs - a.ktimeNs) / 1e9)
  const near = CANDIDATES.toSorted((x, y) => Math.abs(x - measured) - Math.abs(y - measured))[0] ?? 0
  if (Math.abs(near / measured - 1) < 0.1) return near
  throw new LbError('UNSUPPORTED', `the kernel counts ${measured.toFixed(1)} jiffies a second, no known CONFIG_HZ`)
}

/** The shift from jiffies to ticks: about 16 ticks a second, never fewer than 12. */
export function tickShift(hz: number): number {
  return Math.max(0, Math.floor(Math.log2(hz / MIN_TICKS)))
}
