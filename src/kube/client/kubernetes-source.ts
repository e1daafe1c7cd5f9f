/**
 * Services, EndpointSlices, our Node and the ServiceCIDRs from the API server. What is known is kept whatever becomes of the server; only a
 * whole list of both kinds lets anything be removed. Objects are reduced as they come and handed on; none is kept here.
 */
import type { Prefix } from '../../model/types.ts'
import { type Decoded, decodeNode, decodeObject, decodeServiceCidr } from '../decode.ts'
import { formatPath } from '../field.ts'
import { wantsDsr } from '../annotations.ts'
import type { KubeNode, KubeObject, NodeAddresses } from '../objects.ts'
import type { ApiServer } from './api-server.ts'
import { KindSink } from './kind-sink.ts'
import { NodeList } from './node-list.ts'
import { listOnce, Reflector, type ReflectorClock, type Resource } from './reflector.ts'

/** What became of the objects since the last call. */
export interface KubeChanges {
  readonly set: readonly KubeObject[]
  /** By objectId. */
  readonly removed: readonly string[]
  /** Our Node as it is; undefined: there is none, or it is not known. */
  readonly node: KubeNode | undefined
  /** Where cluster IPs are from, by the ServiceCIDRs; absent: there are none, or they are not known. */
  readonly serviceCidrs?: readonly Prefix[]
  /** Of all nodes, since a Service was there that wants them (forwarding-method dsr-*); absent: they are not known. */
  readonly nodes?: NodeAddresses
  /** All Services and EndpointSlices that there are have been told of. */
  readonly complete: boolean
}

export interface KubernetesSourceOptions {
  readonly api: ApiServer
  readonly clock: ReflectorClock
  readonly nodeName: string
  /** Changes are gathered for so long, milliseconds. */
  readonly gatherMs: number
  readonly onChanges: (changes: KubeChanges) => void
  /** An object that cannot be used; its last good version stays in force. */
  readonly onBad: (object: string, reasons: readonly string[]) => void
  /** Asking for a kind of object failed; undefined: it goes well again. */
  readonly onTrouble: (kind: string, error: unknown) => void
}

type Kind = 'Service' | 'EndpointSlice'

const selector = '!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name'
/** As kube-proxy selects: neither what is headless nor what another proxy serves. */
const resources = {
  Service: {
    path: '/api/v1/services',
    labelSelector: selector,
    preferredFieldSelector: 'spec.clusterIP!=None',
  },
  EndpointSlice: { path: '/apis/discovery.k8s.io/v1/endpointslices', labelSelector: selector },
} as const satisfies Record<Kind, Resource>

const serviceCidrs: Resource = { path: '/apis/networking.k8s.io/v1/servicecidrs', optional: true }

/** The cluster's own way to the API server: ours, perhaps, too. */
const first = {
  Service: { path: '/api/v1/namespaces/default/services', fieldSelector: 'metadata.name=kubernetes' },
  EndpointSlice: {
    path: '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices',
    labelSelector: 'kubernetes.io/service-name=kubernetes',
  },
} as const satisfies Record<Kind, Resource>

const apiVersions = { Service: 'v1', EndpointSlice: 'discovery.k8s.io/v1' } as const satisfies Record<Kind, string>
const kinds = ['Service', 'EndpointSlice'] as const

export class KubernetesSource {
  readonly #options: KubernetesSourceOptions
  readonly #sinks: Readonly<Record<Kind, KindSink>>
  readonly #nodeSink: KindSink
  readonly #cidrSink: KindSink
  /** All nodes: their addresses. Followed only once a Service wants them, as Nodes change all the time. */
  readonly #nodes: NodeList
  readonly #closed = new AbortController()
  #reflectors: readonly Reflector[] = []
  #set = new Map<string, KubeObject>()
  #removed = new Set<string>()
  #node: KubeNode | undefined
  /** By objectId of the ServiceCIDR. */
  readonly #cidrs = new Map<string, readonly Prefix[]>()
  /** Our Node is known, or could not be had: services do not wait for it any longer. */
  #nodeAsked = false
  #told = false
  #flush: { cancel(): void } | undefined
  /** Until then nothing is handed on: by the clock. */
  #restUntilMs = 0

