/** Structured logs: one JSON object a line. The message is a fixed text; what varies is in fields. */
import { type DestinationStream, pino } from 'pino'
import { LbError } from '../model/errors.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** What the program logs to; tests give their own. */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  fatal(fields: object, message: string): void
}

/** A log on standard output, or on `destination`. Lines are written at once, in order, also before an exit. */
export function createLog(name: string, level: LogLevel, destination?: DestinationStream): Log {
  const options = {
    name,
    level,
    base: { pid: process.pid },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { err: errorFields },
  }
  return destination === undefined ? pino(options) : pino(options, destination)
}

/** An error as fields: its code and detail if it is one of ours, its stack if it is not expected. */
export function errorFields(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) }
  const cause = error.cause === undefined ? {} : { cause: errorFields(error.cause) }
  if (error instanceof LbError) return { code: error.code, message: error.message, ...error.detail, ...cause }
  return { type: error.name, message: error.message, stack: error.stack, ...cause }
}
