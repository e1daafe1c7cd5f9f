/** What came of the cases of a recording: answered as recorded, different by intent, or neither. */
import { isDeepStrictEqual } from 'node:util'
import type { Test } from 'tap'
import { type ScenarioCount, formatScenarioCount } from '../../tools/recordings.ts'
import { type Difference, differences } from './differences.ts'
import { readJsonRecording } from './recordings-json.ts'

interface Recorded {
  readonly scenarios?: readonly { readonly name: string; readonly steps?: readonly { readonly do?: string }[] }[]
}

/** Steps that nobody answered. */
const actions: ReadonlySet<string | undefined> = new Set(['close', 'sleep', 'note', 'table', 'sh', 'time'])

/** Whether a step of a recording is a case: somebody answered it. */
export function isAnswered(step: { readonly do?: string }): boolean {
  return !actions.has(step.do)
}

/** A case that was played: what it was, and what differed the last time that anything did. */
interface Case {
  readonly what: string
  readonly by: Difference | undefined
  readonly unexplained: readonly string[]
}

/** Collects what differs between a case's recorded answer and bpvs's. */
export class Findings {
  #found: string[] = []

  same(now: unknown, recorded: unknown, what: string): void {
    if (!isDeepStrictEqual(now, recorded)) {
      this.#found.push(`${what}: ${JSON.stringify(now)}, recorded ${JSON.stringify(recorded)}`)
    }
  }

  ok(isRight: boolean, what: string): void {
    if (!isRight) this.#found.push(what)
  }

  /** What somebody else found out, or undefined. */
  add(difference: string | undefined): void {
    if (difference !== undefined) this.#found.push(difference)
  }

  /** What was found since the last time. */
  take(): string[] {
    const found = this.#found
    this.#found = []
    return found
  }
}

/**
 * Counts the cases that a test plays; one that is played in several ways counts once, and as different if it is so in any.
 * A scenario that is played at all must be played whole.
 */
export class Tally {
  readonly #recording: string
  readonly #scenarios = new Map<string, Map<number, Case>>()

  constructor(recording: string) {
    this.#recording = recording
  }

  /**
   * Notes a case: its scenario, its place among the scenario's steps, what was done, and what differs from the recorded
   * answer. Returns what of that no difference by intent explains.
   */
  note(scenario: string, step: number, what: string, found: readonly string[]): readonly string[] {
    let cases = this.#scenarios.get(scenario)
    if (cases === undefined) this.#scenarios.set(scenario, (cases = new Map()))
    const by = found.length === 0 ? undefined : this.#explanation(scenario, what, found)
    const unexplained = by === undefined ? found : []
    const before = cases.get(step)
    if (before === undefined || found.length > 0) cases.set(step, { what, by, unexplained })
    return unexplained
  }

  /** Asserts that nothing differs but by intent, and tells the run of tests what was counted. */
  end(t: Test): void {
    const unmatched: string[] = []
    for (const [scenario, cases] of this.#scenarios) {
      for (const step of this.#answered(scenario)) {
        if (!cases.has(step)) cases.set(step, { what: `step ${step}`, by: undefined, unexplained: ['not played'] })
      }
      for (const { what, unexplained } of cases.values()) {
        if (unexplained.length > 0) unmatched.push(`${scenario}: ${what}: ${unexplained.join(' ')}`)
      }
      t.comment(formatScenarioCount(this.#count(scenario, cases)))
    }
    t.ok(this.#scenarios.size > 0, `${this.#recording}: there was something to compare with`)
    t.same(unmatched, [], `${this.#recording}: every case is answered as recorded, or differs by intent`)
    t.same(this.#stale(), [], `${this.#recording}: what is to differ by intent does`)
  }

  #explanation(scenario: string, what: string, found: readonly string[]): Difference | undefined {
    return this.#known(scenario).find((each) => each.what.test(what) && found.every((text) => each.found.test(text)))
  }

  #known(scenario: string): readonly Difference[] {
    return differences.filter((each) => each.recording === this.#recording && each.scenario === scenario)
  }

  /** Steps of a scenario that have an answer. */
  #answered(scenario: string): number[] {
    const { scenarios = [] } = readJsonRecording<Recorded>(this.#recording)
    const steps = scenarios.find(({ name }) => name === scenario)?.steps ?? []
    return steps.flatMap((step, i) => (isAnswered(step) ? [i] : []))
  }

  #count(scenario: string, cases: ReadonlyMap<number, Case>): ScenarioCount {
    const explained: Record<string, number> = {}
    let [matched, unmatched] = [0, 0]
    for (const { by, unexplained } of cases.values()) {
      if (by !== undefined) explained[by.name] = (explained[by.name] ?? 0) + 1
      else if (unexplained.length > 0) unmatched++
      else matched++
    }
    return { recording: this.#recording, scenario, matched, unmatched, explained }
  }

  /** Differences that did not occur as often as they say. */
  #stale(): string[] {
    return [...this.#scenarios].flatMap(([scenario, cases]) =>
      this.#known(scenario).flatMap((each) => {
        const count = [...cases.values()].filter(({ by }) => by === each).length
        return count === each.cases
          ? []
          : [`${each.name}: ${count} of ${each.cases} in ${scenario}: ${each.what.source}`]
      }),
    )
  }
}
