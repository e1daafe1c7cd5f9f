/** Reads fields of an untrusted object and collects what is wrong, each with the path to the field. */

/** Where in an object: keys and list positions from its root. */
export type FieldPath = readonly (string | number)[]

export interface FieldProblem {
  readonly path: FieldPath
  /** What is wrong, naming the value: `70000 is not a port (1-65535)`. */
  readonly reason: string
}

/** `spec.ports[0].port`, `metadata.labels[kubernetes.io/service-name]`. */
export function formatPath(path: FieldPath): string {
  let text = ''
  for (const step of path) {
    if (typeof step === 'number' || !/^\w+$/.test(step)) text += `[${step}]`
    else text += text === '' ? step : `.${step}`
  }
  return text
}

/** A value for a message: one line, cut short. */
export function show(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'an object'
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

/**
 * One field. A field that is absent or null reads as its fallback, as in Kubernetes. A reader that finds a wrong type
 * reports it and returns the fallback, so that decoding goes on and finds the other problems too.
 */
export class Field {
  readonly value: unknown
  readonly #parent: Field | undefined
  readonly #key: string | number
  readonly #problems: FieldProblem[]

  constructor(value: unknown, problems: FieldProblem[], parent?: Field, key: string | number = '') {
    this.value = value ?? undefined
    this.#problems = problems
    this.#parent = parent
    this.#key = key
  }

  get absent(): boolean {
    return this.value === undefined
  }

  get isObject(): boolean {
    return isObject(this.value)
  }

  get path(): (string | number)[] {
    return this.#parent === undefined ? [] : [...this.#parent.path, this.#key]
  }

  problem(reason: string): void {
    this.#problems.push({ path: this.path, reason })
  }

  /** A field of this object. Of anything else than an object every field is absent (report that with `object`). */
  at(key: string): Field {
    const inside = isObject(this.value) && Object.hasOwn(this.value, key) ? this.value[key] : undefined
    return new Field(inside, this.#problems, this, key)
  }

  /** Reports anything that is not an object; absent is fine unless `required`. */
  object(required = false): this {
    if (this.absent ? required : !isObject(this.value)) this.problem(`${this.#shown()} is not an object`)
    return this
  }

  list(): Field[] {
    if (this.absent) return []
    if (Array.isArray(this.value)) return this.value.map((item, i) => new Field(item, this.#problems, this, i))
    this.problem(`${this.#shown()} is not a list`)
    return []
  }

  string<F extends string | undefined>(fallback: F): string | F {
    if (typeof this.value === 'string') return this.value
    if (!this.absent) this.problem(`${this.#shown()} is not a string`)
    return fallback
  }

  /** A string that must be there and not be empty. */
  requiredString(): string {
    const text = this.string('')
    if (text === '' && (this.absent || this.value === '')) this.problem('is required')
    return text
  }

  boolean(fallback: boolean): boolean {
    if (typeof this.value === 'boolean') return this.value
    if (!this.absent) this.problem(`${this.#shown()} is not true or false`)
    return fallback
  }

  /** A whole number within a range; `what` names it in the message. Absent: undefined. */
  integer(what: string, min: number, max: number): number | undefined {
    if (this.absent) return undefined
    const value = this.value
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
    this.problem(`${this.#shown()} is not ${what} (${min}-${max})`)
    return undefined
  }

  oneOf<T extends string>(allowed: readonly T[], fallback: T): T {
    if (this.absent) return fallback
    const found = allowed.find((word) => word === this.value)
    if (found === undefined) this.problem(`${this.#shown()} is not one of ${allowed.join(', ')}`)
    return found ?? fallback
  }

  #shown(): string {
    return this.absent ? 'nothing' : show(this.value)
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
