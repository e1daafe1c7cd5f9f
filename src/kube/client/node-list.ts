/** The addresses of all nodes, of which nothing else is kept. */
import { decodeNode } from '../decode.ts'
import type { NodeAddresses } from '../objects.ts'
import { KindSink } from './kind-sink.ts'

export class NodeList {
  readonly sink: KindSink
  /** They are to be followed. */
  wanted = false
  readonly #onChanges: () => void
  /** By objectId. */
  readonly #nodes = new Map<string, { readonly name: string; readonly addresses: NodeAddresses[string] }>()
  #addresses: NodeAddresses | undefined
  #failed = false

  /** `onChanges`: addresses came, changed or went; not what else there is to a Node. */
  constructor(onChanges: () => void) {
    this.#onChanges = onChanges
    this.sink = new KindSink('Node', {
      onSet: (id, object) => this.#set(id, object),
      onRemove: (id) => {
        this.#nodes.delete(id)
        this.#changed()
      },
      onListed: () => this.#changed(),
    })
  }

  /** The same object as long as nothing changes; undefined: there never was a whole list. */
  get addresses(): NodeAddresses | undefined {
    return this.#addresses
  }

  /** Nobody has to wait for them: they are known, could not be had, or are not wanted. */
  get settled(): boolean {
    return !this.wanted || this.sink.listed || this.#failed
  }

  /** They could not be had. */
  failed(): void {
    this.#failed = true
    this.#onChanges()
  }

  #set(id: string, object: unknown): void {
    const { name, addresses } = decodeNode(object)
    const same = JSON.stringify(this.#nodes.get(id)?.addresses) === JSON.stringify(addresses)
    this.#nodes.set(id, { name, addresses })
    if (!same) this.#changed()
  }

  #changed(): void {
    if (!this.sink.listed) return
    const sorted = [...this.#nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
    this.#addresses = Object.fromEntries(sorted.map(({ name, addresses }) => [name, addresses]))
    this.#onChanges()
  }
}
