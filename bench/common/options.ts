/** The options that both benches take. */
import { parseArgs } from 'node:util'

export interface BenchOptions {
  /** Less of everything. */
  readonly quick: boolean
  /** A bar that is not met is a failure. */
  readonly strict: boolean
  /** File for the JSON lines; without one they go to standard output. */
  readonly json: string | undefined
  readonly rounds: number | undefined
}

export const usage = `options:
  --quick        a short run with less of everything
  --rounds N     how many rounds
  --json FILE    write the JSON lines to FILE and only the tables to the terminal
  --strict       exit with status 1 if a bar is not met
`

/** Reads the command line. Throws a TypeError or RangeError that says what is wrong. */
export function readOptions(argv: readonly string[]): BenchOptions {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      strict: { type: 'boolean', default: false },
      json: { type: 'string' },
      rounds: { type: 'string' },
    },
  })
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds)
  if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) {
    throw new RangeError(`--rounds ${values.rounds}: not a number from 1 on`)
  }
  return { quick: values.quick, strict: values.strict, json: values.json, rounds }
}
