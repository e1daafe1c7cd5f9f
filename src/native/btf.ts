/** A reader of BTF, the kernel's type format: bytes in, types out. Needs no kernel and no privilege. */
import { littleEndian } from '../abi/codec.ts'
import { LbError } from '../model/errors.ts'

/** One member of a struct or union; `offset` in bytes. */
export interface BtfMember {
  readonly name: string
  readonly type: number
  readonly offset: number
}
/** One variable of a data section; `offset` and `size` in bytes (0 in a bare object file, right in an opened one). */
export interface BtfSectionVar {
  readonly type: number
  readonly offset: number
  readonly size: number
}

interface Named {
  readonly name: string
}
interface Sized extends Named {
  readonly size: number
}
interface Referring extends Named {
  readonly type: number
}
interface Composite extends Sized {
  readonly members: readonly BtfMember[]
}

/** What each kind of type holds, beside its kind. */
interface Shapes {
  void: Named
  int: Sized
  float: Sized
  ptr: Referring
  typedef: Referring
  volatile: Referring
  const: Referring
  restrict: Referring
  type_tag: Referring
  decl_tag: Referring
  var: Referring
  func: Referring
  array: Referring & { readonly count: number }
  struct: Composite
  union: Composite
  enum: Sized & { readonly values: ReadonlyMap<string, bigint> }
  datasec: Named & { readonly vars: readonly BtfSectionVar[] }
  fwd: Named
  func_proto: Named
}

/** A type of one kind. */
export type BtfOfKind<K extends keyof Shapes> = { readonly kind: K } & Shapes[K]
/** A type. Ids index `Btf.types`; 0 is void. */
export type BtfType = { [K in keyof Shapes]: BtfOfKind<K> }[keyof Shapes]

const KINDS = [
  'void',
  'int',
  'ptr',
  'array',
  'struct',
  'union',
  'enum',
  'fwd',
  'typedef',
  'volatile',
  'const',
  'restrict',
  'func',
  'func_proto',
  'var',
  'datasec',
  'float',
  'decl_tag',
  'type_tag',
  'enum64',
] as const
type Kind = (typeof KINDS)[number]

const MAGIC = 0xeb9f
const HEADER = 24
const RECORD = 12

function fail(message: string): never {
  throw new LbError('LAYOUT', `BTF: ${message}`)
}

/** The types of one object, by id. */
export class Btf {
  readonly types: readonly BtfType[]

  constructor(types: readonly BtfType[]) {
    this.types = types
  }

  /** Reads a .BTF section (or btf__raw_data of an opened object). LAYOUT when it is malformed. */
  static parse(bytes: Uint8Array): Btf {
    return new Btf(new BtfParser(bytes).parse())
  }

  type(id: number): BtfType {
    return this.types[id] ?? fail(`no type ${id}`)
  }

  /** Follows const, volatile, restrict and tags, and with `typedefs` also type definitions. */
  resolve(id: number, typedefs = true): BtfType {
    for (let seen = 0; seen < this.types.length; seen++) {
      const type = this.type(id)
      const modifier =
        type.kind === 'const' ||
        type.kind === 'volatile' ||
        type.kind === 'restrict' ||
        type.kind === 'type_tag' ||
        (typedefs && type.kind === 'typedef')
      if (!modifier) return type
      id = type.type
    }
    return fail(`type ${id} refers to itself`)
  }

  /** The type of that kind and name, or undefined. */
  find<K extends BtfType['kind']>(kind: K, name: string): BtfOfKind<K> | undefined {
    return this.types.find((type) => type.kind === kind && type.name === name) as BtfOfKind<K> | undefined
  }

  /** Size in bytes of a complete type. */
  size(id: number): number {
    const type = this.resolve(id)
    switch (type.kind) {
      case 'int':
      case 'float':
      case 'struct':
      case 'union':
      case 'enum':
        return type.size
      case 'ptr':
        return 8
      case 'array':
        return type.count * this.size(type.type)
      default:
        return fail(`a ${type.kind} has no size`)
    }
  }

