/** Bindings of native/shim.h, each with checked results. */
import { bind, check, errno, nativeError, type Signature, viewMemory } from './library.ts'

/** An open file descriptor; its owner closes it. */
export type Fd = number & { readonly brand: 'fd' }

/** Where a program is attached. */
export type Hook = 'ingress' | 'egress' | 'xdp'

/** What a link of the kernel says of itself. */
export interface LinkInfo {
  /** Of a link on a control group, the low half of the group's id. 0: what it was attached to is gone. */
  readonly ifindex: number
  readonly programId: number
}

interface Functions {
  bpvs_log_take(out: Uint8Array, size: number): number
  bpvs_maps_open(dir: string, names: Uint8Array, count: number, out: Uint8Array, failed: Uint32Array): number
  bpvs_map_mmap(map: Uint8Array): number
  bpvs_maps_close(maps: Uint8Array, count: number): void
  bpvs_link_create(program: Fd, ifindex: number, hook: number, flags: number): number
  bpvs_link_update(link: Fd, program: Fd): number
  bpvs_pin(fd: Fd, path: string): number
  bpvs_get(path: string): number
  bpvs_link_info(link: Fd, out: Uint32Array): number
  bpvs_prog_id(program: Fd, id: Uint32Array): number
  bpvs_clsact_attach(program: Fd, ifindex: number, egress: number): number
  bpvs_clsact_detach(ifindex: number, egress: number): number
  bpvs_clsact_tidy(ifindex: number): number
  bpvs_clsact_query(ifindex: number, egress: number, id: Uint32Array): number
  bpvs_possible_cpus(): number
  bpvs_hash_services(
    key: BigUint64Array,
    input: Uint8Array,
    count: number,
    lineMask: number,
    filterMask: number,
    out: Uint32Array,
  ): void
  bpvs_hash_servers(key: BigUint64Array, input: Uint8Array, count: number, filterMask: number, out: Uint32Array): void
  bpvs_dir_open(dir: string): number
  bpvs_lock(fd: Fd): number
  bpvs_unlock(fd: Fd): number
  bpvs_close(fd: Fd): number
  bpvs_grace_period(): number
  bpvs_netns_cookie(out: BigUint64Array): number
  bpvs_netns_cookies(paths: Uint8Array, count: number, out: BigUint64Array): number
  bpvs_is_bpffs(path: string): number
  bpvs_mount_bpffs(mountNs: string, path: string): number
}

const c = bind<Functions>({
  bpvs_log_take: ['int64', 'void *', 'uint64'],
  bpvs_maps_open: ['int', 'str', 'void *', 'uint32', 'void *', 'void *'],
  bpvs_map_mmap: ['int', 'void *'],
  bpvs_maps_close: ['void', 'void *', 'uint32'],
  bpvs_link_create: ['int', 'int', 'int', 'uint32', 'uint32'],
  bpvs_link_update: ['int', 'int', 'int'],
  bpvs_pin: ['int', 'int', 'str'],
  bpvs_get: ['int', 'str'],
  bpvs_link_info: ['int', 'int', 'void *'],
  bpvs_prog_id: ['int', 'int', 'void *'],
  bpvs_clsact_attach: ['int', 'int', 'int', 'int'],
  bpvs_clsact_detach: ['int', 'int', 'int'],
  bpvs_clsact_tidy: ['int', 'int'],
  bpvs_clsact_query: ['int', 'int', 'int', 'void *'],
  bpvs_possible_cpus: ['int'],
  bpvs_hash_services: ['void', 'void *', 'void *', 'uint32', 'uint32', 'uint32', 'void *'],
  bpvs_hash_servers: ['void', 'void *', 'void *', 'uint32', 'uint32', 'void *'],
  bpvs_dir_open: ['int', 'str'],
  bpvs_lock: ['int', 'int'],
  bpvs_unlock: ['int', 'int'],
  bpvs_close: ['int', 'int'],
  bpvs_grace_period: ['int'],
  bpvs_netns_cookie: ['int', 'void *'],
  bpvs_netns_cookies: ['int', 'void *', 'uint32', 'void *'],
  bpvs_is_bpffs: ['int', 'str'],
  bpvs_mount_bpffs: ['int', 'str', 'str'],
} satisfies Record<keyof Functions, Signature>)

const HOOKS: Readonly<Record<Hook, number>> = { ingress: 46, egress: 47, xdp: 37 } /* enum bpvs_hook */
const MAP_RECORD = 32 /* struct bpvs_map */
const LOG_ROOM = 1 << 20
const ESTALE = 116

