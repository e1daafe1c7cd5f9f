/** Finds where a value stands in a JSON text, which JSON.parse does not tell. The text must be valid JSON. */
import type { FieldPath } from '../kube/field.ts'

/** Offset of the key or list item that a path leads to, or of the last step of it that is there. */
export function jsonOffset(text: string, path: FieldPath): number {
  return walk(new Scanner(text), path)
}

/** Offsets of all items of the list that a path leads to, in one pass. */
export function jsonItemOffsets(text: string, path: FieldPath): number[] {
  const scanner = new Scanner(text)
  walk(scanner, path)
  return scanner.listItems()
}

/** Line of an offset, from 1. `newlines` is filled at the first call with the offsets of all of them and kept by the caller. */
export function lineAt(text: string, offset: number, newlines: number[]): number {
  if (newlines.length === 0) {
    for (let i = text.indexOf('\n'); i !== -1; i = text.indexOf('\n', i + 1)) newlines.push(i)
    newlines.push(text.length)
  }
  let low = 0
  let high = newlines.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((newlines[middle] ?? 0) < offset) low = middle + 1
    else high = middle
  }
  return low + 1
}

/** Goes to the value that a path leads to, as far as it goes; gives the offset of the last step. */
function walk(scanner: Scanner, path: FieldPath): number {
  scanner.blank()
  let offset = scanner.at
  for (const step of path) {
    const found = typeof step === 'number' ? scanner.enterList(step) : scanner.enterObject(step)
    if (found === undefined) return offset
    offset = found
  }
  return offset
}

class Scanner {
  at = 0
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  /** Goes to the value of a key of the object that begins here; gives the offset of the key. */
  enterObject(key: string): number | undefined {
    if (!this.#enter('{')) return undefined
    while (this.#text[this.at] === '"') {
      const start = this.at
      this.#string()
      const found = JSON.parse(this.#text.slice(start, this.at)) === key
      this.blank()
      this.at++
      this.blank()
      if (found) return start
      this.#next()
    }
    return undefined
  }

  /** Goes to an item of the list that begins here; gives its offset. */
  enterList(index: number): number | undefined {
    if (!this.#enter('[')) return undefined
    for (let i = 0; this.#text[this.at] !== ']'; i++) {
      if (i === index) return this.at
      this.#next()
    }
    return undefined
  }

  /** Offsets of the items of the list that begins here. */
  listItems(): number[] {
    const offsets: number[] = []
    if (!this.#enter('[')) return offsets
    while (this.#text[this.at] !== ']') {
      offsets.push(this.at)
      this.#next()
    }
    return offsets
  }

  blank(): void {
    while (' \t\r\n'.includes(this.#text[this.at] ?? 'end')) this.at++
  }

  #enter(bracket: string): boolean {
    if (this.#text[this.at] !== bracket) return false
    this.at++
    this.blank()
    return true
  }

  /** Past the value that begins here and a comma after it. */
  #next(): void {
    this.#value()
    this.blank()
    if (this.#text[this.at] === ',') this.at++
    this.blank()
  }

  /** Past the value that begins here: goes from one bracket, comma or string to the next. */
  #value(): void {
    const marks = /["{}[\],]/g
    let depth = 0
    for (;;) {
      marks.lastIndex = this.at
      const mark = marks.exec(this.#text)
      const char = mark?.[0]
      this.at = mark?.index ?? this.#text.length
      if (char === undefined || (depth === 0 && (char === ',' || char === ']' || char === '}'))) return
      if (char === '"') this.#string()
      else this.at++
      if (char === '{' || char === '[') depth++
      if (char === '}' || char === ']') depth--
      if (depth === 0) return
    }
  }

  #string(): void {
    do {
      this.at = this.#text.indexOf('"', this.at + 1)
    } while (this.#isEscaped())
    this.at++
  }

  /** An odd number of backslashes stands before this place. */
  #isEscaped(): boolean {
    let backslashes = 0
    while (this.#text[this.at - 1 - backslashes] === '\\') backslashes++
    return backslashes % 2 === 1
  }
}
