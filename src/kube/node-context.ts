/** What of the configuration, our Node and the host's addresses bears on every Service. Pure but for its own state. */
import { hostname } from 'node:os'
import type { Scheduler } from '../model/types.ts'
import type { IpAddress } from './address.ts'
import { nodePortAddresses, primaryAddresses } from './node-addresses.ts'
import type { KubeNode } from './objects.ts'
import type { TranslateOptions } from './virtual-services.ts'

/** The part of the configuration that counts here. */
export interface NodeSettings {
  readonly scheduler: Scheduler
  /** Name of our Node; absent: the host's name. */
  readonly hostnameOverride?: string
}

export class NodeContext {
  readonly #settings: NodeSettings
  #node: KubeNode | undefined
  #own: readonly IpAddress[] = []
  #options: TranslateOptions
  #text: string

  constructor(settings: NodeSettings) {
    this.#settings = settings
    this.#options = this.#make()
    this.#text = JSON.stringify(this.#options)
  }

  get options(): TranslateOptions {
    return this.#options
  }

  /** True if that changed the options. */
  setNode(node: KubeNode | undefined): boolean {
    this.#node = node
    return this.#update()
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
    const { scheduler } = this.#settings
    const zone = this.#node?.zone
    const primaries = primaryAddresses(undefined, this.#node)
    return {
      scheduler,
      place: { node: nodeName(this.#settings), ...(zone === undefined ? {} : { zone }) },
      nodePortAddresses: nodePortAddresses([], this.#own, primaries),
      primaryAddresses: primaries,
      masqueradeAll: false,
      knowsPods: true,
    }
  }
}

/** The name that our Node has. */
export function nodeName({ hostnameOverride }: Pick<NodeSettings, 'hostnameOverride'>): string {
  return (hostnameOverride ?? hostname()).trim().toLowerCase()
}
