/** Recordings of kube-proxy: objects of the API server, and what its modes made of them. */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { type IpAddress, parseIp } from '../../src/kube/address.ts'
import { decodeNode, decodeObject } from '../../src/kube/decode.ts'
import type { KubeObject, KubeObjects } from '../../src/kube/objects.ts'
import type { TranslateOptions } from '../../src/kube/virtual-services.ts'
import { type Scheduler, schedulers } from '../../src/model/types.ts'
import { knowsPods } from '../../src/kube/local-detection.ts'
import { nodePortAddresses, primaryAddresses } from '../../src/kube/node-addresses.ts'

export interface KubeCase {
  readonly case: string
  readonly desc: string
  readonly services: readonly unknown[]
  readonly endpointSlices: readonly unknown[]
  readonly nodes: readonly { readonly metadata: { readonly name: string } }[]
  /** KubeProxyConfiguration of the ipvs mode. */
  readonly config: {
    readonly bindAddress?: string
    readonly clusterCIDR?: string
    readonly detectLocalMode?: string
    readonly nodePortAddresses?: readonly string[]
    readonly ipvs?: { readonly scheduler?: string }
    readonly iptables?: { readonly masqueradeAll?: boolean }
  }
  /** `ipvsadm -S -n` of the ipvs mode. */
  readonly save: string
  readonly exit: { readonly running: boolean } | null
  /** `nft list table ip|ip6 kube-proxy` of the nftables mode. */
  readonly nft: Readonly<Record<'ip' | 'ip6', string>>
  /** Answers of health checks, as `curl -si` shows them. */
  readonly http?: Readonly<Record<string, string>>
}

const file = new URL('../recordings/kube-cases.json.gz', import.meta.url)

interface Recorded {
  /** Addresses of the node's interfaces. */
  readonly addresses: readonly string[]
  readonly cases: readonly KubeCase[]
}

export const { addresses, cases } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as Recorded

function decoded(value: unknown): KubeObject {
  const result = decodeObject(value)
  if (result.is !== 'object') throw new Error(`not decoded: ${JSON.stringify(result)}`)
  return result.object
}

export function objectsOf({ services, endpointSlices }: KubeCase): KubeObjects {
  const all = [...services, ...endpointSlices].map(decoded)
  return {
    services: all.filter((object) => object.kind === 'Service'),
    endpointSlices: all.filter((object) => object.kind === 'EndpointSlice'),
  }
}

function schedulerOf(name = ''): Scheduler {
  const found = name === '' ? 'rr' : schedulers.find((each) => each === name)
  if (found === undefined) throw new Error(`${name} is no scheduler`)
  return found
}

/** What the node of the recordings and the case's configuration come to, in kube-proxy's ipvs mode. */
export function optionsOf({ config, nodes }: KubeCase): TranslateOptions {
  const node = nodes.map(decodeNode).find(({ name }) => name === 'node-a')
  const own = addresses.map(parseIp).filter((ip): ip is IpAddress => ip !== undefined)
  const cidrs = (config.clusterCIDR ?? '').split(',').filter((cidr) => cidr !== '')
  const other = config.detectLocalMode !== undefined && config.detectLocalMode !== 'ClusterCIDR'
  const detection = other ? ({ by: 'interfaces', prefix: 'veth' } as const) : ({ by: 'cluster', cidrs } as const)
  const primaries = primaryAddresses(config.bindAddress === undefined ? undefined : parseIp(config.bindAddress), node)
  return {
    scheduler: schedulerOf(config.ipvs?.scheduler),
    place: { node: 'node-a', ...(node?.zone === undefined ? {} : { zone: node.zone }) },
    nodePortAddresses: nodePortAddresses(config.nodePortAddresses ?? [], own, primaries),
    hostAddresses: nodePortAddresses([], own, []),
    primaryAddresses: primaries,
    masqueradeAll: config.iptables?.masqueradeAll === true,
    knowsPods: knowsPods(detection, node),
  }
}
