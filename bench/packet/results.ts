/** From samples to what is reported: lines, a table, bars. Pure. */
import type { Bar, Line } from '../common/report.ts'
import { median, spread } from '../common/stats.ts'
import { type Case, caseKey, type Floor, floorOf, limitOf, SERVICES_LIMIT, withServices } from './cases.ts'
import type { Sample } from './measure.ts'

/** All samples of a case, in the order in which they were taken. */
export interface CaseSamples {
  readonly case: Case
  readonly samples: readonly Sample[]
}

/** All samples of a floor alone, in nanoseconds. */
export interface FloorSamples {
  readonly case: Case
  readonly floor: Floor
  readonly ns: readonly number[]
}

/** A case as it is reported. Times are nanoseconds per packet; ratios are medians of what each round gave. */
export interface CaseResult {
  readonly case: Case
  readonly ns: number
  readonly floor: Floor
  readonly floorNs: number
  readonly ratio: number
  readonly spread: number
  /** Cost against the same with few services; undefined: this is the one with few. */
  readonly servicesRatio: number | undefined
}

function ratios(over: readonly number[], under: readonly number[]): number[] {
  return over.map((value, i) => value / (under[i] ?? Number.NaN))
}

function summarize(all: ReadonlyMap<string, CaseSamples>, one: CaseSamples, fewServices: number): CaseResult {
  const ns = one.samples.map((sample) => sample.ns)
  const floorNs = one.samples.map((sample) => sample.floorNs)
  const toFloor = ratios(ns, floorNs)
  const few = one.case.services === fewServices ? undefined : all.get(caseKey(withServices(one.case, fewServices)))
  return {
    case: one.case,
    ns: median(ns),
    floor: floorOf(one.case.name),
    floorNs: median(floorNs),
    ratio: median(toFloor),
    spread: spread(toFloor),
    servicesRatio:
      few === undefined
        ? undefined
        : median(
            ratios(
              ns,
              few.samples.map((sample) => sample.ns),
            ),
          ),
  }
}

/** Summarizes every case. */
export function summarizeAll(all: readonly CaseSamples[], fewServices: number): CaseResult[] {
  const byKey = new Map(all.map((one) => [caseKey(one.case), one]))
  return all.map((one) => summarize(byKey, one, fewServices))
}

function describe({ name, hook, family, services, flows, over }: Case): string {
  const many = flows > 0 ? `, ${flows} flow${flows === 1 ? '' : 's'}` : ''
  return `${name}, ${hook}, IPv${family}, ${services} services${many}${over > 1 ? ', over all services' : ''}`
}

/** The bars that a case has to meet. */
export function barsOf(result: CaseResult): Bar[] {
  const limit = limitOf(result.case.name, result.case.hook)
  const what = describe(result.case)
  const { servicesRatio } = result
  return [
    ...(limit === undefined ? [] : [{ what: `${what}: against floor "${result.floor}"`, ratio: result.ratio, limit }]),
    ...(servicesRatio === undefined
      ? []
      : [{ what: `${what}: against few services`, ratio: servicesRatio, limit: SERVICES_LIMIT }]),
  ]
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000
}

/** A case as a line of JSON. */
export function caseLine(result: CaseResult): Line {
  const { name, ...rest } = result.case
  const services = result.servicesRatio === undefined ? {} : { servicesRatio: rounded(result.servicesRatio) }
  return {
    bench: 'packet',
    case: name,
    ...rest,
    ns: rounded(result.ns),
    floor: result.floor,
    floorNs: rounded(result.floorNs),
    ratio: rounded(result.ratio),
    spread: rounded(result.spread),
    ...services,
  }
}

/** A floor as a line of JSON. */
export function floorLine({ case: { name, ...rest }, floor, ns }: FloorSamples): Line {
  return { bench: 'packet', case: `floor ${floor}`, ...rest, ns: rounded(median(ns)), spread: rounded(spread(ns)) }
}

export const caseHead = ['case', 'hook', 'IP', 'services', 'flows', 'over', 'ns', 'floor', 'ns', 'ratio', '+-', '/few']

/** A case as a row of the table. */
export function caseRow(result: CaseResult): string[] {
  const { name, hook, family, services, flows, over } = result.case
  return [
    name,
    hook,
    String(family),
    String(services),
    flows === 0 ? 'new' : String(flows),
    String(over),
    result.ns.toFixed(1),
    result.floor,
    result.floorNs.toFixed(1),
    result.ratio.toFixed(2),
    result.spread.toFixed(2),
    result.servicesRatio?.toFixed(2) ?? '',
  ]
}

export const floorHead = ['floor', 'hook', 'IP', 'services', 'flows', 'ns', '+-']

/** A floor as a row of the table. */
export function floorRow({ case: { hook, family, services, flows }, floor, ns }: FloorSamples): string[] {
  return [floor, hook, String(family), String(services), String(flows), median(ns).toFixed(1), spread(ns).toFixed(2)]
}
