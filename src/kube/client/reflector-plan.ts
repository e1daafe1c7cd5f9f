/**
 * What a reflector asks the API server next, and when. Pure: told how each request went, it says what comes after.
 *
 * First a list, as a stream of events where the server has that, else in pages; then watches, each going on where the one
 * before ended. A watch that ends is resumed; only when the server no longer has what came since (410) is there another
 * list. As the field's own clients do, a list is asked for from the server's cache (resourceVersion 0), later from no
 * earlier than what is known already, and only if that is refused from the store behind it.
 */
import { Backoff } from './backoff.ts'

/** A request for the objects of one kind. */
export type ReflectorRequest =
  /** A watch that begins with all there is, and says when that was all. */
  | { readonly kind: 'stream'; readonly resourceVersion: string }
  /** A page of a list; `limit` 0: all at once. */
  | { readonly kind: 'page'; readonly resourceVersion: string; readonly limit: number; readonly continueToken: string }
  | { readonly kind: 'watch'; readonly resourceVersion: string }

/** How a request ended. */
export type Outcome =
  | { readonly kind: 'page'; readonly resourceVersion: string; readonly continueToken: string }
  /** A watch ended in good order. */
  | { readonly kind: 'closed' }
  /** The server no longer knows the version that was asked for, or the rest of the list. */
  | { readonly kind: 'expired' }
  /** The server has no streaming lists. */
  | { readonly kind: 'unsupported' }
  /** The server has no objects of this kind. */
  | { readonly kind: 'absent' }
  /** Anything else; with what Retry-After asked for. */
  | { readonly kind: 'failed'; readonly retryAfterMs: number }

const backoffLimits = { firstMs: 500, lastMs: 30_000 }
/** A server without a kind may be upgraded; it is asked again after so long. */
const absentMs = 300_000
const pageSize = 500
/** A watch that held so long was a good one, also if nothing came. */
const goodWatchMs = 5_000
/** Watches that end in good order are made no more often than this. */
const shortestWatchMs = 1_000

export class ReflectorPlan {
  readonly #backoff: Backoff
  /** Up to what is known; '': nothing yet. */
  #known = ''
  /** The list that is due or under way, by the token of its next page; undefined: watching. */
  #list: { readonly continueToken: string } | undefined = { continueToken: '' }
  #streams = true
  #pages = true
  /** The server refused a list from `known` on: ask for its newest. */
  #knownIsGone = false
  #progress = false

  /** `random` gives numbers from 0 up to 1. */
  constructor(random: () => number) {
    this.#backoff = new Backoff(backoffLimits, random)
  }

  /** Whether what is known is a whole list and what came since. */
  get listed(): boolean {
    return this.#list === undefined
  }

  /** Attempts that failed since the last that went well. */
  get failures(): number {
    return this.#backoff.failures
  }

  next(): ReflectorRequest {
    if (this.#list === undefined) return { kind: 'watch', resourceVersion: this.#known }
    const resourceVersion = this.#knownIsGone ? '' : this.#known
    if (this.#streams) return { kind: 'stream', resourceVersion }
    const { continueToken } = this.#list
    // A page belongs to its own list's version, which the token names.
    if (continueToken !== '') return { kind: 'page', resourceVersion: '', limit: pageSize, continueToken }
    // From a version on, the server answers from its cache only if it may answer at once.
    if (resourceVersion !== '') return { kind: 'page', resourceVersion, limit: 0, continueToken }
    const limit = this.#pages ? pageSize : 0
    return { kind: 'page', resourceVersion: this.#knownIsGone ? '' : '0', limit, continueToken }
  }

  /** An event or bookmark of a watch: what came up to it is known. Of a streamed list that counts only at its end. */
  noted(resourceVersion: string): void {
    if (this.#list !== undefined) return
    this.#progress = true
    this.#known = resourceVersion
  }

  /** The end of a list. */
  completed(resourceVersion: string): void {
    this.#progress = true
    this.#known = resourceVersion
    this.#knownIsGone = false
    this.#pages = true
    this.#list = undefined
  }

  /** A request ended that took `tookMs`; returns how long to wait before the next, milliseconds. */
  ended(outcome: Outcome, tookMs: number): number {
    const good = this.#progress || (this.#list === undefined && tookMs >= goodWatchMs)
    this.#progress = false
    if (good) this.#backoff.succeeded()
    switch (outcome.kind) {
      case 'page':
        return this.#turnedPage(outcome.resourceVersion, outcome.continueToken)
      case 'unsupported':
        this.#streams = false
        return 0
      case 'expired':
        this.#expired()
        return good ? 0 : this.#backoff.failed()
      case 'closed':
        return good ? Math.max(0, shortestWatchMs - tookMs) : this.#backoff.failed()
      case 'absent':
        this.#backoff.succeeded()
        return absentMs
      case 'failed':
        return this.#backoff.failed(outcome.retryAfterMs)
    }
  }

  #turnedPage(resourceVersion: string, continueToken: string): number {
    this.#backoff.succeeded()
    if (continueToken !== '') this.#list = { continueToken }
    else this.completed(resourceVersion)
    this.#progress = false
    return 0
  }

  /** A watch: list anew. A list: from the server's newest; if pages took too long for it, at once. */
  #expired(): void {
    if (this.#list !== undefined) this.#knownIsGone = true
    if (this.#list !== undefined && this.#list.continueToken !== '') this.#pages = false
    this.#list = { continueToken: '' }
  }
}
