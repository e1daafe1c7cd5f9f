/** Which objects of one kind there are, by name and version alone; tells what came, changed and went. */
import { objectId } from '../objects.ts'
import type { KubeSink } from './reflector.ts'

export interface KindCallbacks {
  /** An object that is new, or of another version than the last. */
  readonly onSet: (id: string, object: unknown) => void
  /** By objectId. */
  readonly onRemove: (id: string) => void
  /** A list is whole, and what it did not have was removed. */
  readonly onListed: () => void
}

/** The part of an object that tells which it is. */
interface Identified {
  readonly metadata?: {
    readonly namespace?: unknown
    readonly name?: unknown
    readonly resourceVersion?: unknown
  }
}

export class KindSink implements KubeSink {
  readonly #kind: string
  readonly #callbacks: KindCallbacks
  readonly #versions = new Map<string, string>()
  /** What the list that is under way has named. */
  #seen: Set<string> | undefined
  #listed = false

  constructor(kind: string, callbacks: KindCallbacks) {
    this.#kind = kind
    this.#callbacks = callbacks
  }

  /** Whether there ever was a whole list. */
  get listed(): boolean {
    return this.#listed
  }

  beginList(): void {
    this.#seen = new Set()
  }

  set(object: unknown): void {
    const id = this.#idOf(object)
    this.#seen?.add(id)
    const version = String((object as Identified).metadata?.resourceVersion)
    if (this.#versions.get(id) === version) return
    this.#versions.set(id, version)
    this.#callbacks.onSet(id, object)
  }

  remove(object: unknown): void {
    const id = this.#idOf(object)
    this.#seen?.delete(id)
    this.#remove(id)
  }

  endList(): void {
    const seen = this.#seen ?? new Set()
    this.#seen = undefined
    for (const id of [...this.#versions.keys()]) {
      if (!seen.has(id)) this.#remove(id)
    }
    this.#listed = true
    this.#callbacks.onListed()
  }

  #idOf(object: unknown): string {
    const { namespace, name } = (object as Identified).metadata ?? {}
    return objectId({ kind: this.#kind, namespace: String(namespace ?? ''), name: String(name) })
  }

  #remove(id: string): void {
    if (this.#versions.delete(id)) this.#callbacks.onRemove(id)
  }
}
