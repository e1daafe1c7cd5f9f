/**
 * Services and EndpointSlices, as they come, change and go, and the virtual services that serve them. A change costs what
 * it concerns: of a Service that no change touched, the same objects are given again. Pure but for its own state.
 */
import type { Family, ServiceKey } from '../model/types.ts'
import { type AnnotationProblem, annotationPrefix, type Scheduling, schedulingOf, weightsOf } from './annotations.ts'
import type { ServiceName } from './events.ts'
import type { KubeEndpointSlice, KubeObject, KubeObjects, KubeService } from './objects.ts'
import { objectId } from './objects.ts'
import { type HealthCheck, healthChecksOf, type NoLocal, noLocalOf, noneMissing, sumNoLocal } from './observed.ts'
import { serviceText } from './service-text.ts'
import { type KubeVirtualService, type TranslateOptions, virtualServices } from './virtual-services.ts'

/** Something of an object that is not programmed as its owner may expect. */
export interface Notice {
  /** `Service default/web`. */
  readonly object: string
  readonly reason: string
  /** The Service whose owner an event is to tell this. */
  readonly tell?: ServiceName
}

export interface Translation {
  /** No two of one address, port and protocol. The translator's own list: it changes with the next translation. */
  readonly desired: readonly KubeVirtualService[]
  /** Since the last translation. */
  readonly changes: { readonly added: readonly KubeVirtualService[]; readonly dropped: readonly KubeVirtualService[] }
  readonly notices: readonly Notice[]
  readonly healthChecks: readonly HealthCheck[]
  readonly noLocal: Readonly<Record<Family, NoLocal>>
}

/** A Service with its slices; either may come first. */
interface Entry {
  readonly namespace: string
  readonly name: string
  service: KubeService | undefined
  readonly slices: Map<string, KubeEndpointSlice>
  made: readonly KubeVirtualService[]
  noLocal: Readonly<Record<Family, NoLocal>>
}

interface Claim {
  readonly entry: Entry
  readonly want: KubeVirtualService
}

export class Translator {
  #options: TranslateOptions
  /** By `namespace/name` of the Service. */
  readonly #entries = new Map<string, Entry>()
  /** By objectId: the objects that are known. */
  readonly #objects = new Map<string, KubeObject>()
  readonly #dirty = new Set<Entry>()
  /** Who wants an address and port, by serviceText; more than one where Services are at odds. */
  readonly #claims = new Map<string, Claim[]>()
  readonly #desired: KubeVirtualService[] = []
  /** By serviceText: where in the list it is. */
  readonly #places = new Map<string, number>()
  /** By objectId, of objects that have some; those about claims by serviceText. */
  readonly #notices = new Map<string, readonly Notice[]>()

  /** By entry, of Services that have some. */
  readonly #healthChecks = new Map<Entry, readonly HealthCheck[]>()
  #noLocal = noneMissing

  constructor(options: TranslateOptions) {
    this.#options = options
  }

