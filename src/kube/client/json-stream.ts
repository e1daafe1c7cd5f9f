/**
 * Takes streams of JSON apart as their bytes arrive: watch events line by line, lists item by item. Neither ever holds
 * more than one object, so an answer may be of any size.
 */
import { LbError } from '../../model/errors.ts'

/** The API server stores no object beyond 1.5 MB (etcd's limit of a request); as JSON it may be a few times that. */
const longestObjectBytes = 16 * 1024 * 1024
/** What a list says beside its items. */
const longestEnvelopeBytes = 1024 * 1024

/** Of what is before a bracket, as much is looked at. */
const tailBytes = 64

const newline = 0x0a
const quote = 0x22
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

/** Bytes that belong together, from several chunks; bounded. */
class Gatherer {
  readonly #limit: number
  readonly #what: string
  #parts: Buffer[] = []
  #length = 0

  constructor(what: string, limit: number) {
    this.#what = what
    this.#limit = limit
  }

  get empty(): boolean {
    return this.#length === 0
  }

  /** Copies the bytes: chunks are not kept alive by what is gathered. */
  add(chunk: Buffer, start: number, end: number): void {
    if (start === end) return
    this.#check(end - start)
    this.#parts.push(Buffer.from(chunk.subarray(start, end)))
    this.#length += end - start
  }

  /** All that was gathered, with a last piece, as text; then it is empty. */
  take(chunk: Buffer, start: number, end: number): string {
    this.#check(end - start)
    if (this.empty) return chunk.toString('utf8', start, end)
    const text = Buffer.concat([...this.#parts, chunk.subarray(start, end)]).toString('utf8')
    this.#parts = []
    this.#length = 0
    return text
  }

  #check(more: number): void {
    if (this.#length + more <= this.#limit) return
    throw new LbError('API', `${this.#what} is longer than ${this.#limit} bytes`)
  }
}

const nothing = Buffer.alloc(0)

/** Lines of a stream; empty ones are left out. */
export class LineSplitter {
  readonly #rest = new Gatherer('a line of the answer', longestObjectBytes)

  /** The lines that this chunk completes. Throws API when one gets too long. */
  push(chunk: Buffer): string[] {
    const lines: string[] = []
    let start = 0
    for (let end = chunk.indexOf(newline); end !== -1; end = chunk.indexOf(newline, start)) {
      const line = this.#rest.take(chunk, start, end)
      start = end + 1
      if (line !== '' && line !== '\r') lines.push(line)
    }
    this.#rest.add(chunk, start, chunk.length)
    return lines
  }

  /** Whether the stream ended within a line. */
  get broken(): boolean {
    return !this.#rest.empty
  }
}

/** What a list says of itself. */
export interface ListEnvelope {
  readonly resourceVersion: string
  /** For the next page; '' after the last. */
  readonly continueToken: string
}

/** The members of `items` of one JSON object, wherever in it `items` is; what is beside them is kept as the envelope. */
export class ItemSplitter {
  readonly #item = new Gatherer('an object of the list', longestObjectBytes)
  readonly #envelope = new Gatherer('the list beside its items', longestEnvelopeBytes)
  /** Where in the chunk at hand the piece began that is being gathered: of an item, or of the envelope. */
  #start = 0
  /** Last bytes of the envelope in chunks before: tells `"items":[` from other arrays. */
  #tail = ''
  #depth = 0
  #inItems = false
  #inString = false
  #escaped = false
  #ended = false

  /** The items that this chunk completes, as JSON texts. Throws API when something gets too long. */
  push(chunk: Buffer): string[] {
    const items: string[] = []
    this.#start = 0
    for (let at = 0; at < chunk.length; at++) {
      if (this.#inString) {
        at = this.#skipString(chunk, at)
        continue
      }
      const byte = chunk[at]
      if (byte === quote) this.#inString = true
      else if (byte === openBrace || byte === openBracket) this.#open(chunk, at, byte)
      else if (byte === closeBrace || byte === closeBracket) this.#close(chunk, at, items)
    }
    this.#keep(chunk)
    return items
  }

  /** After the last chunk: what the list says of itself. Throws API when the text is not a whole list. */
  envelope(): ListEnvelope {
    if (!this.#ended) throw new LbError('API', 'the list ended early')
    let value: unknown
    try {
      value = JSON.parse(this.#envelope.take(nothing, 0, 0))
    } catch (error) {
      throw new LbError('API', 'the list is not JSON', {}, error)
    }
    const { metadata } = value as { metadata?: { resourceVersion?: unknown; continue?: unknown } }
    if (typeof metadata?.resourceVersion !== 'string') throw new LbError('API', 'the list has no resourceVersion')
    return {
      resourceVersion: metadata.resourceVersion,
      continueToken: typeof metadata.continue === 'string' ? metadata.continue : '',
    }
  }

  /** The last byte of the string, or of the chunk. */
  #skipString(chunk: Buffer, from: number): number {
    let at = from
    for (; at < chunk.length; at++) {
      const byte = chunk[at]
      if (this.#escaped) this.#escaped = false
      else if (byte === backslash) this.#escaped = true
      else if (byte === quote) {
        this.#inString = false
        return at
      }
    }
    return at
  }

  #open(chunk: Buffer, at: number, byte: number): void {
    if (this.#inItems && this.#depth === 2) {
      this.#start = at
    } else if (this.#depth === 1 && byte === openBracket && this.#atItems(chunk, at)) {
      this.#envelope.add(chunk, this.#start, at + 1)
      this.#inItems = true
    }
    this.#depth++
  }

  #close(chunk: Buffer, at: number, items: string[]): void {
    this.#depth--
    if (this.#inItems && this.#depth === 2) {
      items.push(this.#item.take(chunk, this.#start, at + 1))
    } else if (this.#inItems && this.#depth === 1) {
      this.#inItems = false
      this.#start = at
    } else if (this.#depth === 0) {
      this.#ended = true
    }
  }

  /** Whether the bracket at `at` opens the list's items. */
  #atItems(chunk: Buffer, at: number): boolean {
    const before = this.#tail + chunk.toString('latin1', Math.max(this.#start, at - tailBytes), at)
    return /"items"\s*:\s*$/.test(before)
  }

  /** What of the chunk belongs to an item or to the envelope and is not complete. */
  #keep(chunk: Buffer): void {
    if (this.#inItems && this.#depth === 2) return
    if (this.#inItems) {
      this.#item.add(chunk, this.#start, chunk.length)
      return
    }
    this.#envelope.add(chunk, this.#start, chunk.length)
    const end = chunk.toString('latin1', Math.max(this.#start, chunk.length - tailBytes))
    this.#tail = (this.#tail + end).slice(-tailBytes)
  }
}
