/**
 * From Services and EndpointSlices to the virtual services that serve them. Pure: the same objects give the same
 * result in the same order, wherever they came from.
 */
import type { DesiredService } from '../engine/table.ts'
import type { Family, Scheduler, ServerSpec } from '../model/types.ts'
import type { IpAddress } from './address.ts'
import type { KubeEndpoint, KubeEndpointSlice, KubeObjects, KubeService, KubeServicePort } from './objects.ts'
import { objectId } from './objects.ts'
import { serviceText } from './service-text.ts'

export interface TranslateOptions {
  /** Of every service (kube-proxy's ipvs.scheduler). */
  readonly scheduler: Scheduler
}

/** Something of an object that is not programmed as its owner may expect. */
export interface Notice {
  /** `Service default/web`. */
  readonly object: string
  readonly reason: string
}

/**
 * Results of an earlier call, by Service object. A service whose objects are the same ones as then (not merely equal)
 * is not worked out again, and gives the same DesiredService objects: a change costs what changed. Of one `options`.
 */
export class TranslationMemo {
  readonly #results = new WeakMap<
    KubeService,
    { slices: readonly KubeEndpointSlice[]; all: readonly DesiredService[] }
  >()

  get(
    service: KubeService,
    slices: readonly KubeEndpointSlice[],
    make: () => readonly DesiredService[],
  ): readonly DesiredService[] {
    const known = this.#results.get(service)
    const same = known?.slices.length === slices.length && known.slices.every((slice, i) => slice === slices[i])
    if (known !== undefined && same) return known.all
    const all = make()
    this.#results.set(service, { slices, all })
    return all
  }
}

export interface Translation {
  readonly desired: readonly DesiredService[]
  readonly notices: readonly Notice[]
}

/**
 * One virtual service per cluster IP and port, by namespace, name, then as the Service lists them; its servers in the
 * order of their text. A service without endpoints is there without servers: it refuses. Which endpoints: the ready
 * ones, and if there are none the ones that terminate but still serve (kube-proxy's CategorizeEndpoints).
 */
export function translate(objects: KubeObjects, options: TranslateOptions, memo = new TranslationMemo()): Translation {
  const notices: Notice[] = []
  const slices = slicesByService(objects.endpointSlices, notices)
  const owners = new Map<string, string>()
  const desired: DesiredService[] = []
  for (const service of [...objects.services].sort(byName)) {
    if (!isServed(service, notices)) continue
    const own = slices.get(`${service.namespace}/${service.name}`) ?? []
    for (const each of memo.get(service, own, () => virtualServices(service, own, options))) {
      const text = serviceText(each.service.key)
      const owner = owners.get(text)
      if (owner === undefined) desired.push(each)
      else notices.push({ object: objectId(service), reason: `${text} is ${owner}'s already: not served` })
      owners.set(text, owner ?? objectId(service))
    }
  }
  return { desired, notices }
}

function virtualServices(
  service: KubeService,
  slices: readonly KubeEndpointSlice[],
  options: TranslateOptions,
): DesiredService[] {
  return service.clusterIps.flatMap((ip) => {
    return service.ports.map((port) => virtualService(service, ip, port, slices, options))
  })
}

/** Whether this proxy serves it; says so where the owner would not expect that it doesn't. */
function isServed(service: KubeService, notices: Notice[]): boolean {
  if (service.otherProxy !== undefined || service.headless || service.type === 'ExternalName') return false
  const notice = (reason: string): number => notices.push({ object: objectId(service), reason })
  if (service.clusterIps.length === 0) {
    notice('it has no cluster IP (none is allocated here): not served')
    return false
  }
  if (service.type !== 'ClusterIP') notice(`type ${service.type}: only its cluster IPs are served`)
  if (service.internalTrafficPolicy === 'Local') notice('internalTrafficPolicy Local: endpoints of all nodes are used')
  return true
}

