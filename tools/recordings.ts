/** The count of replayed recordings: what tests tell of it, and the table that it makes. */
import { globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { gunzipSync } from 'node:zlib'

/** What came of a recording's scenario. */
export interface ScenarioCount {
  readonly recording: string
  readonly scenario: string
  /** Cases that are answered as recorded. */
  readonly matched: number
  /** Cases that are not, and nobody knows why. */
  readonly unmatched: number
  /** Cases that differ by intent, by the name that docs/differences.md has for the reason. */
  readonly explained: Readonly<Record<string, number>>
}

/** The name of the only scenario of a recording that is not made of scenarios. */
export const wholeRecording = 'all'

/** As a test tells it, in a comment. */
export function formatScenarioCount({ recording, scenario, matched, unmatched, explained }: ScenarioCount): string {
  const known = Object.entries(explained).map(([name, count]) => `, ${count} by intent (${name})`)
  return `recording ${recording}/${scenario}: ${matched} matched, ${unmatched} unmatched${known.join('')}`
}

/** Reads a line of TAP; undefined if it is no such comment. */
export function parseScenarioCount(line: string): ScenarioCount | undefined {
  const match = /^ *# recording ([^/]+)\/(.+): (\d+) matched, (\d+) unmatched((?:, \d+ by intent \([\w-]+\))*)$/.exec(
    line,
  )
  if (match === null) return undefined
  const [, recording = '', scenario = '', matched, unmatched, known = ''] = match
  const pairs = [...known.matchAll(/(\d+) by intent \(([\w-]+)\)/g)]
  const explained = Object.fromEntries(pairs.map(([, count, name = '']) => [name, Number(count)]))
  return { recording, scenario, matched: Number(matched), unmatched: Number(unmatched), explained }
}

/** All scenarios of the recordings in a directory, as RECORDING/SCENARIO. */
export function listScenarios(directory: string): string[] {
  return globSync(`${directory}/*.json.gz`)
    .sort()
    .flatMap((file) => {
      const { scenarios } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as { scenarios?: { name: string }[] }
      const names = scenarios?.map(({ name }) => name) ?? [wholeRecording]
      return names.map((name) => `${basename(file, '.json.gz')}/${name}`)
    })
}

/** The sum over counts of one recording, as a row. */
function row(name: string, counts: readonly ScenarioCount[]): string[] {
  const sum = (of: (count: ScenarioCount) => number): string => String(counts.reduce((all, each) => all + of(each), 0))
  return [
    name,
    String(counts.length),
    sum(({ matched }) => matched),
    sum(({ unmatched }) => unmatched),
    sum(({ explained }) => Object.values(explained).reduce((all, count) => all + count, 0)),
  ]
}

/** The table of all recordings that were counted, line by line; none if there are none. */
export function formatRecordings(counts: readonly ScenarioCount[]): string[] {
  if (counts.length === 0) return []
  const names = [...new Set(counts.map(({ recording }) => recording))].sort()
  const rows = [
    ['recording', 'scenarios', 'matched', 'unmatched', 'by intent'],
    ...names.map((name) =>
      row(
        name,
        counts.filter(({ recording }) => recording === name),
      ),
    ),
    row('all', counts),
  ]
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0)))
  return rows.map((cells) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
  )
}

/** Those of `scenarios` that nobody counted. */
export function missingScenarios(scenarios: readonly string[], counts: readonly ScenarioCount[]): string[] {
  const counted = new Set(counts.map(({ recording, scenario }) => `${recording}/${scenario}`))
  return scenarios.filter((name) => !counted.has(name))
}
