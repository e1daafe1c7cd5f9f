/** A pinned hash map keyed by an interface's index: what user space tells the datapath of interfaces. */
import { LbError } from '../model/errors.ts'
import { bind, check, errno, type Signature } from './library.ts'
import { closeFd, type Fd, openPin } from './shim.ts'

interface Functions {
  bpf_map_update_elem(map: Fd, key: Uint32Array, value: Uint8Array, flags: number): number
  bpf_map_delete_elem(map: Fd, key: Uint32Array): number
  bpf_map_get_next_key(map: Fd, key: Uint32Array | null, next: Uint32Array): number
}
const c = bind<Functions>({
  bpf_map_update_elem: ['int', 'int', 'void *', 'void *', 'uint64'],
  bpf_map_delete_elem: ['int', 'int', 'void *'],
  bpf_map_get_next_key: ['int', 'int', 'void *', 'void *'],
} satisfies Record<keyof Functions, Signature>)

/** The map is opened for each call: they are rare. */
export class PinnedHash {
  readonly #path: string

  constructor(path: string) {
    this.#path = path
  }

  /** NATIVE: E2BIG if the map is full; ENODEV if it wants a device that is not there. */
  set(ifindex: number, value: Uint8Array): void {
    this.#use((map) =>
      check(
        c.bpf_map_update_elem(map, Uint32Array.of(ifindex), value, 0),
        'BPF_MAP_UPDATE_ELEM',
        `interface ${ifindex}`,
      ),
    )
  }

  /** That there is no entry, or that the table was never whole, is no error. */
  delete(ifindex: number): void {
    try {
      this.#use((map) => check(c.bpf_map_delete_elem(map, Uint32Array.of(ifindex)), 'BPF_MAP_DELETE_ELEM', this.#path))
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }

  /** ifindexes, in no order. */
  keys(): number[] {
    return this.#use((map) => {
      const keys: number[] = []
      const next = new Uint32Array(1)
      for (let key: Uint32Array | null = null; ; key = Uint32Array.of(keys.at(-1) ?? 0)) {
        const result = c.bpf_map_get_next_key(map, key, next)
        if (result === -errno.ENOENT) return keys
        check(result, 'BPF_MAP_GET_NEXT_KEY', this.#path)
        keys.push(next[0] ?? 0)
      }
    })
  }

  #use<T>(fn: (map: Fd) => T): T {
    const map = openPin(this.#path)
    try {
      return fn(map)
    } finally {
      closeFd(map)
    }
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof LbError && error.detail.errno === errno.ENOENT
}
