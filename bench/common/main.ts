/** What all benches' entry points do around the measuring: options, output, cleaning up, exit status. */
import { describeMachine } from './machine.ts'
import { type BenchOptions, readOptions, usage } from './options.ts'
import { type Bar, formatBars, isMet, Report } from './report.ts'

/** Things to undo, last first; also when the bench is interrupted. */
export class Cleanup {
  readonly #actions: (() => void | Promise<void>)[] = []
  #running: Promise<void> | undefined

  /** Registers before what it undoes is made. */
  add(action: () => void | Promise<void>): void {
    this.#actions.push(action)
  }

  run(): Promise<void> {
    this.#running ??= this.#runAll()
    return this.#running
  }

  /** All of them, whatever one throws; the first error is thrown at the end. What they hold on to is let go of. */
  async #runAll(): Promise<void> {
    const errors: unknown[] = []
    for (const action of this.#actions.splice(0).toReversed()) {
      try {
        await action()
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }
}

/** What a bench gets, beside its options. */
export interface BenchRun {
  readonly options: BenchOptions
  readonly report: Report
  readonly cleanup: Cleanup
  /** A line to the terminal about what goes on. */
  say(text: string): void
  /** A table to the terminal. */
  show(title: string, table: string): void
}

async function runBench(options: BenchOptions, measure: (run: BenchRun) => Promise<Bar[]>): Promise<void> {
  const report = new Report(describeMachine(), options.json)
  const cleanup = new Cleanup()
  const interrupt = (): void => {
    void cleanup.run().finally(() => process.exit(130))
  }
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt)
  const terminal = options.json === undefined ? process.stderr : process.stdout
  const run: BenchRun = {
    options,
    report,
    cleanup,
    say: (text) => process.stderr.write(`${text}\n`),
    show: (title, table) => terminal.write(`\n${title}\n${table}`),
  }
  try {
    const bars = await measure(run)
    terminal.write(`\n${formatBars(bars)}`)
    process.stdout.write(report.rest())
    if (options.strict && !bars.every(isMet)) process.exitCode = 1
  } catch (error) {
    await cleanup.run().catch((second: unknown) => run.say(`cleaning up: ${describeError(second)}`))
    throw error
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
  }
  await cleanup.run()
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** Runs a bench as a program: exit status 0, or 1 after a message. */
export async function benchMain(measure: (run: BenchRun) => Promise<Bar[]>): Promise<void> {
  try {
    if (process.argv.includes('--help')) process.stdout.write(usage)
    else await runBench(readOptions(process.argv.slice(2)), measure)
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`)
    process.exitCode = 1
  }
}
