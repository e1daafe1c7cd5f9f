/** Errors as RFC 9457 has them: application/problem+json, with a code that does not change. */
import { STATUS_CODES } from 'node:http'
import { errorCodes, LbError } from '../../model/errors.ts'

/** What only a server of HTTP has to say, by the status that it gives it. */
const requestErrors: Readonly<Record<number, { readonly code: string; readonly title: string }>> = {
  400: { code: 'BAD_REQUEST', title: 'The request is not as it should be' },
  404: { code: 'NO_RESOURCE', title: 'There is no such resource' },
  405: { code: 'BAD_METHOD', title: 'The resource has no such method' },
  408: { code: 'TOO_SLOW', title: 'The request took too long' },
  413: { code: 'TOO_LARGE', title: 'The body is too large' },
  415: { code: 'NOT_JSON', title: 'The body is not JSON' },
  429: { code: 'TOO_MANY', title: 'Too many requests' },
}

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: string
  readonly detail?: string
  /** Texts, numbers and truth values of an error's details. */
  readonly context?: Readonly<Record<string, unknown>>
}

/** A request that is refused before anything is looked at, by its HTTP status. */
export class RequestError extends Error {
  readonly statusCode: number

  constructor(statusCode: number, message: string) {
    super(message)
    this.name = 'RequestError'
    this.statusCode = statusCode
  }
}

/** What to answer; an error that nobody expected says nothing of itself. */
export function problemOf(error: unknown): Problem {
  if (error instanceof LbError) {
    const { http, text } = errorCodes[error.code]
    const plain = Object.entries(error.detail).filter(([, value]) => /^(string|number|boolean)$/.test(typeof value))
    return {
      ...problem(error.code, text, http),
      ...(error.message === text ? {} : { detail: error.message }),
      ...(plain.length === 0 ? {} : { context: Object.fromEntries(plain) }),
    }
  }
  const { statusCode = 500, message = '' } = (error ?? {}) as { statusCode?: number; message?: string }
  const known = requestErrors[statusCode] ?? (statusCode < 500 ? requestErrors[400] : undefined)
  if (known === undefined) return problem('INTERNAL', 'Unexpected error', 500)
  return { ...problem(known.code, known.title, statusCode), detail: message }
}

function problem(code: string, title: string, status: number): Problem {
  return { type: `urn:bpvs:problem:${code.toLowerCase().replaceAll('_', '-')}`, title, status, code }
}

/** The reason phrase of a status, for the OpenAPI document. */
export function reasonOf(status: number): string {
  return STATUS_CODES[status] ?? String(status)
}
