/** Runs test files, each in a process of its own, some at a time, and makes a short report of each. */
import { spawn } from 'node:child_process'
import { performance } from 'node:perf_hooks'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { parseScenarioCount, type ScenarioCount } from './recordings.ts'
import { type Counts, formatCounts, TapCounter } from './tap-count.ts'

/** How a test file's process went. */
export interface FileRun {
  readonly file: string
  /** Its standard output: TAP. */
  readonly tap: readonly string[]
  readonly stderr: readonly string[]
  /** How it ended, if not with status 0: "status 1", "SIGKILL", "time-out after 300 s". */
  readonly trouble: string | undefined
  readonly ms: number
}

/** What is said of a file, and what it adds to the totals. */
export interface FileReport {
  readonly lines: readonly string[]
  readonly counts: Counts
}

export interface Limits {
  /** Files that run at the same time. */
  readonly jobs: number
  /** How long one file may take. */
  readonly timeoutMs: number
  /** Ends the run early; its reason is the signal that the running files get. */
  readonly stop: AbortSignal
}

async function collect(stream: Readable): Promise<string[]> {
  const lines: string[] = []
  for await (const line of createInterface({ input: stream })) lines.push(line)
  return lines
}

/**
 * Runs one file to its end; past the limit it is killed. When `stop` aborts, the file gets the signal that is the
 * reason. Rejects only if Node can't be started.
 */
export async function runFile(file: string, timeoutMs: number, stop: AbortSignal): Promise<FileRun> {
  const start = performance.now()
  const env = { ...process.env, TAP_TIMEOUT: String(Math.ceil(timeoutMs / 1000)) }
  const child = spawn(process.execPath, [file], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, timeoutMs)
  const forward = (): boolean => child.kill(stop.reason as NodeJS.Signals)
  stop.addEventListener('abort', forward)
  const ended = new Promise<string | undefined>((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (status, signal) => resolve(signal ?? (status === 0 ? undefined : `status ${status}`)))
  })
  const [tap, stderr, how] = await Promise.all([collect(child.stdout), collect(child.stderr), ended])
  clearTimeout(timer)
  stop.removeEventListener('abort', forward)
  const trouble = late ? `time-out after ${timeoutMs / 1000} s` : how
  return { file, tap, stderr, trouble, ms: performance.now() - start }
}

/** A skipped assertion or subtest: "name (reason)", or undefined if the line is none. */
function parseSkip(line: string): string | undefined {
  const match = /^ *(?:not )?ok \d+ - (.*?) # (?:skip|todo)\b *(.*)$/i.exec(line)
  return match === null ? undefined : `${match[1]} (${match[2] || 'no reason given'})`
}

/**
 * One line for a file that passed and one for each skip in it; all it said for one that failed. A process that ended
 * badly although nothing in it failed, or that checked nothing at all, is one failure.
 */
export function reportFile({ file, tap, stderr, trouble, ms }: FileRun): FileReport {
  const counter = new TapCounter()
  for (const line of tap) counter.line(line)
  let counts = counter.counts
  const silent = counts.passed + counts.failed + counts.skipped === 0
  if (counts.failed === 0 && (trouble !== undefined || silent)) counts = { ...counts, failed: 1 }
  const ok = counts.failed === 0
  const head = `${ok ? 'ok  ' : 'FAIL'} ${file}: ${formatCounts(counts)} (${Math.round(ms)} ms)`
  const skips = tap.map(parseSkip).filter((skip) => skip !== undefined)
  if (ok) return { lines: [head, ...skips.map((skip) => `     skipped: ${skip}`)], counts }
  return {
    lines: [head, ...tap, ...stderr, `     ended with ${trouble ?? 'status 0, having checked nothing'}`],
    counts,
  }
}

/** What the files that ran came to. */
export interface Totals {
  readonly counts: Counts
  /** What their tests told of the recordings that they replayed. */
  readonly recordings: readonly ScenarioCount[]
}

/** Runs every file and passes each one's report on as it ends. */
export async function runFiles(
  files: readonly string[],
  { jobs, timeoutMs, stop }: Limits,
  print: (line: string) => void,
): Promise<Totals> {
  const waiting = files.values()
  const recordings: ScenarioCount[] = []
  let { passed, failed, skipped }: Counts = { passed: 0, failed: 0, skipped: 0 }
  const work = async (): Promise<void> => {
    for (const file of waiting) {
      if (stop.aborted) return
      const run = await runFile(file, timeoutMs, stop)
      recordings.push(...run.tap.map(parseScenarioCount).filter((count) => count !== undefined))
      const { lines, counts } = reportFile(run)
      for (const line of lines) print(line)
      passed += counts.passed
      failed += counts.failed
      skipped += counts.skipped
    }
  }
  await Promise.all(Array.from({ length: jobs }, work))
  return { counts: { passed, failed, skipped }, recordings }
}