  /** What bears on every Service has changed. */
  configure(options: TranslateOptions): void {
    this.#options = options
    for (const entry of this.#entries.values()) this.#dirty.add(entry)
  }

  /** An object came or changed. The same object again is nothing new. */
  set(object: KubeObject): void {
    const id = objectId(object)
    const before = this.#objects.get(id)
    if (before === object) return
    if (before !== undefined) this.remove(id)
    this.#objects.set(id, object)
    if (object.kind === 'Service') {
      this.#entry(object.namespace, object.name).service = object
      return
    }
    this.#note(id, unusedOf(object))
    if (isUsed(object)) this.#entry(object.namespace, object.service).slices.set(object.name, object)
  }

  /** An object, by objectId, is gone. */
  remove(id: string): void {
    const object = this.#objects.get(id)
    if (object === undefined) return
    this.#objects.delete(id)
    this.#notices.delete(id)
    if (object.kind === 'Service') this.#entry(object.namespace, object.name).service = undefined
    else if (isUsed(object)) this.#entry(object.namespace, object.service).slices.delete(object.name)
  }

  /** These are all the objects that there are. */
  replace({ services, endpointSlices }: KubeObjects): void {
    const all = [...services, ...endpointSlices]
    const kept = new Set(all.map(objectId))
    for (const id of [...this.#objects.keys()]) {
      if (!kept.has(id)) this.remove(id)
    }
    for (const object of all) this.set(object)
  }

  /** What the objects that are known come to. */
  take(): Translation {
    const touched = new Set<string>()
    for (const entry of this.#dirty) this.#remake(entry, touched)
    this.#dirty.clear()
    const added: KubeVirtualService[] = []
    const dropped: KubeVirtualService[] = []
    for (const text of touched) {
      const before = this.#desired[this.#places.get(text) ?? -1]
      const after = this.#award(text)
      if (before === after) continue
      this.#put(text, after)
      if (before !== undefined) dropped.push(before)
      if (after !== undefined) added.push(after)
    }
    return {
      changes: { added, dropped },
      desired: this.#desired,
      notices: [...this.#notices.values()].flat(),
      healthChecks: [...this.#healthChecks.values()].flat(),
      noLocal: this.#noLocal,
    }
  }

  /** The entry of a Service, which is about to change. */
  #entry(namespace: string, name: string): Entry {
    const key = `${namespace}/${name}`
    let entry = this.#entries.get(key)
    if (entry === undefined) {
      entry = { namespace, name, service: undefined, slices: new Map(), made: [], noLocal: noneMissing }
      this.#entries.set(key, entry)
    }
    this.#dirty.add(entry)
    return entry
  }

  #remake(entry: Entry, touched: Set<string>): void {
    for (const { service } of entry.made) this.#unclaim(entry, serviceText(service.key), touched)
    const { service, slices } = entry
    const sorted = [...slices.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    const { scheduling, problems } = schedulingOf(service?.annotations, this.#options.scheduler)
    const served = service !== undefined && isServed(service)
    entry.made = served ? this.#make(service, sorted, scheduling) : []
    this.#observe(entry, sorted)
    for (const want of entry.made) this.#claim(entry, want, touched)
    if (served) this.#note(objectId(service), misreadOf(service, sorted, [...problems, ...this.#unsent(scheduling)]))
    else if (service !== undefined) this.#note(objectId(service), unservedOf(service))
    else if (slices.size === 0) this.#entries.delete(`${entry.namespace}/${entry.name}`)
  }

  /** What is wrong where clients are to be sent on to other nodes and none is known. */
  #unsent({ dsr }: Scheduling): AnnotationProblem[] {
    if (dsr === undefined || this.#options.nodes !== undefined) return []
    return [{ annotation: 'forwarding-method', reason: `"dsr-${dsr}" needs to know all Nodes, which could not be had` }]
  }

  #observe(entry: Entry, slices: readonly KubeEndpointSlice[]): void {
    const { service, made } = entry
    const checks = service === undefined ? [] : healthChecksOf(service, slices, this.#options.place.node)
    if (checks.length === 0) this.#healthChecks.delete(entry)
    else this.#healthChecks.set(entry, checks)
    const before = entry.noLocal
    entry.noLocal = noLocalOf(made)
    if (entry.noLocal !== before) this.#noLocal = sumNoLocal(this.#noLocal, entry.noLocal, before)
  }

  #make(
    service: KubeService,
    sorted: readonly KubeEndpointSlice[],
    scheduling: Scheduling,
  ): readonly KubeVirtualService[] {
    const found = new Map<string, KubeVirtualService>()
    // An address may be named twice, as an external IP and a load balancer's: its first role counts.
    for (const each of virtualServices(service, sorted, this.#options, scheduling)) {
      const text = serviceText(each.service.key)
      if (!found.has(text)) found.set(text, each)
    }
    return [...found.values()]
  }

  #claim(entry: Entry, want: KubeVirtualService, touched: Set<string>): void {
    const text = serviceText(want.service.key)
    const claims = this.#claims.get(text)
    if (claims === undefined) this.#claims.set(text, [{ entry, want }])
    else claims.push({ entry, want })
    touched.add(text)
  }

  #unclaim(entry: Entry, text: string, touched: Set<string>): void {
    const left = this.#claims.get(text)?.filter((claim) => claim.entry !== entry) ?? []
    if (left.length === 0) this.#claims.delete(text)
    else this.#claims.set(text, left)
    touched.add(text)
  }

  /** Of several Services that want one address and port, the first by name has it. */
  #award(text: string): KubeVirtualService | undefined {
    const [winner, ...others] = [...(this.#claims.get(text) ?? [])].sort((a, b) => compare(a.entry, b.entry))
    const reason = `${text} is ${winner === undefined ? 'nobody' : idOf(winner.entry)}'s already: not served`
    this.#note(
      text,
      others.map(({ entry }) => ({ object: idOf(entry), reason })),
    )
    return winner?.want
  }

  /** What is wanted under an address and port; undefined: nothing. The last of the list takes the place of one that goes. */
  #put(text: string, want: KubeVirtualService | undefined): void {
    const place = this.#places.get(text) ?? this.#desired.length
    if (want !== undefined) {
      this.#desired[place] = want
      this.#places.set(text, place)
      return
    }
    const last = this.#desired.pop()
    this.#places.delete(text)
    if (last === undefined || place === this.#desired.length) return
    this.#desired[place] = last
    this.#places.set(serviceText(last.service.key), place)
  }

  /** The namespace and name of the Service that a virtual service is of. */
  ownerOf(key: ServiceKey): string | undefined {
    const claims = this.#claims.get(serviceText(key)) ?? []
    const [winner] = claims.toSorted((a, b) => compare(a.entry, b.entry))
    return winner === undefined ? undefined : `${winner.entry.namespace}/${winner.entry.name}`
  }

  #note(key: string, notices: readonly Notice[]): void {
    if (notices.length === 0) this.#notices.delete(key)
    else this.#notices.set(key, notices)
  }
}

function idOf({ namespace, name }: Entry): string {
  return objectId({ kind: 'Service', namespace, name })
}

function compare(a: Entry | KubeObject, b: Entry | KubeObject): number {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}

function isServed({ otherProxy, headless, type, clusterIps }: KubeService): boolean {
  return otherProxy === undefined && !headless && type !== 'ExternalName' && clusterIps.length > 0
}

/** Where a Service is not served and its owner would not expect that. */
function unservedOf(service: KubeService): Notice[] {
  const { otherProxy, headless, type, clusterIps } = service
  if (otherProxy !== undefined || headless || type === 'ExternalName' || clusterIps.length > 0) return []
  return [{ object: objectId(service), reason: 'it has no cluster IP (none is allocated here): not served' }]
}

/** Annotations of a Service and its EndpointSlices that are not understood. */
function misreadOf(
  service: KubeService,
  slices: readonly KubeEndpointSlice[],
  problems: readonly AnnotationProblem[],
): Notice[] {
  const { namespace, name, uid } = service
  const tell = { namespace, name, ...(uid === undefined ? {} : { uid }) }
  const notices = (object: KubeObject, of: readonly AnnotationProblem[]): Notice[] =>
    of.map(({ annotation, reason }) => {
      return { object: objectId(object), reason: `annotation ${annotationPrefix}${annotation}: ${reason}`, tell }
    })
  const ofSlices = slices.flatMap((slice) => notices(slice, weightsOf(slice.annotations).problems))
  return [...notices(service, problems), ...ofSlices]
}

function isUsed({ headless, service, family }: KubeEndpointSlice): boolean {
  return !headless && service !== '' && family !== undefined
}

function unusedOf(slice: KubeEndpointSlice): Notice[] {
  if (slice.headless) return []
  const object = objectId(slice)
  if (slice.service === '') return [{ object, reason: 'no label kubernetes.io/service-name: not used' }]
  if (slice.family === undefined) return [{ object, reason: 'addressType FQDN: not used' }]
  return slice.ports.flatMap((port, i) => {
    if (port.name === undefined) return [{ object, reason: `ports[${i}] has no name: not used` }]
    return port.port ? [] : [{ object, reason: `ports[${i}] has no number ("all ports"): not used` }]
  })
}

/** What a whole set of objects comes to, in the order of the Services' names. */
export function translate({ services, endpointSlices }: KubeObjects, options: TranslateOptions): Translation {
  const translator = new Translator(options)
  const sorted = { services: [...services].sort(compare), endpointSlices: [...endpointSlices].sort(compare) }
  translator.replace(sorted)
  return translator.take()
}
