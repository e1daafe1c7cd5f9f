/** Maps that can't be mapped into memory: the floors' hash maps, the plan, the ports of XDP. */
import { bind, check, type Signature } from '../../src/native/library.ts'
import type { Fd } from '../../src/native/shim.ts'

interface Functions {
  bpf_map_update_elem(map: Fd, key: Uint8Array, value: Uint8Array, flags: bigint): number
  bpf_map_lookup_elem(map: Fd, key: Uint8Array, value: Uint8Array): number
  bpf_map_update_batch(map: Fd, keys: Uint8Array, values: Uint8Array, count: Uint32Array, options: null): number
  bpf_map_delete_batch(map: Fd, keys: Uint8Array, count: Uint32Array, options: null): number
}

const c = bind<Functions>({
  bpf_map_update_elem: ['int', 'int', 'void *', 'void *', 'uint64'],
  bpf_map_lookup_elem: ['int', 'int', 'void *', 'void *'],
  bpf_map_update_batch: ['int', 'int', 'void *', 'void *', 'void *', 'void *'],
  bpf_map_delete_batch: ['int', 'int', 'void *', 'void *', 'void *'],
} satisfies Record<keyof Functions, Signature>)

/** Writes one entry. */
export function updateEntry(map: Fd, key: Uint8Array, value: Uint8Array): void {
  check(c.bpf_map_update_elem(map, key, value, 0n), 'bpf_map_update_elem')
}

/** Reads one entry into `value`. */
export function readEntry(map: Fd, key: Uint8Array, value: Uint8Array): void {
  check(c.bpf_map_lookup_elem(map, key, value), 'bpf_map_lookup_elem')
}

/** Writes many entries: keys and values packed, one after the other. */
export function updateEntries(map: Fd, keys: Uint8Array, values: Uint8Array, count: number): void {
  check(c.bpf_map_update_batch(map, keys, values, Uint32Array.of(count), null), 'bpf_map_update_batch')
}

/** Deletes many entries that are all there. */
export function deleteEntries(map: Fd, keys: Uint8Array, count: number): void {
  check(c.bpf_map_delete_batch(map, keys, Uint32Array.of(count), null), 'bpf_map_delete_batch')
}