  /** How C writes the type: "__be16", "union lb_addr", "struct lb_slot[4]". */
  typeName(id: number): string {
    const type = this.resolve(id, false)
    switch (type.kind) {
      case 'array':
        return `${this.typeName(type.type)}[${type.count}]`
      case 'ptr':
        return `${this.typeName(type.type)} *`
      case 'struct':
      case 'union':
      case 'enum':
        return `${type.kind} ${type.name}`
      default:
        return type.name
    }
  }
}

/** Decodes the two sections, types and strings, of one blob. */
class BtfParser {
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #strings: number
  readonly #end: number
  #at: number

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (bytes.byteLength < HEADER || this.#view.getUint16(0, littleEndian) !== MAGIC) fail('no BTF header')
    const start = this.#u32(4)
    this.#at = start + this.#u32(8)
    this.#end = this.#at + this.#u32(12)
    this.#strings = start + this.#u32(16)
    if (this.#end > bytes.byteLength || this.#strings + this.#u32(20) > bytes.byteLength) fail('truncated')
  }

  parse(): BtfType[] {
    const types: BtfType[] = [{ kind: 'void', name: '' }]
    while (this.#at < this.#end) types.push(this.#record())
    return types
  }

  #u32(offset: number): number {
    return this.#view.getUint32(offset, littleEndian)
  }

  #string(offset: number): string {
    const start = this.#strings + offset
    return Buffer.from(this.#bytes.subarray(start, this.#bytes.indexOf(0, start))).toString('utf8')
  }

  /** Reads `count` groups of three words (or as many as `words` says) and moves past them. */
  #list<T>(count: number, words: number, read: (at: number) => T): T[] {
    const out = Array.from({ length: count }, (_, i) => read(this.#at + i * words * 4))
    this.#at += count * words * 4
    return out
  }

  #record(): BtfType {
    const info = this.#u32(this.#at + 4)
    const kind = KINDS[(info >>> 24) & 0x1f] ?? fail(`unknown kind ${(info >>> 24) & 0x1f}`)
    const name = this.#string(this.#u32(this.#at))
    const sizeOrType = this.#u32(this.#at + 8)
    this.#at += RECORD
    return this.#body(kind, name, sizeOrType, info & 0xffff, info >>> 31 === 1)
  }

  #body(kind: Kind, name: string, word: number, count: number, flag: boolean): BtfType {
    switch (kind) {
      case 'void':
        return fail('a record of kind 0')
      case 'int':
        this.#at += 4
        return { kind, name, size: word }
      case 'array': {
        const [type, , length] = this.#list(3, 1, (at) => this.#u32(at)) as [number, number, number]
        return { kind, name: '', type, count: length }
      }
      case 'struct':
      case 'union':
        return { kind, name, size: word, members: this.#members(count, flag) }
      case 'enum':
      case 'enum64':
        return { kind: 'enum', name, size: word, values: this.#enumerators(kind, count, flag) }
      case 'var':
      case 'decl_tag':
        this.#at += 4
        return { kind, name, type: word }
      case 'func_proto':
        this.#at += count * 8
        return { kind, name }
      case 'datasec':
        return {
          kind,
          name,
          vars: this.#list(count, 3, (at) => ({
            type: this.#u32(at),
            offset: this.#u32(at + 4),
            size: this.#u32(at + 8),
          })),
        }
      case 'float':
        return { kind, name, size: word }
      case 'fwd':
        return { kind, name }
      default:
        return { kind, name, type: word }
    }
  }

  #members(count: number, bitfields: boolean): BtfMember[] {
    return this.#list(count, 3, (at) => {
      const name = this.#string(this.#u32(at))
      const bits = this.#u32(at + 8)
      if (bitfields && bits >>> 24 !== 0) fail(`bit field ${name} is not supported`)
      return { name, type: this.#u32(at + 4), offset: (bitfields ? bits & 0xffffff : bits) >>> 3 }
    })
  }

  #enumerators(kind: 'enum' | 'enum64', count: number, signed: boolean): Map<string, bigint> {
    return new Map(
      this.#list(count, kind === 'enum' ? 2 : 3, (at) => {
        const low = this.#u32(at + 4)
        const value =
          kind === 'enum' ? BigInt(signed ? low | 0 : low) : (BigInt(this.#u32(at + 8)) << 32n) | BigInt(low)
        return [this.#string(this.#u32(at)), value] as const
      }),
    )
  }
}
