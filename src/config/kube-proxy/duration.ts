/** Durations as Go writes them: `1h30m`, `24h0m0s`, `100ms`. In nanoseconds. */
import { LbError } from '../../model/errors.ts'

const units = { h: 3600e9, m: 60e9, s: 1e9, ms: 1e6, us: 1e3, µs: 1e3, μs: 1e3, ns: 1 } as const

export const nsPerMs = 1e6
export const nsPerS = 1e9

/** Nanoseconds. CONFIG with Go's own words for what is wrong. */
export function parseDuration(text: string): number {
  const quoted = JSON.stringify(text)
  const invalid = (reason = 'invalid'): LbError => new LbError('CONFIG', `time: ${reason} duration ${quoted}`)
  const [, sign = '', body = ''] = /^([-+]?)(.*)$/s.exec(text) ?? []
  if (body === '0') return 0
  if (body === '') throw invalid()
  let sum = 0
  for (let rest = body; rest !== ''; ) {
    const [whole, number = '', unit = ''] = /^(\d+\.?\d*|\.\d+)([^\d.]*)/.exec(rest) ?? []
    if (whole === undefined) throw invalid()
    if (unit === '') throw invalid('missing unit in')
    if (!isUnit(unit)) throw invalid(`unknown unit ${JSON.stringify(unit)} in`)
    sum += Number(number) * units[unit]
    rest = rest.slice(whole.length)
  }
  const ns = Math.trunc(sum)
  if (ns > 2 ** 63) throw invalid()
  return sign === '-' && ns !== 0 ? -ns : ns
}

function isUnit(text: string): text is keyof typeof units {
  return Object.hasOwn(units, text)
}

/** As Go prints a Duration: `0s`, `1.5s`, `15m0s`, `24h0m0s`, `250ms`. */
export function formatDuration(ns: number): string {
  if (ns === 0) return '0s'
  if (ns < 0) return `-${formatDuration(-ns)}`
  if (ns < 1e3) return `${ns}ns`
  if (ns < 1e6) return `${ns / 1e3}µs`
  if (ns < 1e9) return `${ns / 1e6}ms`
  const seconds = `${(ns % 60e9) / 1e9}s`
  const minutes = Math.floor(ns / 60e9)
  if (minutes === 0) return seconds
  return minutes < 60 ? `${minutes}m${seconds}` : `${Math.floor(minutes / 60)}h${minutes % 60}m${seconds}`
}
