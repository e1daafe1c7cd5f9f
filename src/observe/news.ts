/** Tells what is new in a set of things that is looked at again and again, so that each is reported once. */

export class News<T> {
  #known = new Map<string, T>()

  /** Things are the same when their texts are. `found` is in the new set and was not in the last; `solved` the reverse. */
  update(things: Iterable<readonly [text: string, thing: T]>): {
    readonly found: readonly T[]
    readonly solved: readonly T[]
  } {
    const now = new Map(things)
    const found = [...now].filter(([text]) => !this.#known.has(text)).map(([, thing]) => thing)
    const solved = [...this.#known].filter(([text]) => !now.has(text)).map(([, thing]) => thing)
    this.#known = now
    return { found, solved }
  }

  /** Everything is new again. */
  forget(): void {
    this.#known.clear()
  }
}
