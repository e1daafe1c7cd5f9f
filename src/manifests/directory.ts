/**
 * A directory of manifests, read and followed. Changes are taken up when the kernel tells of them; a slow re-scan finds
 * what it cannot tell (targets of links elsewhere, network file systems).
 *
 * A change counts when the file has kept still for `settleMs`: editors truncate and write, or move the old file away
 * and create a new one, and none of this may take a service out of force for a moment. For the same reason an empty
 * file does not remove what it held: only deleting the file, or its documents, does.
 */
import { hash } from 'node:crypto'
import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseManifests } from './parse.ts'
import { fileVersion, readText, reasonOf } from './read.ts'
import { type ManifestState, ManifestStore, type ProblemChanges } from './store.ts'
import { DirectoryWatch } from './watch.ts'

export interface ManifestDirectoryOptions {
  readonly directory: string
  readonly maxFileBytes: number
  /** Between two full scans, milliseconds. */
  readonly rescanMs: number
  /** How long a changed file must have kept still before it is read; 10 ms by default. */
  readonly settleMs?: number
  /** After the first full read, and then whenever the objects may have changed. */
  readonly onState: (state: ManifestState) => void
  /** Each problem once; again after `reload`. */
  readonly onProblems: (changes: ProblemChanges) => void
}

/** What a look at a file found: its version, that it is gone, or why stat failed. */
type Seen = { readonly is: 'file' | 'gone' | 'error'; readonly text: string }

interface Unsettled {
  readonly seen: string
  readonly firstMs: number
  readonly dueMs: number
}

/** A file that never keeps still is read all the same after this time. */
const longestSettleMs = 1000

export class ManifestDirectory {
  readonly #options: ManifestDirectoryOptions
  readonly #settleMs: number
  readonly #store = new ManifestStore()
  readonly #watch: DirectoryWatch
  /** By name, of what was read last: `seen` as in Unsettled, and a digest of the text ('' if it could not be read). */
  readonly #known = new Map<string, { seen: string; digest: string }>()
  readonly #unsettled = new Map<string, Unsettled>()
  /** Names that events told of; undefined: look at everything. */
  #touched: Set<string> | undefined = new Set()
  #scheduled: NodeJS.Immediate | undefined
  #settleTimer: NodeJS.Timeout | undefined
  #rescanTimer: NodeJS.Timeout | undefined
  #started = false
  #directoryProblem: string | undefined

  constructor(options: ManifestDirectoryOptions) {
    this.#options = options
    this.#settleMs = options.settleMs ?? 10
    this.#watch = new DirectoryWatch(options.directory, (name) => this.#touch(name))
  }

  /** Reads everything, calls back, and follows from then on. A directory that is missing is waited for. */
  start(): void {
    this.#scan()
    this.#rescanTimer = setInterval(() => this.#touch(undefined), this.#options.rescanMs)
  }

  /** Reads every file anew at once and reports all problems again. */
  reload(): void {
    this.#directoryProblem = undefined
    this.#scan(true)
  }

