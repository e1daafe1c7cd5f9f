/** What tells packets of this node's pods from others comes to. Pure. */
import type { LocalDetection } from '../model/local-detection.ts'
import type { Family, Prefix } from '../model/types.ts'
import { parsePrefix } from './address.ts'
import type { KubeNode } from './objects.ts'

/** As much of an interface as says whether pods are behind it. */
export interface HostInterface {
  readonly ifindex: number
  readonly name: string
  /** ifindex of the bridge that it is a port of; 0: none. */
  readonly master: number
}

/** The first of each family. */
export function podNetworks(detection: LocalDetection, node: KubeNode | undefined): Prefix[] {
  const texts = detection.by === 'cluster' ? detection.cidrs : detection.by === 'node' ? (node?.podCidrs ?? []) : []
  const all = texts.flatMap((text) => parsePrefix(text.trim()) ?? [])
  return ([4, 6] as const).flatMap((family) => all.find((prefix) => prefix.family === family) ?? [])
}

/** ifindexes of the interfaces that pods are behind: of a bridge the ports too; undefined: interfaces tell nothing. */
export function podLinks(detection: LocalDetection, interfaces: readonly HostInterface[]): number[] | undefined {
  if (detection.by === 'interfaces') {
    return interfaces.filter(({ name }) => name.startsWith(detection.prefix)).map(({ ifindex }) => ifindex)
  }
  if (detection.by !== 'bridge') return undefined
  const bridge = interfaces.find(({ name }) => name === detection.name)
  if (bridge === undefined) return []
  return interfaces
    .filter(({ ifindex, master }) => ifindex === bridge.ifindex || master === bridge.ifindex)
    .map(({ ifindex }) => ifindex)
}

/** Whether pods of each family can be told from others. */
export function knowsPods(detection: LocalDetection, node: KubeNode | undefined): Readonly<Record<Family, boolean>> {
  if (detection.by === 'bridge' || detection.by === 'interfaces') return { 4: true, 6: true }
  const families = new Set(podNetworks(detection, node).map(({ family }) => family))
  return { 4: families.has(4), 6: families.has(6) }
}
