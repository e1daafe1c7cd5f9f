/**
 * test.ts [--checks | test file...]: checks the tree and runs every test; with --checks, only the former; with files
 * named, only these. Before the last line, which counts assertions, comes the table of the recordings that were replayed;
 * when every test ran, it has to be all of them. Exit status 0 if everything held.
 */
import { globSync } from 'node:fs'
import { runChecks } from './checks.ts'
import { formatRecordings, listScenarios, missingScenarios } from './recordings.ts'
import { runFiles } from './run-tests.ts'
import { formatCounts } from './tap-count.ts'

const interrupted = new AbortController()
const limits = { jobs: 2, timeoutMs: 900_000, stop: interrupted.signal }

/** Runs the checks and prints their findings; returns the names of those that failed. */
function check(): string[] {
  const failed: string[] = []
  for (const { name, ok, output } of runChecks()) {
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}`)
    if (ok) continue
    failed.push(name)
    process.stdout.write(output)
  }
  return failed
}

/** Runs tests, and prints what they and the checks came to; returns whether all is well. */
async function test(files: readonly string[], failedChecks: readonly string[]): Promise<boolean> {
  const { counts, recordings } = await runFiles(files, limits, (line) => console.log(line))
  for (const line of formatRecordings(recordings)) console.log(line)
  const missing = whole && counts.skipped === 0 ? missingScenarios(listScenarios('test/recordings'), recordings) : []
  if (missing.length > 0) console.log(`FAIL recorded, but not replayed: ${missing.join(', ')}`)
  if (limits.stop.aborted) console.log(`FAIL stopped by ${limits.stop.reason}`)
  if (counts.passed === 0) console.log('FAIL no test passed')
  if (failedChecks.length > 0) console.log(`FAIL checks: ${failedChecks.join(', ')}`)
  console.log(formatCounts(counts))
  const ran = !limits.stop.aborted && counts.failed === 0 && counts.passed > 0
  return ran && missing.length === 0 && failedChecks.length === 0
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => interrupted.abort(signal))
const named = process.argv.slice(2)
const whole = named.length === 0
const onlyChecks = named.includes('--checks')
const failedChecks = whole || onlyChecks ? check() : []
const files = whole ? globSync('test/**/*.test.ts').sort() : named
const ok = onlyChecks ? failedChecks.length === 0 : await test(files, failedChecks)
process.exitCode = ok ? 0 : 1