function virtualService(
  service: KubeService,
  ip: IpAddress,
  port: KubeServicePort,
  slices: readonly KubeEndpointSlice[],
  options: TranslateOptions,
): DesiredService {
  const { affinityS } = service
  const mask = ip.family === 4 ? '255.255.255.255' : 128
  return {
    service: {
      key: { kind: 'address', family: ip.family, protocol: port.protocol, address: ip.address, port: port.port },
      scheduler: options.scheduler,
      schedulerFlags: [],
      ...(affinityS === undefined ? {} : { persistence: { timeoutS: affinityS, mask } }),
      onePacket: false,
    },
    servers: servers(ip.family, port, slices),
  }
}

interface Candidate {
  readonly text: string
  readonly port: number
  readonly endpoint: KubeEndpoint
}

/** The endpoints of one service port and family, chosen and sorted. */
function servers(family: Family, port: KubeServicePort, slices: readonly KubeEndpointSlice[]): ServerSpec[] {
  const candidates = new Map<string, Candidate>()
  for (const slice of slices) {
    if (slice.family !== family) continue
    for (const slicePort of slice.ports) {
      if (slicePort.name !== port.name || slicePort.protocol !== port.protocol || !slicePort.port) continue
      for (const endpoint of slice.endpoints) addCandidate(candidates, endpoint, slicePort.port)
    }
  }
  const all = [...candidates.values()]
  const ready = all.filter(({ endpoint }) => endpoint.ready)
  const chosen = ready.length > 0 ? ready : all.filter(({ endpoint }) => endpoint.serving && endpoint.terminating)
  return chosen
    .sort((a, b) => (a.text < b.text ? -1 : 1))
    .map(({ endpoint, port }) => ({
      family,
      address: endpoint.address,
      port,
      weight: 1,
      method: 'masq',
      upper: 0,
      lower: 0,
    }))
}

/**
 * The same address and port may be in several slices. One that doesn't terminate beats one that does (the address was
 * given to a new pod); otherwise an endpoint is ready only if every slice calls it ready.
 */
function addCandidate(candidates: Map<string, Candidate>, endpoint: KubeEndpoint, port: number): void {
  const text = `${endpoint.address} ${port}`
  const other = candidates.get(text)?.endpoint
  if (other !== undefined && other.terminating !== endpoint.terminating) {
    if (other.terminating) candidates.set(text, { text, port, endpoint })
    return
  }
  const ready = endpoint.ready && (other?.ready ?? true)
  const serving = endpoint.serving && (other?.serving ?? true)
  candidates.set(text, { text, port, endpoint: { ...endpoint, ready, serving } })
}

/** Slices that name a service, in order of their names, by `namespace/name` of it. */
function slicesByService(slices: readonly KubeEndpointSlice[], notices: Notice[]): Map<string, KubeEndpointSlice[]> {
  const byService = new Map<string, KubeEndpointSlice[]>()
  for (const slice of [...slices].sort(byName)) {
    if (slice.headless) continue
    for (const reason of unused(slice)) notices.push({ object: objectId(slice), reason })
    if (slice.service === '' || slice.family === undefined) continue
    const key = `${slice.namespace}/${slice.service}`
    const list = byService.get(key)
    if (list === undefined) byService.set(key, [slice])
    else list.push(slice)
  }
  return byService
}

function unused(slice: KubeEndpointSlice): string[] {
  if (slice.service === '') return ['no label kubernetes.io/service-name: not used']
  if (slice.family === undefined) return ['addressType FQDN: not used']
  return slice.ports.flatMap((port, i) => {
    if (port.name === undefined) return [`ports[${i}] has no name: not used`]
    return port.port ? [] : [`ports[${i}] has no number ("all ports"): not used`]
  })
}

function byName(a: KubeService | KubeEndpointSlice, b: KubeService | KubeEndpointSlice): number {
  if (a.namespace !== b.namespace) return a.namespace < b.namespace ? -1 : 1
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}
