/** The programs of bpf/bench/packet.bpf.c, loaded on the maps of a table. */
import { layout } from '../../src/abi/generated.ts'
import { LbError } from '../../src/model/errors.ts'
import type { StructLayout } from '../../src/native/layout.ts'
import { type BpfObject, objectPrograms, setAutoload } from '../../src/native/libbpf.ts'
import { buildPath } from '../../src/native/library.ts'
import { mapPin } from '../../src/native/pins.ts'
import { checkShare, load, reusePins } from '../../src/native/programs.ts'
import type { Fd } from '../../src/native/shim.ts'

/** A loaded object; its descriptors are its own. */
export interface BenchObject {
  readonly programs: ReadonlyMap<string, Fd>
  readonly maps: ReadonlyMap<string, Fd>
  /** Layout of struct bench_plan. */
  readonly plan: StructLayout
  close(): void
}

const tableMaps: readonly string[] = [...Object.keys(layout.maps), ...layout.opaqueMaps]

/** Refuses an object that is laid out otherwise than the table, or has no plan. */
function readPlanLayout(object: BpfObject, path: string): StructLayout {
  const plan = checkShare(object, path).structs.bench_plan
  if (plan === undefined) throw new LbError('LAYOUT', `${path}: no struct bench_plan`, { path })
  return plan
}

/** Loads the programs that are wanted onto the table in `dir`. LAYOUT, VERIFIER, PERMISSION, NATIVE. */
export function loadBench(dir: string, wanted: (program: string) => boolean): BenchObject {
  const path = buildPath('bpf/packet.bpf.o')
  let plan: StructLayout | undefined
  const { programs, maps, close } = load(path, (object, own) => {
    plan = readPlanLayout(object, path)
    reusePins(own, new Map(tableMaps.map((name) => [name, `${dir}/${mapPin(name)}`])))
    for (const [name, program] of objectPrograms(object)) {
      if (!wanted(name)) setAutoload(program, false)
    }
  })
  if (plan === undefined) throw new RangeError('loaded without being prepared')
  return { programs, maps, plan, close }
}
