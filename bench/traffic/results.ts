/** From runs to what is reported. Pure. */
import type { Bar, Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import type { LoadResult } from './course.ts'
import { nftOf, type Path, pathName, SHORT_LIMIT, SIZE_LIMIT, SOCKET_LEAST, type Workload, withFew } from './paths.ts'

/** A run of a path and the run of the one without a balancer right before or after it. */
export interface Pair {
  readonly own: LoadResult
  readonly base: LoadResult
}

/** A path under a workload. Ratios are medians of what each pair gave. */
export interface TrafficResult {
  readonly path: Path
  readonly workload: Workload
  /** Connections, datagrams or bytes per second. */
  readonly rate: number
  readonly rateRatio: number
  readonly p50Us: number
  readonly p99Us: number
  /** Of client, server and what is between them, per connection, datagram or byte. */
  readonly cpuNs: number
  readonly cpuRatio: number
  readonly spread: number
  /** The same from the machine's own clock ticks, summed up: coarse, and whatever else ran is in it. */
  readonly systemRatio: number
}

function rateOf({ count, seconds }: LoadResult): number {
  return count / seconds
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

export function summarize(path: Path, workload: Workload, pairs: readonly Pair[]): TrafficResult {
  const own = pairs.map((pair) => pair.own)
  const cpuRatios = pairs.map((pair) => pair.own.cpuNs / pair.base.cpuNs)
  return {
    path,
    workload,
    rate: median(own.map(rateOf)),
    rateRatio: median(pairs.map((pair) => rateOf(pair.own) / rateOf(pair.base))),
    p50Us: median(own.map(({ p50Us }) => p50Us)),
    p99Us: median(own.map(({ p99Us }) => p99Us)),
    cpuNs: median(own.map(({ cpuNs, count }) => cpuNs / count)),
    cpuRatio: median(cpuRatios),
    spread: spread(cpuRatios),
    systemRatio: sum(own.map((run) => run.systemTicks)) / sum(pairs.map((pair) => pair.base.systemTicks)),
  }
}

/** Of a path past the stack: against no balancer (unless it masquerades, which plain routing does not), nftables, few services. */
function shortBars(result: TrafficResult, all: ReadonlyMap<string, TrafficResult>): Bar[] {
  const { path, cpuRatio } = result
  const what = `CPU per short connection, ${pathName(path)}: against`
  const nft = all.get(pathName(nftOf(path)))
  const few = all.get(pathName(withFew(path)))
  return [
    ...(path.masquerade === true ? [] : [{ what: `${what} plain routing`, ratio: cpuRatio, limit: SHORT_LIMIT }]),
    ...(nft === undefined
      ? []
      : [{ what: `${what} ${pathName(nft.path)}`, ratio: cpuRatio / nft.cpuRatio, limit: SHORT_LIMIT }]),
    ...(few === undefined || few === result
      ? []
      : [{ what: `${what} ${pathName(few.path)}`, ratio: cpuRatio / few.cpuRatio, limit: SIZE_LIMIT }]),
  ]
}

/** The bars that a result has to meet; `all` are those of its workload, by their paths' names. */
function barsOf(result: TrafficResult, all: ReadonlyMap<string, TrafficResult>): Bar[] {
  const { path, workload, rateRatio } = result
  if (path.kind === 'tcx' && workload === 'short') return shortBars(result, all)
  if (path.kind !== 'socket' || workload === 'udp') return []
  const requests = workload === 'short' ? 'a connection each' : 'kept connections'
  const what = `requests per second, ${requests}, ${pathName(path)}: against no balancer`
  return [{ what, ratio: rateRatio, limit: SOCKET_LEAST, atLeast: true }]
}

/** All bars. */
export function listBars(results: readonly TrafficResult[]): Bar[] {
  return results.flatMap((result) => {
    const same = results.filter(({ workload }) => workload === result.workload)
    return barsOf(result, new Map(same.map((one) => [pathName(one.path), one])))
  })
}

function rounded(value: number): number {
  return Math.round(value * 10_000) / 10_000
}

export function trafficLine({ path, workload, ...values }: TrafficResult): Line {
  const numbers = Object.entries(values).map(([name, value]) => [name, rounded(value)])
  return {
    bench: 'traffic',
    case: workload,
    path: path.kind,
    services: path.services,
    masquerade: path.masquerade === true,
    ...Object.fromEntries(numbers),
  }
}

export const trafficHead: Readonly<Record<Workload, readonly string[]>> = {
  short: ['path', 'conn/s', 'ratio', 'p50 us', 'p99 us', 'CPU us/conn', 'ratio', '+-', 'system'],
  kept: ['path', 'requests/s', 'ratio', 'p50 us', 'p99 us', 'CPU us/request', 'ratio', '+-', 'system'],
  udp: ['path', 'requests/s', 'ratio', 'p50 us', 'p99 us', 'CPU us/request', 'ratio', '+-', 'system'],
  bulk: ['path', 'MiB/s', 'ratio', 'CPU us/MiB', 'ratio', '+-', 'system'],
}

export function trafficRow(result: TrafficResult): string[] {
  const unit = result.workload === 'bulk' ? 1 << 20 : 1
  const latency = result.workload === 'bulk' ? [] : [result.p50Us.toFixed(1), result.p99Us.toFixed(1)]
  return [
    pathName(result.path),
    (result.rate / unit).toFixed(0),
    result.rateRatio.toFixed(2),
    ...latency,
    ((result.cpuNs * unit) / 1000).toFixed(1),
    result.cpuRatio.toFixed(3),
    result.spread.toFixed(3),
    result.systemRatio.toFixed(2),
  ]
}
