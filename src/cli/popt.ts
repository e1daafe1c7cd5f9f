/**
 * Command-line scanning as the popt library does it, which decides what ipvsadm accepts: `-At 10.9.0.1:80`, `-srr`,
 * `-s=rr`, `--scheduler rr`, `--scheduler=rr`; long names are not abbreviated; words may stand between options; `--`
 * ends the options. Pure.
 */

/** What the scanner must know of an option. */
export interface ScannedOption {
  readonly long: string
  readonly short?: string
  /** An argument: none, one, or one that may be missing (the next word begins with `-` or there is none). */
  readonly takes?: 'value' | 'optional value'
}

/** An option as it was found; `word` is the word of the command line that it (or its argument) came from last. */
export interface Found<T extends ScannedOption> {
  readonly option: T
  readonly value?: string
  readonly word: string
}

/** Wrong use of an option; `word` is the word that popt blames. */
export interface ScanError {
  readonly error: 'unknown option' | 'missing argument' | 'option does not take an argument'
  readonly word: string
}

/** Scans one command line, an option at a time. */
export class Scanner<T extends ScannedOption> {
  /** Words that are no options, in order; complete when `next` has returned undefined. */
  readonly leftovers: string[] = []
  readonly #words: readonly string[]
  readonly #options: readonly T[]
  #position = 0
  #onlyLeftovers = false
  /** What is left of a word of short options. */
  #shorts: string | undefined

  constructor(words: readonly string[], options: readonly T[]) {
    this.#words = words
    this.#options = options
  }

  /** The next option, an error, or undefined at the end. Nothing sensible follows an error. */
  next(): Found<T> | ScanError | undefined {
    while (this.#shorts === undefined) {
      const word = this.#words[this.#position]
      if (word === undefined) return undefined
      this.#position++
      if (this.#onlyLeftovers || word === '-' || !word.startsWith('-')) this.leftovers.push(word)
      else if (word === '--') this.#onlyLeftovers = true
      else if (word.startsWith('--')) return this.#long(word.slice(2))
      else this.#shorts = word.slice(1)
    }
    return this.#short(this.#shorts)
  }

  #long(text: string): Found<T> | ScanError {
    const equals = text.indexOf('=')
    const name = equals < 0 ? text : text.slice(0, equals)
    const option = this.#options.find((candidate) => candidate.long === name)
    if (option === undefined) return this.#wrong('unknown option')
    return this.#finish(option, equals < 0 ? undefined : text.slice(equals + 1))
  }

  #short(shorts: string): Found<T> | ScanError {
    this.#shorts = undefined
    const letter = shorts.slice(0, 1)
    const option = letter === '' ? undefined : this.#options.find((candidate) => candidate.short === letter)
    if (option === undefined) return this.#wrong('unknown option')
    const rest = shorts.slice(1)
    if (rest === '') return this.#finish(option, undefined)
    if (rest.startsWith('=')) return this.#finish(option, rest.slice(1))
    if (option.takes !== undefined) return this.#finish(option, rest)
    this.#shorts = rest
    return { option, word: this.#word() }
  }

  /** `attached` is the argument within the option's own word, if there is one. */
  #finish(option: T, attached: string | undefined): Found<T> | ScanError {
    if (option.takes === undefined) {
      return attached === undefined ? { option, word: this.#word() } : this.#wrong('option does not take an argument')
    }
    if (attached !== undefined) return { option, value: attached, word: this.#word() }
    const next = this.#words[this.#position]
    if (option.takes === 'optional value' && (next === undefined || next.startsWith('-')))
      return { option, word: this.#word() }
    if (next === undefined) return this.#wrong('missing argument')
    this.#position++
    return { option, value: next, word: this.#word() }
  }

  #wrong(error: ScanError['error']): ScanError {
    return { error, word: this.#word() }
  }

  #word(): string {
    return this.#words[this.#position - 1] ?? ''
  }
}
