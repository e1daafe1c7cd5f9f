/** Results as JSON lines for programs and as tables for people. */
import { appendFileSync, writeFileSync } from 'node:fs'
import type { Machine } from './machine.ts'

/** One line of results: the machine's fields are added to these. */
export type Line = Readonly<Record<string, string | number | boolean>>

/** A promise of the design, and whether this run kept it. */
export interface Bar {
  /** What is compared, in words. */
  readonly what: string
  readonly ratio: number
  readonly limit: number
  /** The ratio has to be no less than the limit, in place of no more. */
  readonly atLeast?: boolean
}

/** Whether a bar is met. */
export function isMet(bar: Bar): boolean {
  return bar.atLeast === true ? bar.ratio >= bar.limit : bar.ratio <= bar.limit
}

/** Where a bench's output goes: tables to the terminal, lines to a file or, without one, after the tables. */
export class Report {
  readonly #machine: Machine
  readonly #file: string | undefined
  readonly #lines: string[] = []

  /** `file`: for the JSON lines; it is emptied at once. */
  constructor(machine: Machine, file?: string) {
    this.#machine = machine
    this.#file = file
    if (file !== undefined) writeFileSync(file, '')
  }

  add(line: Line): void {
    const { commit, kernel, cpu } = this.#machine
    this.#lines.push(JSON.stringify({ commit, kernel, cpu, ...line }))
    if (this.#file !== undefined) appendFileSync(this.#file, `${this.#lines.at(-1)}\n`)
  }

  /** The JSON lines that went to no file. */
  rest(): string {
    return this.#file === undefined ? this.#lines.map((line) => `${line}\n`).join('') : ''
  }
}

/** Columns padded to their widest cell; cells that start with a digit (or a sign) are aligned to the right. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const pad = (row: readonly string[]): string =>
    row
      .map((cell, i) => (/^[-\d]/.test(cell) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd()
  return [pad(head), ...rows.map(pad)].map((line) => `${line}\n`).join('')
}

/** One line per bar. */
export function formatBars(bars: readonly Bar[]): string {
  const rows = bars.map((bar) => {
    const limit = `${bar.atLeast === true ? '>=' : '<='} ${bar.limit}`
    return [isMet(bar) ? 'met' : 'NOT MET', bar.ratio.toFixed(2), limit, bar.what]
  })
  return formatTable(['bar', 'ratio', 'limit', 'what'], rows)
}
