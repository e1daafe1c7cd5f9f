/** Waiting on conditions instead of sleeping. */
import { setTimeout as delay } from 'node:timers/promises'

/**
 * Asks until the answer is neither undefined nor false, and returns it. Throws after the deadline, naming what was
 * waited for.
 */
export async function waitFor<T>(
  what: string,
  ask: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + deadlineMs
  for (;;) {
    const answer = await ask()
    if (answer !== undefined && answer !== false) return answer
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain: ${what}`)
    await delay(5)
  }
}