  constructor(options: KubernetesSourceOptions) {
    this.#options = options
    this.#sinks = { Service: this.#makeSink('Service'), EndpointSlice: this.#makeSink('EndpointSlice') }
    this.#nodeSink = new KindSink('Node', {
      onSet: (_id, object) => this.#takeNode(decodeNode(object)),
      onRemove: () => this.#takeNode(undefined),
      onListed: () => this.#askedNode(),
    })
    this.#nodes = new NodeList(() => this.#changed())
    this.#cidrSink = new KindSink('ServiceCIDR', {
      onSet: (id, object) => this.#takeCidrs(() => this.#cidrs.set(id, decodeServiceCidr(object))),
      onRemove: (id) => this.#takeCidrs(() => this.#cidrs.delete(id)),
      onListed: () => undefined,
    })
  }

  /** Follows from now on. `default/kubernetes` is asked for by itself, to be there before everything else. */
  start(): void {
    const { nodeName } = this.#options
    const node = { path: '/api/v1/nodes', fieldSelector: `metadata.name=${nodeName}` }
    this.#reflectors = [
      ...kinds.map((kind) => this.#makeReflector(kind, resources[kind], this.#sinks[kind])),
      this.#makeReflector('Node', node, this.#nodeSink),
      this.#makeReflector('ServiceCIDR', serviceCidrs, this.#cidrSink),
      ...(this.#nodes.wanted ? [this.#nodesReflector()] : []),
    ]
    for (const reflector of this.#reflectors) void reflector.run()
    void this.#askFirst()
  }

  /** Asks for everything anew; what is known stays in force meanwhile. */
  reload(): void {
    this.#stop()
    this.start()
  }

  close(): void {
    this.#stop()
    this.#closed.abort()
    this.#flush?.cancel()
  }

  #stop(): void {
    for (const reflector of this.#reflectors) reflector.close()
  }

  #makeSink(kind: Kind): KindSink {
    return new KindSink(kind, {
      onSet: (id, object) => this.#take(kind, id, object),
      onRemove: (id) => {
        this.#set.delete(id)
        this.#removed.add(id)
        this.#changed()
      },
      onListed: () => this.#changed(),
    })
  }

  #makeReflector(kind: string, resource: Resource, sink: KindSink): Reflector {
    const { api, clock, onTrouble } = this.#options
    return new Reflector({
      resource,
      api,
      clock,
      sink,
      onTrouble: (error) => {
        onTrouble(kind, error)
        if (kind === 'Node') this.#askedNode()
        if (kind === 'Nodes') this.#nodes.failed()
      },
    })
  }

  /** Told by itself, as nothing else is whole yet. Fails without consequence: the lists bring the same later. */
  async #askFirst(): Promise<void> {
    const { api, clock, onChanges } = this.#options
    try {
      const set: KubeObject[] = []
      for (const kind of kinds) {
        for (const value of await listOnce(api, first[kind], clock, this.#closed.signal)) {
          const decoded = decode(kind, value)
          if (decoded.is === 'object') set.push(decoded.object)
        }
      }
      if (!this.#told) onChanges({ set, removed: [], ...this.#surroundings(), complete: false })
    } catch {
      // The reflectors ask the same server and tell what is wrong with it.
    }
  }

  #take(kind: Kind, id: string, value: unknown): void {
    const decoded = decode(kind, value)
    if (decoded.is === 'object') {
      this.#removed.delete(id)
      this.#set.set(id, decoded.object)
      if (kind === 'Service' && wantsDsr(decoded.object.annotations)) this.#followNodes()
      this.#changed()
    } else if (decoded.is === 'bad') {
      this.#options.onBad(
        id,
        decoded.problems.map(({ path, reason }) => `${formatPath(path)}: ${reason}`),
      )
    }
  }

  #followNodes(): void {
    if (this.#nodes.wanted) return
    this.#nodes.wanted = true
    const reflector = this.#nodesReflector()
    this.#reflectors = [...this.#reflectors, reflector]
    void reflector.run()
  }

  #nodesReflector(): Reflector {
    return this.#makeReflector('Nodes', { path: '/api/v1/nodes' }, this.#nodes.sink)
  }

  #takeNode(node: KubeNode | undefined): void {
    this.#node = node
    this.#changed()
  }

  #takeCidrs(change: () => void): void {
    change()
    this.#changed()
  }

  #askedNode(): void {
    this.#nodeAsked = true
    this.#changed()
  }

  get #complete(): boolean {
    return kinds.every((kind) => this.#sinks[kind].listed) && this.#nodeAsked && this.#nodes.settled
  }

  /** Changes are handed on soon; not before everything is known, as a service may have a part of its endpoints. */
  #changed(): void {
    if (this.#flush !== undefined || !this.#nodes.settled || !(this.#told || this.#complete)) return
    const { clock, gatherMs } = this.#options
    this.#flush = clock.after(Math.max(gatherMs, this.#restUntilMs - clock.now()), () => this.#tell())
  }

  #surroundings(): Pick<KubeChanges, 'node' | 'serviceCidrs' | 'nodes'> {
    const prefixes = [...this.#cidrs.values()].flat()
    const { addresses: nodes } = this.#nodes
    return {
      node: this.#node,
      ...(prefixes.length === 0 ? {} : { serviceCidrs: prefixes }),
      ...(nodes === undefined ? {} : { nodes }),
    }
  }

  #tell(): void {
    const { clock, onChanges } = this.#options
    const started = clock.now()
    const isFirst = !this.#told
    this.#flush = undefined
    const set = [...this.#set.values()]
    const removed = [...this.#removed]
    this.#set = new Map()
    this.#removed = new Set()
    this.#told = true
    onChanges({ set, removed, ...this.#surroundings(), complete: true })
    const ended = clock.now()
    // Handing on may take no more than half of the time. What took long at first was everything: a change takes less.
    if (!isFirst) this.#restUntilMs = ended + (ended - started)
  }
}

/** Items of a list do not say what they are; events do. */
function decode(kind: Kind, value: unknown): Decoded {
  return decodeObject({ ...(value as object), kind, apiVersion: apiVersions[kind] })
}
