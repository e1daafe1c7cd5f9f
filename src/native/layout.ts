/** What an object's BTF says about everything that user space shares with it, in a form that can be compared. */
import { createHash } from 'node:crypto'
import type { Btf, BtfOfKind, BtfType } from './btf.ts'
import { LbError } from '../model/errors.ts'

/** A field as C declares it; `offset` in bytes. */
export interface FieldLayout {
  readonly name: string
  readonly offset: number
  readonly type: string
}
export interface StructLayout {
  readonly size: number
  readonly fields: readonly FieldLayout[]
}
/** `struct` is the C name of the value's struct or union, or a scalar's type. */
export interface MapLayout {
  readonly struct: string
  readonly valueSize: number
}

/** All layouts of one object. Padding is left out: nobody reads it. */
export interface ObjectLayout {
  /** Structs and unions that values of mapped maps consist of, by tag; `lb_rodata` is the section of constants. */
  readonly structs: Readonly<Record<string, StructLayout>>
  readonly enums: Readonly<Record<string, Readonly<Record<string, number>>>>
  /** Maps that user space maps into its memory. */
  readonly maps: Readonly<Record<string, MapLayout>>
  /** Maps that are only pinned. Arrays for each CPU are not: what is in them is of one run of a program. */
  readonly opaqueMaps: readonly string[]
  /** Of those, the ones whose values user space writes, as structs. */
  readonly hashes: Readonly<Record<string, MapLayout>>
}

const F_MMAPABLE = 1024
/** Of the maps that are only pinned, user space writes the values of hashes. */
const MAP_TYPE_HASH = 1
const MAP_TYPE_PERCPU_ARRAY = 6
const PADDING = /^pad\d*$/

/** Describes an object that libbpf has opened (before that, offsets of constants are unknown). LAYOUT if it can't. */
export function describeObject(btf: Btf): ObjectLayout {
  const structs: Record<string, StructLayout> = {}
  const maps: Record<string, MapLayout> = {}
  const opaqueMaps: string[] = []
  const hashes: Record<string, MapLayout> = {}
  for (const { name, mapType, valueType, flags } of mapDefinitions(btf)) {
    if (mapType === MAP_TYPE_PERCPU_ARRAY) continue
    if ((flags & F_MMAPABLE) === 0) {
      opaqueMaps.push(name)
      if (mapType === MAP_TYPE_HASH) {
        hashes[name] = { struct: btf.resolve(valueType, false).name, valueSize: btf.size(valueType) }
        addStruct(btf, valueType, structs)
      }
      continue
    }
    const value = btf.resolve(valueType, false)
    const valueSize = btf.size(valueType)
    if (valueSize % 8 !== 0) throw new LbError('LAYOUT', `${name}: a value of ${valueSize} bytes is no multiple of 8`)
    maps[name] = { struct: value.name, valueSize }
    addStruct(btf, valueType, structs)
  }
  structs.lb_rodata = describeRodata(btf)
  return {
    structs: sorted(structs),
    enums: describeEnums(btf),
    maps: sorted(maps),
    opaqueMaps: opaqueMaps.sort(),
    hashes: sorted(hashes),
  }
}

/** A short hash of what pinned maps hold: layouts of structs and maps. Enums may grow without a new version. */
export function layoutVersion(layout: ObjectLayout): string {
  const { structs, maps, opaqueMaps, hashes } = layout
  return createHash('sha256').update(JSON.stringify({ structs, maps, opaqueMaps, hashes })).digest('hex').slice(0, 12)
}

/** Every difference, each naming what and where; empty if the two agree. */
export function compareLayouts(expected: ObjectLayout, actual: ObjectLayout): string[] {
  return [
    ...compareRecords('struct', expected.structs, actual.structs, compareStruct),
    ...compareRecords('enum', expected.enums, actual.enums, (name, a, b) =>
      compareRecords(`enum ${name}:`, a, b, (value, x, y) =>
        x === y ? [] : [`enum ${name}: ${value} is ${y}, not ${x}`],
      ),
    ),
    ...compareRecords('map', expected.maps, actual.maps, (name, a, b) =>
      a.struct === b.struct && a.valueSize === b.valueSize
        ? []
        : [`map ${name}: values are ${b.struct} of ${b.valueSize} bytes, not ${a.struct} of ${a.valueSize}`],
    ),
    ...compareRecords('map', named(expected.opaqueMaps), named(actual.opaqueMaps), () => []),
  ]
}

