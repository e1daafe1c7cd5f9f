/**
 * What annotations of Services and EndpointSlices say of scheduling. Pure. A value that is not understood, or that does not
 * fit the others, is a problem, and what it was to change stays as it is by default.
 */
import { schedulerFlagNames } from '../model/scheduler-flags.ts'
import { type Family, type ForwardingMethod, type Scheduler, schedulers, type ServiceSpec } from '../model/types.ts'
import { parseIp } from './address.ts'
import { show } from './field.ts'

/** Annotations of ours begin so. */
export const annotationPrefix = 'bpvs.io/'

/** Without the prefix, by name. */
export type Annotations = Readonly<Record<string, string>>

/** Weights of endpoints. */
export interface Weights {
  readonly byAddress: ReadonlyMap<string, number>
  /** Of every other address; absent: nothing is said of them. */
  readonly others?: number
}

/** What carries packets from node to node. */
export type DsrTunnel = 'ipip' | 'gue'

/** Each address and port of a Service, each port whatever the address, or all of it. */
const affinityScopes = ['address', 'port', 'service'] as const
export type AffinityScope = (typeof affinityScopes)[number]

/** How the connections of a Service are scheduled. */
export interface Scheduling {
  readonly scheduler: Scheduler
  readonly flags: ServiceSpec['schedulerFlags']
  readonly method: ForwardingMethod
  /** Clients from outside are sent on to the node of an endpoint in such a tunnel, and answered from there. */
  readonly dsr?: DsrTunnel
  /** Clients that persistence takes for one: the length of their common prefix. */
  readonly prefixes: Readonly<Record<Family, number>>
  /** What a client goes on to one endpoint for. */
  readonly affinityScope: AffinityScope
  readonly weights: Weights
  /** New endpoints get their share over so many seconds; 0: at once. */
  readonly slowStartS: number
}

export interface AnnotationProblem {
  /** Without the prefix. */
  readonly annotation: string
  /** Names the value: `"x" is no scheduler (rr, ...)`. */
  readonly reason: string
}

/** Greatest weight of an endpoint. */
export const mostWeight = 1000
const longestSlowStartS = 86_400
const methods = {
  masq: { method: 'masq' },
  droute: { method: 'droute' },
  tunnel: { method: 'tunnel' },
  'dsr-ipip': { method: 'masq', dsr: 'ipip' },
  'dsr-gue': { method: 'masq', dsr: 'gue' },
} as const satisfies Record<string, Pick<Scheduling, 'method' | 'dsr'>>
/** Schedulers that a server's weight gives its share. */
const weighing: readonly Scheduler[] = ['wrr', 'wlc', 'lblc', 'lblcr', 'sed', 'nq', 'twos']

const noWeights: Weights = { byAddress: new Map() }

/** mh counts the source port too, as kube-proxy has it (flag 2: mh-port). */
const defaultFlags = (scheduler: Scheduler): ServiceSpec['schedulerFlags'] => (scheduler === 'mh' ? [2] : [])

function plainScheduling(scheduler: Scheduler): Scheduling {
  return {
    scheduler,
    flags: defaultFlags(scheduler),
    method: 'masq',
    prefixes: { 4: 32, 6: 128 },
    affinityScope: 'address',
    weights: noWeights,
    slowStartS: 0,
  }
}

/** Reads a Service's annotations, if it has some; `scheduler` is the cluster's. */
export function schedulingOf(
  annotations: Annotations | undefined,
  scheduler: Scheduler,
): { readonly scheduling: Scheduling; readonly problems: readonly AnnotationProblem[] } {
  if (annotations === undefined) return { scheduling: plainScheduling(scheduler), problems: [] }
  const reader = new Reader(annotations)
  const chosen = reader.read('scheduler', readScheduler) ?? scheduler
  const flags = reader.read('scheduler-flags', (text) => readFlags(text, chosen)) ?? defaultFlags(chosen)
  const scheduling = {
    scheduler: chosen,
    flags,
    ...(reader.read('forwarding-method', readMethod) ?? methods.masq),
    prefixes: {
      4: reader.read('affinity-prefix-ipv4', readNumber('a prefix length', 1, 32)) ?? 32,
      6: reader.read('affinity-prefix-ipv6', readNumber('a prefix length', 1, 128)) ?? 128,
    },
    affinityScope: reader.read('affinity-scope', readScope) ?? 'address',
    weights: reader.read('weights', readWeights) ?? noWeights,
    slowStartS: reader.read('slow-start-seconds', (text) => readSlowStart(text, chosen)) ?? 0,
  } as const
  return { scheduling, problems: reader.end() }
}