/** Names as C strings, one after the other. */
function packNames(names: readonly string[]): Uint8Array {
  return Buffer.from(names.map((name) => `${name}\0`).join(''))
}

/** Takes what libbpf has said since the last time (its last MiB). */
export function takeLog(): string {
  const out = Buffer.alloc(LOG_ROOM)
  return out.toString('utf8', 0, c.bpvs_log_take(out, LOG_ROOM))
}

/** Maps opened together, mapped when they are first used, unmapped and closed together. */
export class OpenMaps {
  readonly #dir: string
  readonly #names: readonly string[]
  readonly #records: Uint8Array<ArrayBuffer>
  readonly #buffers = new Map<string, ArrayBuffer>()

  /** Opens the pins `dir`/`names`. NATIVE, PERMISSION; nothing stays open then. */
  constructor(dir: string, names: readonly string[]) {
    const failed = new Uint32Array(1)
    this.#dir = dir
    this.#names = names
    this.#records = new Uint8Array(names.length * MAP_RECORD)
    const result = c.bpvs_maps_open(dir, packNames(names), names.length, this.#records, failed)
    if (result < 0) throw nativeError('bpf_obj_get', -result, `${dir}/${names[failed[0] ?? 0]}`)
  }

  /** The whole value area of a map, shared with the kernel; the same buffer every time. NATIVE if it can't be mapped. */
  buffer(name: string): ArrayBuffer {
    const known = this.#buffers.get(name)
    if (known !== undefined) return known
    const index = this.#names.indexOf(name)
    if (index < 0) throw new RangeError(`map ${name} is not open`)
    const record = this.#records.subarray(index * MAP_RECORD, (index + 1) * MAP_RECORD)
    check(c.bpvs_map_mmap(record), 'mmap', `${this.#dir}/${name}`)
    const [, entries = 0, valueSize = 0] = new Uint32Array(record.buffer, record.byteOffset + 16, 3)
    const [address = 0n] = new BigUint64Array(record.buffer, record.byteOffset, 1)
    const buffer = viewMemory(address, entries * valueSize)
    this.#buffers.set(name, buffer)
    return buffer
  }

  /** Every buffer has length 0 afterwards, so that a late access throws in place of touching unmapped memory. */
  close(): void {
    for (const buffer of this.#buffers.values()) buffer.transfer(0)
    this.#buffers.clear()
    c.bpvs_maps_close(this.#records, this.#names.length)
    this.#records.fill(0)
  }
}

/** Attaches a program by a link. `flags`: XDP_FLAGS_* with the hook xdp. UNSUPPORTED is for the caller to tell. */
export function createLink(program: Fd, ifindex: number, hook: Hook, flags = 0): Fd {
  return check(
    c.bpvs_link_create(program, ifindex, HOOKS[hook], flags),
    'BPF_LINK_CREATE',
    `interface ${ifindex}, ${hook}`,
  ) as Fd
}

/**
 * Attaches a program to what is no interface: a control group, beside whatever others have there; or, with `target` 0, an
 * iterator. `type`: enum bpf_attach_type.
 */
export function createLinkOn(program: Fd, target: Fd, type: number): Fd {
  return check(c.bpvs_link_create(program, target, type, 0), 'BPF_LINK_CREATE', `attach type ${type}`) as Fd
}

/** Puts another program in a link's place, atomically. */
export function updateLink(link: Fd, program: Fd): void {
  check(c.bpvs_link_update(link, program), 'BPF_LINK_UPDATE')
}

/** Pins what a descriptor stands for. */
export function pin(fd: Fd, path: string): void {
  check(c.bpvs_pin(fd, path), 'BPF_OBJ_PIN', path)
}

/** Opens what is pinned at `path`. */
export function openPin(path: string): Fd {
  return check(c.bpvs_get(path), 'BPF_OBJ_GET', path) as Fd
}

export function linkInfo(link: Fd): LinkInfo {
  const out = new Uint32Array(3)
  check(c.bpvs_link_info(link, out), 'BPF_OBJ_GET_INFO_BY_FD')
  return { ifindex: out[1] ?? 0, programId: out[2] ?? 0 }
}

/** The kernel's id of a program. */
export function programId(program: Fd): number {
  const out = new Uint32Array(1)
  check(c.bpvs_prog_id(program, out), 'BPF_OBJ_GET_INFO_BY_FD')
  return out[0] ?? 0
}

/** Attaches a program as a filter on clsact, replacing one of ours. */
export function attachClsact(program: Fd, ifindex: number, hook: 'ingress' | 'egress'): void {
  check(
    c.bpvs_clsact_attach(program, ifindex, Number(hook === 'egress')),
    'RTM_NEWTFILTER',
    `interface ${ifindex}, ${hook}`,
  )
}

/** Removes our filter; the clsact qdisc stays. Nothing to remove is no error. */
export function detachClsact(ifindex: number, hook: 'ingress' | 'egress'): void {
  checkRemoval(c.bpvs_clsact_detach(ifindex, Number(hook === 'egress')), 'RTM_DELTFILTER', `${ifindex}, ${hook}`)
}

/** Removes the clsact qdisc, unless somebody has a filter on it. Nothing to remove is no error. */
export function tidyClsact(ifindex: number): void {
  checkRemoval(c.bpvs_clsact_tidy(ifindex), 'RTM_DELQDISC', String(ifindex))
}

function checkRemoval(result: number, call: string, place: string): void {
  const absent = result === -errno.ENOENT || result === -errno.EINVAL || result === -errno.ENODEV
  if (!absent) check(result, call, `interface ${place}`)
}

/** Id of the program in our filter on clsact; 0: there is none, perhaps not even the interface. */
export function queryClsact(ifindex: number, hook: 'ingress' | 'egress'): number {
  const id = new Uint32Array(1)
  const result = c.bpvs_clsact_query(ifindex, Number(hook === 'egress'), id)
  if (result === -errno.ENODEV) return 0
  check(result, 'RTM_GETTFILTER', `interface ${ifindex}, ${hook}`)
  return id[0] ?? 0
}

/** Number of CPUs that may ever be there. */
export function possibleCpus(): number {
  return check(c.bpvs_possible_cpus(), 'libbpf_num_possible_cpus')
}

/** Hashes packed endpoints (endpoints.ts) as services: four words each (first, second, tag, filter bit). */
export function hashServices(
  key: BigUint64Array,
  endpoints: Uint8Array,
  count: number,
  lineMask: number,
  filterMask: number,
): Uint32Array {
  const out = new Uint32Array(count * 4)
  c.bpvs_hash_services(key, endpoints, count, lineMask, filterMask, out)
  return out
}

/** Hashes packed endpoints as servers: a filter bit each, in the second half of lb_filter. */
export function hashServers(
  key: BigUint64Array,
  endpoints: Uint8Array,
  count: number,
  filterMask: number,
): Uint32Array {
  const out = new Uint32Array(count)
  c.bpvs_hash_servers(key, endpoints, count, filterMask, out)
  return out
}

/** Opens a directory, to lock it. */
export function openDirectory(dir: string): Fd {
  return check(c.bpvs_dir_open(dir), 'open', dir) as Fd
}

/** Locks (flock), waiting. False: the directory has been removed meanwhile, and is not locked. */
export function lock(fd: Fd): boolean {
  const result = c.bpvs_lock(fd)
  if (result === -ESTALE) return false
  check(result, 'flock')
  return true
}

export function unlock(fd: Fd): void {
  check(c.bpvs_unlock(fd), 'flock')
}

export function closeFd(fd: Fd): void {
  check(c.bpvs_close(fd), 'close')
}

/** Closes the descriptor when `fn` is done with it. */
export function usingFd<T>(fd: Fd, fn: (fd: Fd) => T): T {
  try {
    return fn(fd)
  } finally {
    closeFd(fd)
  }
}

/** When it returns, every program that ran when it was called has ended. */
export function gracePeriod(): void {
  check(c.bpvs_grace_period(), 'membarrier')
}

/** Cookie of the calling thread's network namespace: unlike its inode number, never used again. */
export function netnsCookie(): bigint {
  const out = new BigUint64Array(1)
  check(c.bpvs_netns_cookie(out), 'getsockopt(SO_NETNS_COOKIE)')
  return out[0] ?? 0n
}

/** Cookies of namespaces by path; those that can't be opened are left out. */
export function netnsCookies(paths: readonly string[]): bigint[] {
  const out = new BigUint64Array(paths.length)
  check(c.bpvs_netns_cookies(packNames(paths), paths.length, out), 'pthread_create')
  return [...out].filter((cookie) => cookie !== 0n)
}

/** Whether there is a bpf file system at `path`. */
export function isBpffs(path: string): boolean {
  return c.bpvs_is_bpffs(path) === 1
}

/** Mounts a bpf file system on `path` of the mount namespace `mountNs`. */
export function mountBpffs(mountNs: string, path: string): void {
  check(c.bpvs_mount_bpffs(mountNs, path), 'mount bpf', path)
}
