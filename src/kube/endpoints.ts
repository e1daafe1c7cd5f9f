/** Which endpoints serve a port of a Service, for whom: kube-proxy's rules. Pure. */
import type { Family, Protocol } from '../model/types.ts'
import { type Weights, weightsOf } from './annotations.ts'
import type { KubeEndpoint, KubeEndpointSlice } from './objects.ts'

/** What names a port in slices. */
export interface PortName {
  readonly name: string
  readonly protocol: Protocol
}

/** An endpoint with the port that serves. */
export interface Candidate {
  /** Names it, and orders: address and port. */
  readonly text: string
  readonly port: number
  readonly endpoint: KubeEndpoint
  /** What its slice says of weights. */
  readonly weights: Weights
}

/** Where we are. */
export interface Place {
  readonly node: string
  readonly zone?: string
}

export interface ChosenEndpoints {
  /** For clients who may use endpoints anywhere. */
  readonly cluster: readonly Candidate[]
  /** The same, but for hints: what all nodes take for all there are. */
  readonly everywhere: readonly Candidate[]
  /** For those who may use only our own node's. */
  readonly local: readonly Candidate[]
  /** Some node has endpoints. */
  readonly any: boolean
}

/** All endpoints of one port and family, in the order of their text. */
export function candidatesOf(family: Family, name: PortName, slices: readonly KubeEndpointSlice[]): Candidate[] {
  const candidates = new Map<string, Candidate>()
  for (const slice of slices) {
    if (slice.family !== family) continue
    const { weights } = weightsOf(slice.annotations)
    for (const { name: portName, protocol, port } of slice.ports) {
      if (portName !== name.name || protocol !== name.protocol || !port) continue
      for (const endpoint of slice.endpoints) {
        addCandidate(candidates, { text: `${endpoint.address} ${port}`, port, endpoint, weights })
      }
    }
  }
  return [...candidates.values()].sort((a, b) => (a.text < b.text ? -1 : 1))
}

/**
 * The same address and port may be in several slices. One that doesn't terminate beats one that does (the address was
 * given to a new pod); otherwise an endpoint is ready only if every slice calls it ready.
 */
function addCandidate(candidates: Map<string, Candidate>, candidate: Candidate): void {
  const { text, endpoint } = candidate
  const other = candidates.get(text)?.endpoint
  if (other !== undefined && other.terminating !== endpoint.terminating) {
    if (other.terminating) candidates.set(text, candidate)
    return
  }
  const ready = endpoint.ready && (other?.ready ?? true)
  const serving = endpoint.serving && (other?.serving ?? true)
  const same = ready === endpoint.ready && serving === endpoint.serving
  candidates.set(text, same ? candidate : { ...candidate, endpoint: { ...endpoint, ready, serving } })
}

/**
 * As kube-proxy's CategorizeEndpoints: the ready ones, and where there are none those that terminate but still serve.
 * Hints narrow the cluster's endpoints, never the local ones, and never those that terminate.
 */
export function chooseEndpoints(all: readonly Candidate[], place: Place): ChosenEndpoints {
  const ready = all.filter(({ endpoint }) => endpoint.ready)
  const ending = all.filter(({ endpoint }) => endpoint.serving && endpoint.terminating)
  const isLocal = ({ endpoint }: Candidate): boolean => endpoint.node === place.node
  const localReady = ready.filter(isLocal)
  return {
    everywhere: ready.length > 0 ? ready : ending,
    cluster: ready.length > 0 ? hinted(ready, place) : ending,
    local: localReady.length > 0 ? localReady : ending.filter(isLocal),
    any: ready.length > 0 || ending.length > 0,
  }
}

/** Hints count if every endpoint has one and some are for us; those for nodes go before those for zones. */
function hinted(ready: readonly Candidate[], { node, zone }: Place): readonly Candidate[] {
  if (ready.every(({ endpoint }) => endpoint.forNodes !== undefined)) {
    const ours = ready.filter(({ endpoint }) => endpoint.forNodes?.includes(node))
    if (ours.length > 0) return ours
  }
  if (zone !== undefined && ready.every(({ endpoint }) => endpoint.forZones !== undefined)) {
    const ours = ready.filter(({ endpoint }) => endpoint.forZones?.includes(zone))
    if (ours.length > 0) return ours
  }
  return ready
}