  close(): void {
    this.#watch.close()
    clearInterval(this.#rescanTimer)
    clearTimeout(this.#settleTimer)
    clearImmediate(this.#scheduled)
  }

  /** Notes what to look at; the look comes when all events that are there already have been noted. */
  #touch(name: string | undefined): void {
    if (name === undefined || !isManifest(name)) this.#touched = undefined
    else this.#touched?.add(name)
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined
      const names = this.#touched
      this.#touched = new Set()
      if (names === undefined || !this.#started) this.#scan()
      else this.#finish(this.#lookAt(names, true))
    })
  }

  #scan(anew = false): void {
    let names: string[]
    try {
      this.#watch.ensure()
      names = readdirSync(this.#options.directory).filter(isManifest)
    } catch (error) {
      this.#directoryTrouble(`cannot be read: ${reasonOf(error)}; what it said stays in force`)
      return
    }
    const { trouble } = this.#watch
    const seconds = this.#options.rescanMs / 1000
    this.#directoryTrouble(trouble && `cannot be watched: ${trouble}; it is read again every ${seconds} s`)
    const changed = this.#lookAt(new Set([...names, ...this.#known.keys()]), false, anew || !this.#started)
    const first = !this.#started
    this.#started = true
    this.#finish(changed || first, anew)
  }

  /** Looks at files; true if what they say may have changed. `byEvent`: something happened to them just now. */
  #lookAt(names: Iterable<string>, byEvent: boolean, atOnce = false): boolean {
    let changed = false
    for (const name of names) {
      const seen = this.#see(name)
      const key = `${seen.is} ${seen.text}`
      const known = this.#known.get(name)
      const news = byEvent || known?.seen !== key || this.#unsettled.has(name)
      if (!atOnce && (!news || !this.#hasSettled(name, key, byEvent))) continue
      this.#unsettled.delete(name)
      changed = this.#take(name, seen, key, atOnce ? undefined : known?.digest) || changed
    }
    return changed
  }

  #see(name: string): Seen {
    const path = this.#path(name)
    try {
      return { is: 'file', text: fileVersion(path) }
    } catch (error) {
      return isMissing(error) && !isLink(path) ? { is: 'gone', text: '' } : { is: 'error', text: reasonOf(error) }
    }
  }

  /** Takes a file as it is now; true if what it says may have changed. */
  #take(name: string, seen: Seen, key: string, knownDigest: string | undefined): boolean {
    const path = this.#path(name)
    if (seen.is === 'gone') {
      this.#known.delete(name)
      return this.#store.remove(path)
    }
    const result = seen.is === 'error' ? unreadable(seen.text) : readText(path, this.#options.maxFileBytes)
    if (!result.ok) return this.#cannotRead(name, key, result.reason)
    if (result.text.trim() === '' && this.#store.holds(path)) {
      return this.#cannotRead(name, key, 'is empty: what it held stays in force (delete the file to remove it)')
    }
    const digest = hash('sha256', result.text)
    this.#known.set(name, { seen: `file ${result.version}`, digest })
    if (digest === knownDigest) return false
    this.#store.set(path, parseManifests(path, result.text))
    return true
  }

  #cannotRead(name: string, seen: string, reason: string): boolean {
    this.#known.set(name, { seen, digest: '' })
    return this.#store.unreadable(this.#path(name), reason)
  }

  /** Whether a changed file has kept still long enough; if not, a later look is arranged. */
  #hasSettled(name: string, seen: string, byEvent: boolean): boolean {
    const now = performance.now()
    const before = this.#unsettled.get(name)
    if (before !== undefined) {
      if (now - before.firstMs >= longestSettleMs) return true
      if (!byEvent && before.seen === seen && now >= before.dueMs) return true
      if (!byEvent && before.seen === seen) return false
    }
    this.#unsettled.set(name, { seen, firstMs: before?.firstMs ?? now, dueMs: now + this.#settleMs })
    this.#arm()
    return false
  }

  #arm(): void {
    if (this.#settleTimer !== undefined || this.#unsettled.size === 0) return
    const due = Math.min(...[...this.#unsettled.values()].map(({ dueMs }) => dueMs))
    const wait = Math.max(1, Math.ceil(due - performance.now()))
    this.#settleTimer = setTimeout(() => {
      this.#settleTimer = undefined
      const now = performance.now()
      const names = [...this.#unsettled].filter(([, { dueMs }]) => dueMs <= now).map(([name]) => name)
      this.#finish(this.#lookAt(names, false))
      this.#arm()
    }, wait)
  }

  #finish(changed: boolean, again = false): void {
    if (!changed) return
    const { state, changes } = this.#store.take(again)
    if (changes.found.length > 0 || changes.solved.length > 0) this.#options.onProblems(changes)
    this.#options.onState(state)
  }

  #directoryTrouble(reason: string | undefined): void {
    if (reason === this.#directoryProblem) return
    const file = this.#options.directory
    const solved = this.#directoryProblem === undefined ? [] : [{ file, reason: this.#directoryProblem }]
    this.#directoryProblem = reason
    this.#options.onProblems({ found: reason === undefined ? [] : [{ file, reason }], solved })
  }

  #path(name: string): string {
    return join(this.#options.directory, name)
  }
}

/** .yaml, .yml and .json, but not hidden ones, which editors use for their own purposes. */
function isManifest(name: string): boolean {
  return /\.(yaml|yml|json)$/.test(name) && !name.startsWith('.')
}

function unreadable(reason: string): { ok: false; reason: string } {
  return { ok: false, reason: `cannot be read: ${reason}` }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')
}

/** A link that leads nowhere is there, though stat does not find it. */
function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink()
  } catch {
    return false
  }
}
