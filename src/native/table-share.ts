/** Loading an object of more programs onto a table: those for sockets, and for interfaces without Ethernet headers. */
import { layout } from '../abi/generated.ts'
import { LbError } from '../model/errors.ts'
import type { ObjectLayout } from './layout.ts'
import { initialValue } from './libbpf.ts'
import { mapPin } from './pins.ts'
import { checkShare, load, type LoadedObject, reusePins, section } from './programs.ts'
import { OpenMaps } from './shim.ts'

/** Constants of the object's own, by their names in C. */
export type OwnConstants = Readonly<Record<string, bigint>>

const WIDTHS: Readonly<Record<string, number>> = { __u32: 4, __u64: 8 }

/** Bytes of a constant by its type in C: "__u64[8]". LAYOUT for types that no constant has. */
function sizeOf(type: string): number {
  const [, name = '', count = '1'] = /^(\w+)(?:\[(\d+)\])?$/.exec(type) ?? []
  const width = WIDTHS[name]
  if (width === undefined) throw new LbError('LAYOUT', `a constant of type ${type}`)
  return width * Number(count)
}

/** Gives the object the table's constants, and its own. */
function setConstants(rodata: Uint8Array, table: Uint8Array, own: OwnConstants, described: ObjectLayout): void {
  const known = new Map(layout.structs.lb_rodata.fields.map((field) => [field.name as string, field]))
  for (const { name, offset, type } of described.structs.lb_rodata?.fields ?? []) {
    const source = known.get(name)
    const size = sizeOf(type)
    if (source !== undefined) {
      rodata.set(table.subarray(source.offset, source.offset + size), offset)
      continue
    }
    const value = own[name]
    if (value === undefined) throw new LbError('LAYOUT', `more programs than the table's have a constant ${name}`)
    rodata.set(new Uint8Array(BigUint64Array.of(value).buffer).subarray(0, size), offset)
  }
}

/**
 * Loads the object onto the table in `dir`. `kept`: pins of more maps to use, by name: opaque ones of the table's, and the object's
 * own that an earlier load has left. LAYOUT, VERIFIER, UNSUPPORTED, PERMISSION, NATIVE.
 */
export function loadShare(
  path: string,
  dir: string,
  constants: OwnConstants,
  kept: ReadonlyMap<string, string>,
): LoadedObject {
  const table = new OpenMaps(dir, ['lb_rodata'])
  try {
    return load(path, (object, maps) => {
      const described = checkShare(object, path)
      const rodata = new Uint8Array(initialValue(section(maps, '.rodata', path)))
      setConstants(rodata, new Uint8Array(table.buffer('lb_rodata')), constants, described)
      const shared = Object.keys(layout.maps).map((name) => [name, `${dir}/${mapPin(name)}`] as const)
      reusePins(maps, new Map([...shared, ...kept]))
    })
  } finally {
    table.close()
  }
}
