/** Counting what a TAP stream says. */

/** How many assertions passed, failed and were skipped. */
export interface Counts {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

interface Point {
  readonly indent: number
  readonly ok: boolean
  readonly skipped: boolean
}

/** One line as a test point, or undefined if it is anything else. A "todo" counts as skipped: it proves nothing. */
function parsePoint(line: string): Point | undefined {
  const match = /^( *)(not )?ok\b/.exec(line)
  if (match === null) return undefined
  const skipped = /(?<!\\)# *(skip|todo)\b/i.test(line)
  return { indent: match[1]?.length ?? 0, ok: match[2] === undefined, skipped }
}

/**
 * Counts assertions. A point that sums up deeper ones counts for itself only if it failed though none of them did: a
 * file that crashed, a plan not kept, a timeout. "Bail out!" counts as one failure.
 */
export class TapCounter {
  #passed = 0
  #failed = 0
  #skipped = 0
  /** Of each depth that has points not yet summed up: how many failures they brought. */
  readonly #failures = new Map<number, number>()
  /** Points that came before their own subtest, in braces: they count when it closes. */
  readonly #opened: Point[] = []
  /** Indent of the diagnostic block that the line is in. */
  #diagnostic: number | undefined

  get counts(): Counts {
    return { passed: this.#passed, failed: this.#failed, skipped: this.#skipped }
  }

  /** Takes one line, without its newline. */
  line(line: string): void {
    const indent = line.search(/\S/)
    if (this.#diagnostic !== undefined) {
      if (indent === this.#diagnostic && line.trim() === '...') this.#diagnostic = undefined
      return
    }
    if (line.trim() === '---') this.#diagnostic = indent
    if (/^ *Bail out!/.test(line)) this.#failed += 1
    const closed = line.trim() === '}' && this.#opened.at(-1)?.indent === indent ? this.#opened.pop() : undefined
    const point = closed ?? parsePoint(line)
    if (point === undefined) return
    if (closed === undefined && line.endsWith(' {')) this.#opened.push(point)
    else this.#point(point)
  }

  #point({ indent, ok, skipped }: Point): void {
    const deeper = [...this.#failures].filter(([depth]) => depth > indent)
    let failures = deeper.reduce((sum, [, count]) => sum + count, 0)
    for (const [depth] of deeper) this.#failures.delete(depth)
    if (!ok && !skipped && failures === 0) {
      this.#failed += 1
      failures = 1
    } else if (deeper.length === 0) {
      if (skipped) this.#skipped += 1
      else this.#passed += 1
    }
    this.#failures.set(indent, (this.#failures.get(indent) ?? 0) + failures)
  }
}

/** The words that end a run: "3 passed, 0 failed, 1 skipped". */
export function formatCounts({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`
}
