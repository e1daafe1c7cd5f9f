/** The programs of bpf/bench/packet.bpf.c, loaded on the maps of a table. */
import { layout } from '../../src/abi/generated.ts'
import { LbError } from '../../src/model/errors.ts'
import type { StructLayout } from '../../src/native/layout.ts'
import {
  type BpfMap,
  type BpfObject,
  type BpfProgram,
  closeObject,
  loadObject,
  mapFd,
  objectMaps,
  objectPrograms,
  openObject,
  programFd,
  reuseMap,
} from '../../src/native/libbpf.ts'
import { bind, buildPath, check, type Signature } from '../../src/native/library.ts'
import { loadError } from '../../src/native/load-error.ts'
import { mapPin } from '../../src/native/pins.ts'
import { checkShare } from '../../src/native/programs.ts'
import { closeFd, type Fd, openPin, takeLog } from '../../src/native/shim.ts'

interface Functions {
  bpf_program__set_autoload(program: BpfProgram, autoload: boolean): number
}
const c = bind<Functions>({
  bpf_program__set_autoload: ['int', 'void *', 'bool'],
} satisfies Record<keyof Functions, Signature>)

/** A loaded object; its descriptors are its own. */
export interface BenchObject {
  readonly programs: ReadonlyMap<string, Fd>
  readonly maps: ReadonlyMap<string, Fd>
  /** Layout of struct bench_plan. */
  readonly plan: StructLayout
  close(): void
}

/** Refuses an object that is laid out otherwise than the table, or has no plan. */
function readPlanLayout(object: BpfObject, path: string): StructLayout {
  const plan = checkShare(object, path).structs.bench_plan
  if (plan === undefined) throw new LbError('LAYOUT', `${path}: no struct bench_plan`, { path })
  return plan
}

/** Has the object use the table's pinned maps, those that both have. */
function reusePins(maps: ReadonlyMap<string, BpfMap>, dir: string): void {
  for (const name of [...Object.keys(layout.maps), ...layout.opaqueMaps]) {
    const map = maps.get(name)
    if (map === undefined) continue
    const fd = openPin(`${dir}/${mapPin(name)}`)
    try {
      reuseMap(map, fd)
    } finally {
      closeFd(fd)
    }
  }
}

/** The descriptors of the programs that are loaded. */
function loadedPrograms(object: BpfObject, wanted: (program: string) => boolean): Map<string, Fd> {
  const programs = [...objectPrograms(object)].filter(([name]) => wanted(name))
  return new Map(programs.map(([name, program]) => [name, programFd(program) as Fd]))
}

/** Loads the programs that are wanted onto the table in `dir`. LAYOUT, VERIFIER, PERMISSION, NATIVE. */
export function loadBench(dir: string, wanted: (program: string) => boolean): BenchObject {
  const path = buildPath('bpf/packet.bpf.o')
  takeLog()
  const object = openObject(path)
  try {
    const plan = readPlanLayout(object, path)
    const maps = objectMaps(object)
    reusePins(maps, dir)
    for (const [name, program] of objectPrograms(object)) {
      if (!wanted(name)) check(c.bpf_program__set_autoload(program, false), 'bpf_program__set_autoload', name)
    }
    const result = loadObject(object)
    if (result < 0) throw loadError(path, -result, takeLog())
    return {
      programs: loadedPrograms(object, wanted),
      maps: new Map([...maps].map(([name, one]) => [name, mapFd(one) as Fd])),
      plan,
      close: () => closeObject(object),
    }
  } catch (error) {
    closeObject(object)
    throw error
  }
}
