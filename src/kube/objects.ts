/** Services and EndpointSlices, reduced to what a service proxy acts on. Nothing else of an object is kept in memory. */
import type { Family, Prefix, Protocol } from '../model/types.ts'
import type { IpAddress } from './address.ts'
import type { Annotations } from './annotations.ts'

/** Names an object of a kind. */
export interface ObjectName {
  readonly namespace: string
  readonly name: string
}

export interface KubeServicePort {
  /** '' when the only port has no name. */
  readonly name: string
  readonly protocol: Protocol
  readonly port: number
  /** 0: none. */
  readonly nodePort: number
}

export type TrafficPolicy = 'Cluster' | 'Local'

/** A Service (v1). */
export interface KubeService extends ObjectName {
  readonly kind: 'Service'
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalName'
  /** clusterIP None. */
  readonly headless: boolean
  /** Value of the label service.kubernetes.io/service-proxy-name: another proxy serves it. */
  readonly otherProxy?: string
  /** One per family at most, the primary first; empty while none is allocated. */
  readonly clusterIps: readonly IpAddress[]
  readonly ports: readonly KubeServicePort[]
  /** Session affinity by client address, seconds; absent: none. */
  readonly affinityS?: number
  readonly internalTrafficPolicy: TrafficPolicy
  readonly externalTrafficPolicy: TrafficPolicy
  readonly externalIps: readonly IpAddress[]
  /** Addresses of load balancers that hand packets on as they came (ipMode VIP). */
  readonly ingressIps: readonly IpAddress[]
  /** Who may use the load balancers' addresses; empty: everybody. */
  readonly sourceRanges: readonly Prefix[]
  /** Where the load balancer asks whether this node has endpoints; 0: nowhere. */
  readonly healthCheckNodePort: number
  /** Those of bpvs; absent: it has none. */
  readonly annotations?: Annotations
  /** Tells it from one that had its name; absent in manifests. */
  readonly uid?: string
}

export interface KubeEndpoint {
  /** addresses[0]: consumers use no other. */
  readonly address: string
  readonly ready: boolean
  readonly serving: boolean
  readonly terminating: boolean
  /** Name of the node that it runs on. */
  readonly node?: string
  /** Hints: zones and nodes whose clients should use it. */
  readonly forZones?: readonly string[]
  readonly forNodes?: readonly string[]
}

export interface KubeEndpointPort {
  readonly name?: string
  readonly protocol: Protocol
  readonly port?: number
}

/** An EndpointSlice (discovery.k8s.io/v1). */
export interface KubeEndpointSlice extends ObjectName {
  readonly kind: 'EndpointSlice'
  /** Label kubernetes.io/service-name; '' when it has none. */
  readonly service: string
  /** Label service.kubernetes.io/headless is there. */
  readonly headless: boolean
  /** undefined: FQDN. */
  readonly family?: Family
  readonly endpoints: readonly KubeEndpoint[]
  readonly ports: readonly KubeEndpointPort[]
  /** When the pods changed of which this version tells, milliseconds since 1970; absent: it does not say. */
  readonly triggerMs?: number
  /** Those of bpvs; absent: it has none. */
  readonly annotations?: Annotations
}

/** What counts of a Node (v1): the one that we run on. */
export interface KubeNode {
  readonly name: string
  /** Label topology.kubernetes.io/zone. */
  readonly zone?: string
  /** InternalIPs, then ExternalIPs. */
  readonly addresses: readonly IpAddress[]
  readonly podCidrs: readonly string[]
  /** Load balancers may send to it: it is neither being deleted nor about to be. */
  readonly eligible: boolean
}

/** Addresses of nodes by the node's name, as of KubeNode. */
export type NodeAddresses = Readonly<Record<string, readonly IpAddress[]>>

export type KubeObject = KubeService | KubeEndpointSlice

/** What a source knows at one moment. */
export interface KubeObjects {
  readonly services: readonly KubeService[]
  readonly endpointSlices: readonly KubeEndpointSlice[]
}

/** `Service default/web`: names an object in messages and as a key. */
export function objectId(object: { readonly kind: string } & ObjectName): string {
  return `${object.kind} ${object.namespace}/${object.name}`
}
