/** Counting what clients see: answers per server, errors by kind, latencies. */

/** What a client saw since the tally began. Times in milliseconds. */
export interface Report {
  readonly sent: number
  readonly answered: number
  readonly failed: number
  /** Answers per server, by the name that the server gives itself. */
  readonly servers: Readonly<Record<string, number>>
  /** Failures by kind: ECONNREFUSED, ECONNRESET, TIMEOUT, HTTP 500, ... */
  readonly errors: Readonly<Record<string, number>>
  /** Counts per latency bucket, for merge() and percentile(). */
  readonly latencies: readonly number[]
}

/** Sixteen buckets per doubling, from 1 microsecond: a percentile is right to 4.5 %. */
const bucketsPerDoubling = 16
const bucketCount = bucketsPerDoubling * 27

function bucketOf(ms: number): number {
  const index = Math.floor(Math.log2(Math.max(ms * 1000, 1)) * bucketsPerDoubling)
  return Math.min(index, bucketCount - 1)
}

/** Upper end of a bucket in milliseconds. */
function bucketEnd(index: number): number {
  return 2 ** ((index + 1) / bucketsPerDoubling) / 1000
}

function add(into: Record<string, number>, key: string, count: number): void {
  into[key] = (into[key] ?? 0) + count
}

/** A report of nothing. */
export function emptyReport(): Report {
  return { sent: 0, answered: 0, failed: 0, servers: {}, errors: {}, latencies: [] }
}

/** Counts outcomes of requests as they come. */
export class Tally {
  #sent = 0
  #answered = 0
  #failed = 0
  #servers: Record<string, number> = {}
  #errors: Record<string, number> = {}
  #latencies: number[] = []

  sent(): void {
    this.#sent += 1
  }

  answered(server: string, ms: number): void {
    this.#answered += 1
    add(this.#servers, server, 1)
    const bucket = bucketOf(ms)
    while (this.#latencies.length <= bucket) this.#latencies.push(0)
    this.#latencies[bucket] = (this.#latencies[bucket] ?? 0) + 1
  }

  failed(kind: string): void {
    this.#failed += 1
    add(this.#errors, kind, 1)
  }

  /** What was counted since the start or the last reset. */
  report(reset: boolean): Report {
    const report = {
      sent: this.#sent,
      answered: this.#answered,
      failed: this.#failed,
      servers: { ...this.#servers },
      errors: { ...this.#errors },
      latencies: [...this.#latencies],
    }
    if (reset) this.#reset()
    return report
  }

  #reset(): void {
    this.#sent = this.#answered = this.#failed = 0
    this.#servers = {}
    this.#errors = {}
    this.#latencies = []
  }
}

/** The sum of several reports. */
export function mergeReports(reports: readonly Report[]): Report {
  const servers: Record<string, number> = {}
  const errors: Record<string, number> = {}
  const latencies: number[] = []
  for (const report of reports) {
    for (const [name, count] of Object.entries(report.servers)) add(servers, name, count)
    for (const [kind, count] of Object.entries(report.errors)) add(errors, kind, count)
    report.latencies.forEach((count, i) => {
      latencies[i] = (latencies[i] ?? 0) + count
    })
  }
  const sum = (of: (report: Report) => number) => reports.reduce((total, report) => total + of(report), 0)
  return {
    sent: sum((r) => r.sent),
    answered: sum((r) => r.answered),
    failed: sum((r) => r.failed),
    servers,
    errors,
    latencies,
  }
}

/** The latency in milliseconds that `share` (0 to 1) of the answers did not exceed; undefined without answers. */
export function percentile(report: Report, share: number): number | undefined {
  const total = report.latencies.reduce((sum, count) => sum + count, 0)
  if (total === 0) return undefined
  let seen = 0
  const index = report.latencies.findIndex((count) => {
    seen += count
    return seen >= total * share && count > 0
  })
  return bucketEnd(index)
}
