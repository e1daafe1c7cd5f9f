/** A pinned hash map: what user space tells the datapath of interfaces and addresses. */
import { LbError } from '../model/errors.ts'
import { bind, check, errno, type Signature } from './library.ts'
import { usingFd, type Fd, openPin } from './shim.ts'

interface Functions {
  bpf_map_update_elem(map: Fd, key: Uint8Array, value: Uint8Array, flags: number): number
  bpf_map_delete_elem(map: Fd, key: Uint8Array): number
  bpf_map_lookup_elem(map: Fd, key: Uint8Array, value: Uint8Array): number
  bpf_map_get_next_key(map: Fd, key: Uint8Array | null, next: Uint8Array): number
}
const c = bind<Functions>({
  bpf_map_update_elem: ['int', 'int', 'void *', 'void *', 'uint64'],
  bpf_map_delete_elem: ['int', 'int', 'void *'],
  bpf_map_lookup_elem: ['int', 'int', 'void *', 'void *'],
  bpf_map_get_next_key: ['int', 'int', 'void *', 'void *'],
} satisfies Record<keyof Functions, Signature>)

/** The map is opened for each call: they are rare. */
export class PinnedHash {
  readonly #path: string
  readonly #keyBytes: number

  constructor(path: string, keyBytes: number) {
    this.#path = path
    this.#keyBytes = keyBytes
  }

  /** NATIVE: E2BIG if the map is full; ENODEV if it wants a device that is not there. `what` names the entry. */
  set(key: Uint8Array, value: Uint8Array, what: string): void {
    this.#use((map) => check(c.bpf_map_update_elem(map, key, value, 0), 'BPF_MAP_UPDATE_ELEM', what))
  }

  /** Reads an entry into `value`; false: there is none. NATIVE. */
  get(key: Uint8Array, value: Uint8Array): boolean {
    return this.#use((map) => {
      const result = c.bpf_map_lookup_elem(map, key, value)
      if (result !== -errno.ENOENT) check(result, 'BPF_MAP_LOOKUP_ELEM', this.#path)
      return result === 0
    })
  }

  /** That there is no entry, or that the table was never whole, is no error. */
  delete(key: Uint8Array): void {
    try {
      this.#use((map) => check(c.bpf_map_delete_elem(map, key), 'BPF_MAP_DELETE_ELEM', this.#path))
    } catch (error) {
      if (!isMissing(error)) throw error
    }
  }

  /** In no order. */
  keys(): Uint8Array[] {
    return this.#use((map) => {
      const keys: Uint8Array[] = []
      for (;;) {
        const next = new Uint8Array(this.#keyBytes)
        const result = c.bpf_map_get_next_key(map, keys.at(-1) ?? null, next)
        if (result === -errno.ENOENT) return keys
        check(result, 'BPF_MAP_GET_NEXT_KEY', this.#path)
        keys.push(next)
      }
    })
  }

  #use<T>(fn: (map: Fd) => T): T {
    return usingFd(openPin(this.#path), fn)
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof LbError && error.detail.errno === errno.ENOENT
}
