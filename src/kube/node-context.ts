/** What of the configuration, our Node and the host's addresses bears on every Service. Pure but for its own state. */
import type { Prefix, Scheduler } from '../model/types.ts'
import { type IpAddress, parseIp } from './address.ts'
import type { LocalDetection } from '../model/local-detection.ts'
import { knowsPods, podNetworks } from './local-detection.ts'
import { nodePortAddresses, primaryAddresses } from './node-addresses.ts'
import type { KubeNode, NodeAddresses } from './objects.ts'
import type { TranslateOptions } from './virtual-services.ts'

/** The part of the configuration that counts here. */
export interface NodeSettings {
  readonly scheduler: Scheduler
  readonly nodeName: string
  /** Goes before the Node's own addresses; of no family, or unspecified: does not. */
  readonly bindAddress: string
  /** Where node ports are served: prefixes, or `primary`; empty: everywhere. */
  readonly nodePortAddresses: readonly string[]
  readonly masqueradeAll: boolean
  readonly pods: LocalDetection
}

export class NodeContext {
  readonly #settings: NodeSettings
  #node: KubeNode | undefined
  #own: readonly IpAddress[] = []
  #nodes: NodeAddresses | undefined
  #options: TranslateOptions
  #text: string

  constructor(settings: NodeSettings) {
    this.#settings = settings
    this.#options = this.#make()
    this.#text = JSON.stringify(this.#options)
  }

  get options(): TranslateOptions {
    return this.#nodes === undefined ? this.#options : { ...this.#options, nodes: this.#nodes }
  }

  /** Of this node's pods, or of all, as far as they are known by their addresses. */
  get podNetworks(): Prefix[] {
    return podNetworks(this.#settings.pods, this.#node)
  }

  /** True if that changed the options. */
  setNode(node: KubeNode | undefined): boolean {
    this.#node = node
    return this.#update()
  }

  /** Of all nodes, the same object as long as they are the same; undefined: they are not known. True if that changed the options. */
  setNodes(nodes: NodeAddresses | undefined): boolean {
    const changed = nodes !== this.#nodes
    this.#nodes = nodes
    return changed
  }

  /** Addresses of the host's interfaces. True if that changed the options. */
  setAddresses(own: readonly IpAddress[]): boolean {
    this.#own = own
    return this.#update()
  }

  #update(): boolean {
    const options = this.#make()
    const text = JSON.stringify(options)
    if (text === this.#text) return false
    this.#options = options
    this.#text = text
    return true
  }

  #make(): TranslateOptions {
    const { scheduler, nodeName: node, masqueradeAll, pods } = this.#settings
    const zone = this.#node?.zone
    const primaries = primaryAddresses(parseIp(this.#settings.bindAddress), this.#node)
    return {
      scheduler,
      place: { node, ...(zone === undefined ? {} : { zone }) },
      nodePortAddresses: nodePortAddresses(this.#settings.nodePortAddresses, this.#own, primaries),
      hostAddresses: nodePortAddresses([], this.#own, []),
      primaryAddresses: primaries,
      masqueradeAll,
      knowsPods: knowsPods(pods, this.#node),
    }
  }
}

/** Of a host that is no Node: everything is served everywhere. */
export function plainSettings(scheduler: Scheduler, nodeName: string): NodeSettings {
  return {
    scheduler,
    nodeName,
    bindAddress: '0.0.0.0',
    nodePortAddresses: [],
    masqueradeAll: false,
    pods: { by: 'cluster', cidrs: [] },
  }
}
