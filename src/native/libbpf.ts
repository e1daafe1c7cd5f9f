/** The part of libbpf that is called directly: opening an object, sizing its maps, loading it. */
import { bind, check, checkPointer, viewMemory, type Signature } from './library.ts'

/** Pointers are bare numbers to koffi: brands keep one from passing for another. */
export type BpfObject = bigint & { readonly brand: 'bpf_object' }
export type BpfMap = bigint & { readonly brand: 'bpf_map' }
export type BpfProgram = bigint & { readonly brand: 'bpf_program' }
type BtfPointer = bigint & { readonly brand: 'btf' }

interface Functions {
  bpf_object__open_file(path: string, options: null): BpfObject | null
  bpf_object__close(object: BpfObject): void
  bpf_object__load(object: BpfObject): number
  bpf_object__btf(object: BpfObject): BtfPointer | null
  btf__raw_data(btf: BtfPointer, size: Uint32Array): bigint | null
  bpf_object__next_map(object: BpfObject, previous: BpfMap | null): BpfMap | null
  bpf_map__name(map: BpfMap): string
  bpf_map__fd(map: BpfMap): number
  bpf_map__set_max_entries(map: BpfMap, entries: number): number
  bpf_map__initial_value(map: BpfMap, size: BigUint64Array): bigint | null
  bpf_map__reuse_fd(map: BpfMap, fd: number): number
  bpf_object__next_program(object: BpfObject, previous: BpfProgram | null): BpfProgram | null
  bpf_program__name(program: BpfProgram): string
  bpf_program__set_autoload(program: BpfProgram, autoload: boolean): number
  bpf_program__autoload(program: BpfProgram): boolean
  bpf_program__fd(program: BpfProgram): number
}

const c = bind<Functions>({
  bpf_object__open_file: ['void *', 'str', 'void *'],
  bpf_object__close: ['void', 'void *'],
  bpf_object__load: ['int', 'void *'],
  bpf_object__btf: ['void *', 'void *'],
  btf__raw_data: ['void *', 'void *', 'void *'],
  bpf_object__next_map: ['void *', 'void *', 'void *'],
  bpf_map__name: ['str', 'void *'],
  bpf_map__fd: ['int', 'void *'],
  bpf_map__set_max_entries: ['int', 'void *', 'uint32'],
  bpf_map__initial_value: ['void *', 'void *', 'void *'],
  bpf_map__reuse_fd: ['int', 'void *', 'int'],
  bpf_object__next_program: ['void *', 'void *', 'void *'],
  bpf_program__name: ['str', 'void *'],
  bpf_program__set_autoload: ['int', 'void *', 'bool'],
  bpf_program__autoload: ['bool', 'void *'],
  bpf_program__fd: ['int', 'void *'],
} satisfies Record<keyof Functions, Signature>)

/** Parses an object file. NATIVE if it can't be read. */
export function openObject(path: string): BpfObject {
  return checkPointer(c.bpf_object__open_file(path, null), 'bpf_object__open_file', path)
}

/** Frees the object and closes the descriptors that it holds; what is pinned stays. */
export function closeObject(object: BpfObject): void {
  c.bpf_object__close(object)
}

/** Creates the maps, has the programs verified. Returns 0 or a negative errno; libbpf's messages are in the log. */
export function loadObject(object: BpfObject): number {
  return c.bpf_object__load(object)
}

/** A copy of the object's types, with the offsets that libbpf filled in. */
export function objectBtf(object: BpfObject): Uint8Array {
  const btf = checkPointer(c.bpf_object__btf(object), 'bpf_object__btf')
  const size = new Uint32Array(1)
  const data = checkPointer(c.btf__raw_data(btf, size), 'btf__raw_data')
  return new Uint8Array(viewMemory(data, size[0] ?? 0).slice(0))
}

/** The object's maps by name; a section of globals has the section's name (".rodata"). */
export function objectMaps(object: BpfObject): Map<string, BpfMap> {
  const maps = new Map<string, BpfMap>()
  for (let map = c.bpf_object__next_map(object, null); map !== null; map = c.bpf_object__next_map(object, map)) {
    const name = c.bpf_map__name(map)
    maps.set(/\.(rodata|bss|data)$/.exec(name)?.[0] ?? name, map)
  }
  return maps
}

/** The object's programs by name. */
export function objectPrograms(object: BpfObject): Map<string, BpfProgram> {
  const programs = new Map<string, BpfProgram>()
  let program = c.bpf_object__next_program(object, null)
  for (; program !== null; program = c.bpf_object__next_program(object, program)) {
    programs.set(c.bpf_program__name(program), program)
  }
  return programs
}

/** Whether the program is loaded with its object; before that. */
export function setAutoload(program: BpfProgram, autoload: boolean): void {
  check(c.bpf_program__set_autoload(program, autoload), 'bpf_program__set_autoload', c.bpf_program__name(program))
}

/** The object's programs that are loaded with it, by name. */
export function loadedPrograms(object: BpfObject): Map<string, BpfProgram> {
  return new Map([...objectPrograms(object)].filter(([, program]) => c.bpf_program__autoload(program)))
}

/** Number of entries of a map that is not loaded yet. */
export function setMaxEntries(map: BpfMap, entries: number): void {
  check(c.bpf_map__set_max_entries(map, entries), 'bpf_map__set_max_entries', c.bpf_map__name(map))
}

/** Has the load use an existing map instead of making one. Its layout must fit, or this throws NATIVE. */
export function reuseMap(map: BpfMap, fd: number): void {
  check(c.bpf_map__reuse_fd(map, fd), 'bpf_map__reuse_fd', c.bpf_map__name(map))
}

/** The initial content of a section of globals, writable until the load. */
export function initialValue(map: BpfMap): ArrayBuffer {
  const size = new BigUint64Array(1)
  const data = checkPointer(c.bpf_map__initial_value(map, size), 'bpf_map__initial_value')
  return viewMemory(data, Number(size[0]))
}

/** Descriptor of a loaded map, owned by its object. */
export function mapFd(map: BpfMap): number {
  return check(c.bpf_map__fd(map), 'bpf_map__fd', c.bpf_map__name(map))
}

/** Descriptor of a loaded program, owned by its object. */
export function programFd(program: BpfProgram): number {
  return check(c.bpf_program__fd(program), 'bpf_program__fd', c.bpf_program__name(program))
}
