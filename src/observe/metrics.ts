/** Counters, gauges and histograms, and their text for Prometheus (exposition format 0.0.4). */

export type Labels = Readonly<Record<string, string>>

const noLabels: Labels = {}

interface Metric {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  lines(): Iterable<string>
}

/** One number for each set of labels. */
class Values implements Metric {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge'
  protected readonly values = new Map<string, number>()

  constructor(type: 'counter' | 'gauge', name: string, help: string) {
    this.type = type
    this.name = name
    this.help = help
  }

  *lines(): Generator<string> {
    for (const [labels, value] of this.values) yield `${this.name}${labels} ${value}`
  }
}

export class Counter extends Values {
  constructor(name: string, help: string) {
    super('counter', name, help)
  }

  add(more: number, labels: Labels = noLabels): void {
    const key = labelText(labels)
    this.values.set(key, (this.values.get(key) ?? 0) + more)
  }

  /** What somebody else has counted so far. */
  setTotal(value: number): void {
    this.values.set('', value)
  }
}

export class Gauge extends Values {
  constructor(name: string, help: string) {
    super('gauge', name, help)
  }

  set(value: number, labels: Labels = noLabels): void {
    this.values.set(labelText(labels), value)
  }
}

interface Observed {
  readonly labels: Labels
  readonly counts: number[]
  sum: number
  count: number
}

export class Histogram implements Metric {
  readonly name: string
  readonly help: string
  readonly type = 'histogram'
  readonly #bounds: readonly number[]
  readonly #observed = new Map<string, Observed>()

  /** `bounds`: upper ones of the buckets, ascending. */
  constructor(name: string, help: string, bounds: readonly number[]) {
    this.name = name
    this.help = help
    this.#bounds = bounds
  }

  observe(value: number, labels: Labels = noLabels): void {
    const key = labelText(labels)
    let seen = this.#observed.get(key)
    if (seen === undefined) {
      seen = { labels, counts: this.#bounds.map(() => 0), sum: 0, count: 0 }
      this.#observed.set(key, seen)
    }
    const bucket = this.#bounds.findIndex((bound) => value <= bound)
    if (bucket !== -1) seen.counts[bucket] = (seen.counts[bucket] ?? 0) + 1
    seen.sum += value
    seen.count++
  }

  *lines(): Generator<string> {
    for (const [key, { labels, counts, sum, count }] of this.#observed) {
      let below = 0
      for (const [i, bound] of this.#bounds.entries()) {
        below += counts[i] ?? 0
        yield `${this.name}_bucket${labelText({ ...labels, le: String(bound) })} ${below}`
      }
      yield `${this.name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`
      yield `${this.name}_sum${key} ${sum}`
      yield `${this.name}_count${key} ${count}`
    }
  }
}

/** Metrics by name. */
export class Registry {
  readonly #metrics: Metric[] = []
  readonly #collectors: (() => void)[] = []

  register<M extends Metric>(metric: M): M {
    this.#metrics.push(metric)
    return metric
  }

  /** Called before each reading, to bring values up to date. */
  onRead(collect: () => void): void {
    this.#collectors.push(collect)
  }

  /** All metrics that have values. */
  text(): string {
    for (const collect of this.#collectors) collect()
    const sorted = this.#metrics.toSorted((a, b) => (a.name < b.name ? -1 : 1))
    const blocks = sorted.flatMap((metric) => {
      const lines = [...metric.lines()]
      const { name, help, type } = metric
      return lines.length === 0 ? [] : [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines]
    })
    return blocks.map((line) => `${line}\n`).join('')
  }
}

/** Of labels that were said before as the same object. */
const labelTexts = new WeakMap<Labels, string>()

/** `{a="1",b="2"}`, by name, but a bucket's bound last; '' without any. */
function labelText(labels: Labels): string {
  let text = labelTexts.get(labels)
  if (text === undefined) {
    text = makeLabelText(labels)
    labelTexts.set(labels, text)
  }
  return text
}

function makeLabelText(labels: Labels): string {
  const pairs = Object.entries(labels)
    .sort(([a], [b]) => (b === 'le' || (a !== 'le' && a < b) ? -1 : 1))
    .map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, escaped)}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function escaped(character: string): string {
  return character === '\n' ? '\\n' : `\\${character}`
}
