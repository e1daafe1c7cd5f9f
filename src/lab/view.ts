/** The lab's picture of what happens: pure, from numbers to lines. */
import { isAtLeast, type LogLine } from './bpvsd.ts'
import { addressesOf, type LabServerSpec, labServers } from './network.ts'
import type { Style } from './style.ts'
import { percentile, type Report } from './tally.ts'

export interface LabState {
  readonly uptimeS: number
  readonly clients: number
  /** What bpvsd is doing, and whether that is as it should be. */
  readonly bpvsd: { readonly text: string; readonly well: boolean }
  /** `bpvsadm -Ln --stats` of the director. */
  readonly listing: readonly string[]
  /** What the clients saw in the last interval, and how long that was. */
  readonly recent: Report
  readonly recentS: number
  readonly sent: number
  readonly failed: number
  /** Addresses of the servers that some virtual service has at the moment. */
  readonly inService: ReadonlySet<string>
  /** What bpvsd said lately and one should know. */
  readonly log: readonly LogLine[]
  /** A manifest, as one types its name. */
  readonly manifest: string
}

export interface Size {
  readonly columns: number
  readonly rows: number
}

function cut(text: string, width: number): string {
  if (width < 1) return ''
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`
}

function clock(seconds: number): string {
  const whole = Math.floor(seconds)
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`
}

function ms(value: number | undefined): string {
  if (value === undefined) return '-'
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`
}

function perSecond(state: LabState, count: number): number {
  return state.recentS > 0 ? Math.round(count / state.recentS) : 0
}

function kinds(errors: Readonly<Record<string, number>>): string {
  return Object.entries(errors)
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ')
}

function title(state: LabState, width: number, style: Style): string {
  const left = ` bpvs lab  ${clock(state.uptimeS)}  ${state.clients} clients > director > ${labServers.length} servers `
  const right = ` bpvsd ${state.bpvsd.text} `
  const gap = Math.max(width - left.length - right.length, 0)
  const mark = state.bpvsd.well ? style.green : style.yellow
  return style.bold(cut(left, width)) + ' '.repeat(gap) + mark(cut(right, Math.max(width - left.length, 0)))
}

function listingLine(line: string, index: number, width: number, style: Style): string {
  const text = ` ${cut(line, width - 1)}`
  if (index === 0 || /^(Prot| {2}-> RemoteAddress)/.test(line)) return style.dim(text)
  return line.startsWith(' ') ? text : style.bold(text)
}

/** The listing, in at most `room` lines; the last one tells how many did not fit. */
function listing(state: LabState, room: number, width: number, style: Style): string[] {
  const lines = state.listing.map((line, i) => listingLine(line, i, width, style))
  if (lines.length <= room) return lines
  const shown = Math.max(room - 1, 0)
  const rest = ` … ${lines.length - shown} more lines: a taller window shows them`
  return [...lines.slice(0, shown), style.dim(cut(rest, width))]
}

function isInService(state: LabState, server: LabServerSpec): boolean {
  const { ipv4, ipv6 } = addressesOf(server)
  return state.inService.has(ipv4) || state.inService.has(ipv6)
}

/** One server's cell: name, address, a bar and requests per second; `width` columns wide. */
function serverCell(state: LabState, server: LabServerSpec, most: number, width: number, style: Style): string {
  const { ipv4 } = addressesOf(server)
  const rate = perSecond(state, state.recent.servers[server.name] ?? 0)
  const head = ` ${server.name.padEnd(7)}${ipv4.padEnd(13)}`
  const room = Math.max(width - head.length - 8, 4)
  const label = isInService(state, server) ? '' : 'in no manifest'
  if (rate === 0 && label !== '') return style.dim(head + cut(label, room + 7).padEnd(room + 8))
  const length = most === 0 ? 0 : Math.max(Math.round((rate / most) * room), rate > 0 ? 1 : 0)
  const bar = '█'.repeat(length)
  return `${head}${style.cyan(bar)}${' '.repeat(room - length)}${`${rate}/s`.padStart(7)} `
}

function servers(state: LabState, size: Size, style: Style): string[] {
  const columns = size.columns >= 92 || (size.rows < 34 && size.columns >= 76) ? 2 : 1
  const width = Math.floor(size.columns / columns)
  const most = Math.max(...labServers.map(({ name }) => perSecond(state, state.recent.servers[name] ?? 0)))
  const rows = Math.ceil(labServers.length / columns)
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: columns }, (_, column) => labServers[row + column * rows])
      .filter((server) => server !== undefined)
      .map((server) => serverCell(state, server, most, width, style))
      .join(''),
  )
}

/** Requests, latency and errors of the last interval in one line of plain text. */
function numbers(state: LabState): string {
  const { recent } = state
  const rate = perSecond(state, recent.answered)
  const latency = `median ${ms(percentile(recent, 0.5))}, 99% within ${ms(percentile(recent, 0.99))}`
  return `${rate} answers/s  ${latency}`
}

function summary(state: LabState, width: number, style: Style): string[] {
  const line = style.bold(cut(` ${numbers(state)}`, width))
  const total = `${state.sent.toLocaleString('en')} requests sent, ${state.failed.toLocaleString('en')} failed`
  const { failed, errors } = state.recent
  if (failed === 0) return [line, style.green(cut(` no errors  (${total} since the start)`, width))]
  return [line, style.red(cut(` ${failed} errors: ${kinds(errors)}  (${total} since the start)`, width))]
}

function logLine({ level, text }: LogLine, width: number, style: Style): string {
  const mark = isAtLeast(level, 'error') ? style.red : isAtLeast(level, 'warn') ? style.yellow : style.dim
  return mark(cut(` bpvsd: ${text}`, width))
}

function hint(state: LabState, width: number, style: Style): string {
  return style.dim(cut(` Edit ${state.manifest}: traffic follows at once. Ctrl-C ends.`, width))
}

/** The whole screen, one string per row. */
export function renderScreen(state: LabState, size: Size, style: Style): string[] {
  const { columns } = size
  const log = state.log.slice(-3).map((line) => logLine(line, columns, style))
  const below = [
    '',
    style.dim(' Requests per second by server'),
    ...servers(state, size, style),
    '',
    ...summary(state, columns, style),
    ...log,
    hint(state, columns, style),
  ]
  const room = size.rows - below.length - 2
  return [title(state, columns, style), '', ...listing(state, room, columns, style), ...below].slice(0, size.rows)
}

/** The same for where nothing can be redrawn: a line or two. */
export function renderLines(state: LabState): string[] {
  const rates = labServers
    .map(({ name }) => [name, perSecond(state, state.recent.servers[name] ?? 0)] as const)
    .filter(([, rate]) => rate > 0)
    .map(([name, rate]) => `${name} ${rate}/s`)
  const lines = [`${clock(state.uptimeS)}  ${numbers(state)}  ${rates.join('  ')}`]
  if (state.recent.failed > 0) lines.push(`      ${state.recent.failed} errors: ${kinds(state.recent.errors)}`)
  return lines
}
