/** Opening, checking and loading the object of programs. */
import { randomFillSync } from 'node:crypto'
import { LbRodataArray, layout } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import { Btf } from './btf.ts'
import { type ClockSample, hzFromSample, hzFromSamples, tickShift } from './hz.ts'
import { compareLayouts, describeObject, type ObjectLayout } from './layout.ts'
import {
  type BpfMap,
  type BpfObject,
  type BpfProgram,
  closeObject,
  initialValue,
  loadObject,
  mapFd,
  objectBtf,
  objectMaps,
  loadedPrograms,
  objectPrograms,
  openObject,
  programFd,
  reuseMap,
  setMaxEntries,
} from './libbpf.ts'
import { buildPath } from './library.ts'
import { loadError } from './load-error.ts'
import { runProgram } from './run.ts'
import { type Fd, openPin, possibleCpus, takeLog, usingFd } from './shim.ts'
import { planGeometry, type TableSizes } from './sizes.ts'

/** What every object must have; what user space runs or attaches by name. */
export const programNames = [
  'lb_tc_ingress',
  'lb_tc_egress',
  'lb_tc_marked',
  'lb_xdp',
  'lb_read_clock',
  'lb_start_sweeper',
  'lb_sweep',
  'lb_end',
  'lb_sync',
] as const
export type ProgramName = (typeof programNames)[number]

/** The smallest packet that BPF_PROG_RUN takes. */
const EMPTY_PACKET = new Uint8Array(64)
const SAMPLE_GAP_MS = 500

/** A loaded object: descriptors by name. Maps of globals have the section's name (".bss"). */
export interface LoadedObject {
  readonly maps: ReadonlyMap<string, Fd>
  readonly programs: ReadonlyMap<string, Fd>
  close(): void
}

/** Opens an object file, prepares it, loads it. What `prepare` throws closes it again. VERIFIER, PERMISSION, NATIVE. */
export function load(path: string, prepare: (object: BpfObject, maps: Map<string, BpfMap>) => void): LoadedObject {
  takeLog()
  const object = openObject(path)
  try {
    const maps = objectMaps(object)
    prepare(object, maps)
    const result = loadObject(object)
    if (result < 0) throw loadError(path, -result, takeLog())
    const fds = <T extends BpfMap | BpfProgram>(all: Map<string, T>, fd: (one: T) => number): Map<string, Fd> =>
      new Map([...all].map(([name, one]) => [name, fd(one) as Fd]))
    const programs = fds(loadedPrograms(object), programFd)
    return { maps: fds(maps, mapFd), programs, close: () => closeObject(object) }
  } catch (error) {
    closeObject(object)
    throw error
  }
}

/** Refuses an object that is laid out otherwise than this program was built for, naming struct and field. */
function checkLayout(object: BpfObject, path: string): void {
  const differences = compareLayouts(layout, describeObject(Btf.parse(objectBtf(object))))
  if (differences.length > 0) {
    throw new LbError('LAYOUT', `${path}: ${differences.slice(0, 5).join('; ')}`, { path, differences })
  }
  const programs = objectPrograms(object)
  const missing = programNames.filter((name) => !programs.has(name))
  if (missing.length > 0) throw new LbError('LAYOUT', `${path}: no program ${missing.join(', ')}`, { path, missing })
}

/**
 * Refuses an object whose share of the table is laid out otherwise than the table. What else it has, and its constants, are
 * its own business: the layouts are returned. LAYOUT.
 */
export function checkShare(object: BpfObject, path: string): ObjectLayout {
  const described = describeObject(Btf.parse(objectBtf(object)))
  const differences = compareLayouts(layout, described).filter(
    (line) => !/^struct lb_rodata| is (?:new|missing)$/.test(line),
  )
  if (differences.length > 0) {
    throw new LbError('LAYOUT', `${path}: ${differences.slice(0, 5).join('; ')}`, { path, differences })
  }
  return described
}

/** Has an object that is not loaded yet use what is pinned, paths by the names of maps, as far as it has such maps. */
export function reusePins(maps: ReadonlyMap<string, BpfMap>, pins: ReadonlyMap<string, string>): void {
  for (const [name, path] of pins) {
    const map = maps.get(name)
    if (map !== undefined) usingFd(openPin(path), (fd) => reuseMap(map, fd))
  }
}

function sampleClock(program: Fd): ClockSample {
  const { packet } = runProgram(program, { packet: EMPTY_PACKET })
  const [jiffies = 0n, ktimeNs = 0n] = new BigUint64Array(packet.slice(0, 16).buffer)
  return { jiffies, ktimeNs }
}

/** Jiffies in a second on this kernel. */
export function detectHz(): number {
  const path = buildPath('bpf/clock.bpf.o')
  const object = load(path, () => {})
  try {
    const program = object.programs.get('lb_sample_clock')
    if (program === undefined) throw new LbError('LAYOUT', `${path}: no program lb_sample_clock`, { path })
    const first = sampleClock(program)
    const hz = hzFromSample(first)
    if (hz !== undefined) return hz
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SAMPLE_GAP_MS)
    return hzFromSamples(first, sampleClock(program))
  } finally {
    object.close()
  }
}

/** A map that the object must have. LAYOUT. */
export function section(maps: Map<string, BpfMap>, name: string, path: string): BpfMap {
  const map = maps.get(name)
  if (map === undefined) throw new LbError('LAYOUT', `${path}: no map ${name}`, { path })
  return map
}

/** Sets the sizes of maps and the constants that go with them, before a first load. */
function setSizes(maps: Map<string, BpfMap>, sizes: TableSizes, path: string): void {
  const { entries, constants } = planGeometry(sizes, possibleCpus())
  for (const [name, count] of Object.entries(entries)) setMaxEntries(section(maps, name, path), count)
  const hz = detectHz()
  const key = randomFillSync(new BigUint64Array(LbRodataArray.count.hashKey))
  const initial = new Uint8Array(initialValue(section(maps, '.rodata', path)))
  const rodata = new LbRodataArray(new ArrayBuffer(LbRodataArray.size)) /* the section may end sooner, unpadded */
  rodata.u8.set(initial.subarray(0, LbRodataArray.size))
  key.forEach((value, n) => {
    rodata.setHashKey(0, n, value | 1n)
  })
  rodata.setServiceLineMask(0, constants.serviceLineMask)
  rodata.setFilterMask(0, constants.filterMask)
  rodata.setConnLineMask(0, constants.connLineMask)
  rodata.setConnMax(0, constants.connMax)
  rodata.setServerMax(0, constants.serverMax)
  rodata.setLaneMask(0, constants.laneMask)
  rodata.setLanesShared(0, constants.lanesShared)
  rodata.setHz(0, hz)
  rodata.setTickShift(0, tickShift(hz))
  initial.set(rodata.u8.subarray(0, initial.length))
}

/**
 * Loads the programs with maps of their own, sized as asked. LAYOUT, VERIFIER (last lines in the message, all of it in
 * detail.log), UNSUPPORTED, PERMISSION, NATIVE.
 */
export function loadNew(path: string, sizes: TableSizes): LoadedObject {
  return load(path, (object, maps) => {
    checkLayout(object, path)
    setSizes(maps, sizes, path)
  })
}

/** Loads the programs on maps that exist, by name; sizes and constants are theirs. Errors as loadNew(). */
export function loadOnto(path: string, pinned: ReadonlyMap<string, Fd>): LoadedObject {
  return load(path, (object, maps) => {
    checkLayout(object, path)
    for (const [name, map] of maps) {
      const fd = pinned.get(name)
      if (fd !== undefined) reuseMap(map, fd)
    }
  })
}
