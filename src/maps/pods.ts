/** How packets of the cluster's pods are known (lb_config, lb_pod_links). */
import { LbPods } from '../abi/generated.ts'
import { ADDRESS_BYTES, formatAddress } from '../model/address.ts'
import type { Prefix } from '../model/types.ts'
import { prefixBytes, prefixLength } from './prefixes.ts'
import type { TableMaps } from './table-maps.ts'

/** By their addresses, or by the interfaces that they come in by. */
export interface PodsKnown {
  /** At most one of each family. */
  readonly networks: readonly Prefix[]
  /** ifindexes; absent: interfaces tell nothing. */
  readonly links?: readonly number[] | undefined
}

const setters = {
  4: { bit: LbPods.PODS_NET4, net: 'Pods4', mask: 'Pods4Mask' },
  6: { bit: LbPods.PODS_NET6, net: 'Pods6', mask: 'Pods6Mask' },
} as const

/** The networks in force. */
export function readPodNetworks({ config }: TableMaps): Prefix[] {
  const known = config.podsKnown(0)
  const networks: Prefix[] = []
  if ((known & LbPods.PODS_NET4) !== 0) {
    networks.push({
      family: 4,
      address: formatAddress(config.pods4(0), 0, 4),
      length: prefixLength(config.pods4Mask(0)),
    })
  }
  if ((known & LbPods.PODS_NET6) !== 0) {
    networks.push({
      family: 6,
      address: formatAddress(config.pods6(0), 0, 6),
      length: prefixLength(config.pods6Mask(0)),
    })
  }
  return networks
}

/** True if that changed anything. INVALID. The table's lock is held. */
export function writePods(maps: TableMaps, { networks, links }: PodsKnown): boolean {
  const { config, handles } = maps
  const linked = handles.setPodLinks(links ?? [])
  let known = links === undefined ? 0 : LbPods.PODS_LINK
  const nets: Record<4 | 6, ReturnType<typeof prefixBytes>> = { 4: noBytes, 6: noBytes }
  for (const prefix of networks) {
    known |= setters[prefix.family].bit
    nets[prefix.family] = prefixBytes(prefix)
  }
  const isSame =
    config.podsKnown(0) === known &&
    same(config.pods4(0), nets[4].address) &&
    same(config.pods4Mask(0), nets[4].mask) &&
    same(config.pods6(0), nets[6].address) &&
    same(config.pods6Mask(0), nets[6].mask)
  if (isSame) return linked
  /* Nobody reads a network that is half written: meanwhile pods are taken for others. */
  config.setPodsKnown(0, 0)
  handles.gracePeriod()
  for (const family of [4, 6] as const) {
    config[`set${setters[family].net}`](0, nets[family].address)
    config[`set${setters[family].mask}`](0, nets[family].mask)
  }
  config.setPodsKnown(0, known)
  return true
}

const noBytes = { address: new Uint8Array(ADDRESS_BYTES), mask: new Uint8Array(ADDRESS_BYTES) }

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i])
}