function compareStruct(name: string, expected: StructLayout, actual: StructLayout): string[] {
  const byName = (s: StructLayout): Record<string, FieldLayout> => Object.fromEntries(s.fields.map((f) => [f.name, f]))
  const fields = compareRecords(`struct ${name}: field`, byName(expected), byName(actual), (field, a, b) =>
    a.offset === b.offset && a.type === b.type
      ? []
      : [`struct ${name}: field ${field} is ${b.type} at ${b.offset}, not ${a.type} at ${a.offset}`],
  )
  const size = `struct ${name}: ${actual.size} bytes, not ${expected.size}`
  return expected.size === actual.size ? fields : [...fields, size]
}

function compareRecords<T>(
  what: string,
  expected: Readonly<Record<string, T>>,
  actual: Readonly<Record<string, T>>,
  compare: (name: string, expected: T, actual: T) => string[],
): string[] {
  const out: string[] = []
  for (const name of new Set([...Object.keys(expected), ...Object.keys(actual)])) {
    const a = expected[name]
    const b = actual[name]
    if (a === undefined) out.push(`${what} ${name} is new`)
    else if (b === undefined) out.push(`${what} ${name} is missing`)
    else out.push(...compare(name, a, b))
  }
  return out
}

interface MapDefinition {
  readonly name: string
  readonly mapType: number
  readonly valueType: number
  readonly flags: number
}

/** Reads the definitions in .maps: a pointer member is a type, a pointer to an array is a number (its length). */
function mapDefinitions(btf: Btf): MapDefinition[] {
  const section = btf.find('datasec', '.maps')
  if (section === undefined) throw new LbError('LAYOUT', 'BTF: no maps')
  return section.vars.map((variable) => {
    const { name, type } = expectKind(btf.type(variable.type), 'var')
    const members = new Map(expectKind(btf.resolve(type), 'struct').members.map((m) => [m.name, m.type]))
    const target = (member: string): number | undefined => {
      const id = members.get(member)
      return id === undefined ? undefined : expectKind(btf.resolve(id), 'ptr').type
    }
    const valueType = target('value') ?? (members.has('values') ? 0 : undefined) /* a map of programs has void */
    if (valueType === undefined) throw new LbError('LAYOUT', `BTF: map ${name} has no value type`)
    const number = (member: string): number => {
      const id = target(member)
      return id === undefined ? 0 : expectKind(btf.resolve(id), 'array').count
    }
    return { name, mapType: number('type'), valueType, flags: number('map_flags') }
  })
}

/** Adds a struct, and those that it contains, by tag. Scalars add nothing. */
function addStruct(btf: Btf, id: number, structs: Record<string, StructLayout>): void {
  let type = btf.resolve(id)
  while (type.kind === 'array') type = btf.resolve(type.type)
  if ((type.kind !== 'struct' && type.kind !== 'union') || structs[type.name] !== undefined) return
  if (type.name === '') throw new LbError('LAYOUT', 'BTF: an anonymous struct in a map value')
  const members = type.members.filter((member) => !PADDING.test(member.name))
  structs[type.name] = {
    size: type.size,
    fields: members.map(({ name, offset, type }) => ({ name, offset, type: btf.typeName(type) })),
  }
  for (const member of members) addStruct(btf, member.type, structs)
}

/** The section of load-time constants, as if it were a struct of those that are ours. */
function describeRodata(btf: Btf): StructLayout {
  const section = btf.find('datasec', '.rodata')
  if (section === undefined) throw new LbError('LAYOUT', 'BTF: no constants')
  const fields = section.vars
    .flatMap(({ type, offset, size }) => {
      const variable = expectKind(btf.type(type), 'var')
      return variable.name.startsWith('lb_')
        ? [{ name: variable.name, offset, size, type: btf.typeName(variable.type) }]
        : []
    })
    .sort((a, b) => a.offset - b.offset)
  const end = Math.max(...fields.map(({ offset, size }) => offset + size))
  return { size: Math.ceil(end / 8) * 8, fields: fields.map(({ name, offset, type }) => ({ name, offset, type })) }
}

function describeEnums(btf: Btf): Record<string, Record<string, number>> {
  const enums: Record<string, Record<string, number>> = {}
  for (const type of btf.types) {
    if (type.kind !== 'enum' || !type.name.startsWith('lb_')) continue
    enums[type.name] = Object.fromEntries([...type.values].map(([name, value]) => [name, Number(value)]))
  }
  return sorted(enums)
}

function expectKind<K extends BtfType['kind']>(type: BtfType, kind: K): BtfOfKind<K> {
  if (type.kind !== kind) throw new LbError('LAYOUT', `BTF: ${type.name || 'a type'} is a ${type.kind}, not a ${kind}`)
  return type as BtfOfKind<K>
}

function sorted<T>(record: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function named(names: readonly string[]): Record<string, true> {
  return Object.fromEntries(names.map((name) => [name, true]))
}
