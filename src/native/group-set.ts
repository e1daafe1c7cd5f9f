/** A pinned set of control groups: a hash map keyed by their ids. */
import { bind, check, errno, type Signature } from './library.ts'
import { closeFd, type Fd, openPin } from './shim.ts'

interface Functions {
  bpf_map_update_elem(map: Fd, key: BigUint64Array, value: Uint32Array, flags: number): number
  bpf_map_delete_elem(map: Fd, key: BigUint64Array): number
  bpf_map_get_next_key(map: Fd, key: BigUint64Array | null, next: BigUint64Array): number
}
const c = bind<Functions>({
  bpf_map_update_elem: ['int', 'int', 'void *', 'void *', 'uint64'],
  bpf_map_delete_elem: ['int', 'int', 'void *'],
  bpf_map_get_next_key: ['int', 'int', 'void *', 'void *'],
} satisfies Record<keyof Functions, Signature>)

function idsIn(map: Fd): Set<bigint> {
  const ids = new Set<bigint>()
  const next = new BigUint64Array(1)
  for (let key: BigUint64Array | null = null; ; key = BigUint64Array.from(next)) {
    const result = c.bpf_map_get_next_key(map, key, next)
    if (result === -errno.ENOENT) return ids
    check(result, 'BPF_MAP_GET_NEXT_KEY')
    ids.add(next[0] ?? 0n)
  }
}

/** Makes the set pinned at `path` the ids that are wanted; returns whether it was another. NATIVE: E2BIG if there are too many. */
export function replaceGroups(path: string, wanted: ReadonlySet<bigint>): boolean {
  const map = openPin(path)
  try {
    const present = idsIn(map)
    const added = [...wanted].filter((id) => !present.has(id))
    const gone = [...present].filter((id) => !wanted.has(id))
    for (const id of added) {
      check(c.bpf_map_update_elem(map, BigUint64Array.of(id), Uint32Array.of(1), 0), 'BPF_MAP_UPDATE_ELEM', path)
    }
    for (const id of gone) check(c.bpf_map_delete_elem(map, BigUint64Array.of(id)), 'BPF_MAP_DELETE_ELEM', path)
    return added.length + gone.length > 0
  } finally {
    closeFd(map)
  }
}
