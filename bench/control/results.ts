/** What is reported of a cluster's size: a line, a row, bars. Pure. */
import type { Bar, Line } from '../common/report.ts'
import { type ClusterSize, sizeName } from './cluster.ts'

export interface ControlResult {
  readonly size: ClusterSize
  /** From the start of the process to everything in the table. */
  readonly startS: number
  /** What bpvsd itself takes of CPUs meanwhile, all its threads together. */
  readonly startCpuS: number
  /** From a change at the API server to the table. */
  readonly eventP50Ms: number
  readonly eventP99Ms: number
  /** From a change at the API server to the first packet at the new endpoint. */
  readonly packetP50Ms: number
  readonly packetP99Ms: number
  readonly restMib: number
  readonly churnMib: number
  /** Of one CPU, with 20 changes a second. */
  readonly churnCpu: number
  /** `bpvsadm -Ln` on a small table, on this one, and to the first bytes of its output. */
  readonly smallListMs: number
  readonly listMs: number
  readonly listFirstMs: number
}

/** The largest size for which all is promised; of more only that it works in time. */
const PROMISED = 10_000

function bar(size: ClusterSize, what: string, value: number, limit: number): Bar {
  return { what: `${sizeName(size)}: ${what}, of ${limit}`, ratio: value / limit, limit: 1 }
}

/** The bars that a result has to meet, each as a share of what is allowed. */
export function barsOf(result: ControlResult): Bar[] {
  const { size } = result
  const small = bar(size, 'milliseconds of bpvsadm -Ln with 5 services', result.smallListMs, 100)
  if (size.services > PROMISED) {
    return [
      bar(size, 'seconds to start', result.startS, 15),
      small,
      bar(size, 'seconds of bpvsadm -Ln', result.listMs / 1000, 10),
    ]
  }
  return [
    bar(size, 'seconds to start', result.startS, 2),
    bar(size, 'milliseconds from an event to the table', result.eventP50Ms, 5),
    bar(size, 'milliseconds from a change to the first packet', result.packetP50Ms, 20),
    bar(size, 'MiB at rest', result.restMib, 200),
    bar(size, 'MiB under churn', result.churnMib, 200),
    bar(size, '% of a CPU with 20 changes a second', result.churnCpu * 100, 5),
    small,
  ]
}

/** A result as a line of JSON. */
export function controlLine({ size, ...values }: ControlResult): Line {
  return { bench: 'control', ...size, ...values }
}

export const controlHead = [
  'services/endpoints',
  'start s',
  'CPU s',
  'event p50 ms',
  'p99',
  'packet p50 ms',
  'p99',
  'MiB at rest',
  'under churn',
  'CPU, 20/s',
  '-Ln ms',
  'first line',
  'small table',
]

/** A result as a row of the table. */
export function controlRow(result: ControlResult): string[] {
  return [
    sizeName(result.size),
    result.startS.toFixed(2),
    result.startCpuS.toFixed(2),
    result.eventP50Ms.toFixed(2),
    result.eventP99Ms.toFixed(2),
    result.packetP50Ms.toFixed(2),
    result.packetP99Ms.toFixed(2),
    result.restMib.toFixed(0),
    result.churnMib.toFixed(0),
    `${(result.churnCpu * 100).toFixed(1)}%`,
    result.listMs.toFixed(0),
    result.listFirstMs.toFixed(0),
    result.smallListMs.toFixed(0),
  ]
}