/** Reads an EndpointSlice's annotations, if it has some. */
export function weightsOf(annotations: Annotations | undefined): {
  readonly weights: Weights
  readonly problems: readonly AnnotationProblem[]
} {
  if (annotations === undefined) return { weights: noWeights, problems: [] }
  const reader = new Reader(annotations)
  const weights = reader.read('weights', readWeights) ?? noWeights
  return { weights, problems: reader.end() }
}

/** The weight of an endpoint: the first of these that says something of it counts. */
export function weightOf(address: string, ...sources: readonly Weights[]): number {
  const known = sources.map(({ byAddress, others }) => byAddress.get(address) ?? others)
  return known.find((weight) => weight !== undefined) ?? 1
}

/** What is wrong with a value. */
class Bad {
  readonly reason: string

  constructor(reason: string) {
    this.reason = reason
  }
}

/** Reads annotations, each once, and collects what is wrong with them. */
class Reader {
  readonly #annotations: Annotations
  readonly #known = new Set<string>()
  readonly #problems: AnnotationProblem[] = []

  constructor(annotations: Annotations) {
    this.#annotations = annotations
  }

  /** Undefined: it is not there, or wrong. */
  read<T>(annotation: string, parse: (text: string) => T | Bad): T | undefined {
    this.#known.add(annotation)
    const text = this.#annotations[annotation]
    if (text === undefined) return undefined
    const value = parse(text.trim())
    if (!(value instanceof Bad)) return value
    this.#problems.push({ annotation, reason: `${show(text)} ${value.reason}` })
    return undefined
  }

  /** All problems, with the annotations that nothing asked for. */
  end(): readonly AnnotationProblem[] {
    const unknown = Object.keys(this.#annotations).filter((annotation) => !this.#known.has(annotation))
    const reason = `is not known (${[...this.#known].join(', ')})`
    return [...this.#problems, ...unknown.map((annotation) => ({ annotation, reason }))]
  }
}

function readScheduler(text: string): Scheduler | Bad {
  return schedulers.find((each) => each === text) ?? new Bad(`is no scheduler (${schedulers.join(', ')})`)
}

function readMethod(text: string): Pick<Scheduling, 'method' | 'dsr'> | Bad {
  if (Object.hasOwn(methods, text)) return methods[text as keyof typeof methods]
  return new Bad(`is no forwarding method (${Object.keys(methods).join(', ')})`)
}

function readScope(text: string): AffinityScope | Bad {
  return affinityScopes.find((each) => each === text) ?? new Bad(`is no scope (${affinityScopes.join(', ')})`)
}

/** Does a Service want clients to be sent on from node to node? */
export function wantsDsr(annotations: Annotations | undefined): boolean {
  return /^\s*dsr-/.test(annotations?.['forwarding-method'] ?? '')
}

function readNumber(what: string, least: number, most: number) {
  return (text: string): number | Bad => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : -1
    return value >= least && value <= most ? value : new Bad(`is not ${what} (${least}-${most})`)
  }
}

function readFlags(text: string, scheduler: Scheduler): ServiceSpec['schedulerFlags'] | Bad {
  const usable = schedulerFlagNames.filter((each) => each.scheduler === undefined || each.scheduler === scheduler)
  const names = text.split(',').map((word) => word.trim())
  const flags = new Set<1 | 2 | 3>()
  for (const name of names.filter((each) => each !== '')) {
    const found = usable.find((each) => each.name === name)
    if (found === undefined)
      return new Bad(`has no flag of ${scheduler} (${usable.map((each) => each.name).join(', ')})`)
    flags.add(found.flag)
  }
  return [...flags].sort()
}

function readSlowStart(text: string, scheduler: Scheduler): number | Bad {
  if (text !== '0' && !weighing.includes(scheduler)) {
    return new Bad(`has no effect with ${scheduler}, which does not share by weight (${weighing.join(', ')} do)`)
  }
  return readNumber('a time in seconds', 0, longestSlowStartS)(text)
}

/** `10.0.0.1=3,fd00::7=0,*=2`: * stands for all others. */
function readWeights(text: string): Weights | Bad {
  const byAddress = new Map<string, number>()
  let others: number | undefined
  for (const item of text.split(',').map((each) => each.trim())) {
    const [, key = '', digits = ''] = /^([^=\s]+)\s*=\s*(\S+)$/.exec(item) ?? []
    const address = parseIp(key)?.address
    const weight = readNumber('a weight', 0, mostWeight)(digits)
    if (address === undefined && key !== '*')
      return new Bad(`has ${show(item)}, which is not ADDRESS=WEIGHT or *=WEIGHT`)
    if (weight instanceof Bad) return new Bad(`has ${show(item)}, whose weight ${weight.reason}`)
    if (address === undefined) others = weight
    else byAddress.set(address, weight)
  }
  return others === undefined ? { byAddress } : { byAddress, others }
}
