/** The generated layouts, the classes made from them, and the BTF reader behind both. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import t from 'tap'
import { StructArray } from '../../src/abi/codec.ts'
import {
  layout,
  layoutVersion,
  LbCellArray,
  LbConfigArray,
  LbLineArray,
  LbServerArray,
  LbVerdict,
  lbVerdictNames,
  maps,
} from '../../src/abi/generated.ts'
import { LbError } from '../../src/model/errors.ts'
import { Btf } from '../../src/native/btf.ts'
import { readObjectBtf } from '../../src/native/btf-object.ts'
import {
  compareLayouts,
  describeObject,
  layoutVersion as hashLayouts,
  type ObjectLayout,
} from '../../src/native/layout.ts'
import { buildPath } from '../../src/native/library.ts'

const object = buildPath('bpf/lb.bpf.o')
const needsBpftool = spawnSync('bpftool', ['version']).error === undefined ? false : 'bpftool is not installed'
const needsBuild = existsSync(object) ? false : 'build/bpf/lb.bpf.o is not built'

t.test('a field of network order is stored big-endian and read in host order', async (t) => {
  const servers = new LbServerArray(new ArrayBuffer(3 * LbServerArray.size))
  servers.setPort(2, 0x1f90)
  t.same([...servers.u8.subarray(2 * 64 + LbServerArray.at.port, 2 * 64 + LbServerArray.at.port + 2)], [0x1f, 0x90])
  t.equal(servers.port(2), 8080)
  t.equal(servers.port(1), 0)
})

t.test('signed and 64-bit fields keep their sign and width', async (t) => {
  const servers = new LbServerArray(new ArrayBuffer(LbServerArray.size))
  servers.setWeight(0, -5)
  t.equal(servers.weight(0), -5)
  t.equal(servers.i32[LbServerArray.at.weight / 4], -5)
  const config = new LbConfigArray(new ArrayBuffer(LbConfigArray.size))
  config.setGeneration(0, 2n ** 63n + 1n)
  t.equal(config.generation(0), 2n ** 63n + 1n)
  t.equal(config.u64[0], 2n ** 63n + 1n)
})

t.test('an address is a live view of its 16 bytes', async (t) => {
  const servers = new LbServerArray(new ArrayBuffer(2 * LbServerArray.size))
  servers.addr(1).set([10, 0, 0, 1])
  t.same([...servers.u8.subarray(64, 68)], [10, 0, 0, 1])
  t.equal(servers.addr(1).length, 16)
  servers.setAddr(1, new Uint8Array(16).fill(7))
  t.same([...servers.addr(1)], Array(16).fill(7))
  t.throws(() => servers.setAddr(1, new Uint8Array(4)), RangeError)
})

t.test('arrays inside a struct, of scalars and of structs, take a second index and check it', async (t) => {
  const cells = new LbCellArray(new ArrayBuffer(2 * LbCellArray.size))
  cells.setSlotServer(1, 3, 77)
  cells.setSlotWeight(1, 3, -1)
  t.equal(cells.view.getUint32(32 + 24, true), 77)
  t.equal(cells.slotWeight(1, 3), -1)
  t.throws(() => cells.slotServer(0, 4), RangeError)
  const lines = new LbLineArray(new ArrayBuffer(64))
  lines.setSlot(0, 7, 1n)
  t.equal(lines.u64[7], 1n)
  t.throws(() => lines.slot(0, 8), RangeError)
})

t.test('an element that does not exist is an error, also through byte views and clear()', async (t) => {
  const servers = new LbServerArray(new ArrayBuffer(2 * LbServerArray.size))
  t.throws(() => servers.port(2), RangeError)
  t.throws(() => servers.addr(2), RangeError)
  t.throws(() => servers.clear(2), RangeError)
  t.throws(() => servers.clear(-1), RangeError)
})

t.test('clear() zeroes one element and no other', async (t) => {
  const servers = new LbServerArray(new ArrayBuffer(3 * LbServerArray.size))
  servers.u8.fill(0xff)
  servers.clear(1)
  t.ok(servers.u8.subarray(64, 128).every((byte) => byte === 0))
  t.ok(servers.u8.subarray(0, 64).every((byte) => byte === 0xff))
  t.ok(servers.u8.subarray(128).every((byte) => byte === 0xff))
})

t.test('an array over part of a buffer starts at its offset and has the length asked for', async (t) => {
  const buffer = new ArrayBuffer(4 * LbServerArray.size)
  const servers = new LbServerArray(buffer, LbServerArray.size, 2)
  t.ok(servers instanceof StructArray)
  t.equal(servers.length, 2)
  servers.u8.fill(1)
  t.equal(new Uint8Array(buffer)[63], 0)
  t.equal(new Uint8Array(buffer)[64], 1)
  t.equal(new Uint8Array(buffer)[192], 0)
})

t.test('names of an enum stand at their values, without the closing count', async (t) => {
  t.equal(lbVerdictNames[LbVerdict.REFUSE_NO_SERVER], 'REFUSE_NO_SERVER')
  t.equal(lbVerdictNames.length, LbVerdict.VERDICT_MAX)
})

t.test('the built object has the layouts that were generated', { skip: needsBuild }, async (t) => {
  const actual = describeObject(readObjectBtf(object))
  t.same(compareLayouts(layout, actual), [])
  t.equal(hashLayouts(actual), layoutVersion)
})

t.test('a difference is reported by struct and field, enum and value, map', async (t) => {
  const changed = structuredClone(layout) as unknown as {
    structs: Record<string, { size: number; fields: { name: string; offset: number; type: string }[] }>
    enums: Record<string, Record<string, number>>
    maps: Record<string, { struct: string; valueSize: number }>
    opaqueMaps: string[]
    hashes: Record<string, { struct: string; valueSize: number }>
  }
  const fields = changed.structs.lb_server?.fields ?? []
  changed.structs.lb_server = { size: 72, fields: [...fields.slice(1), { name: 'extra', offset: 64, type: '__u64' }] }
  changed.enums.lb_fwd = { ...layout.enums.lb_fwd, LB_FWD_LOCAL: 9 }
  changed.maps.lb_config = { struct: 'lb_other', valueSize: 8 }
  delete changed.maps.lb_book
  const differences = compareLayouts(layout, changed as ObjectLayout)
  t.match(differences, [
    'struct lb_server: field addr is missing',
    'struct lb_server: field extra is new',
    'struct lb_server: 72 bytes, not 64',
    'enum lb_fwd: LB_FWD_LOCAL is 9, not 1',
    'map lb_book is missing',
    /^map lb_config: values are lb_other of 8 bytes/,
  ])
  t.equal(differences.length, 6)
  t.not(hashLayouts(changed as ObjectLayout), layoutVersion)
})

interface DumpedType {
  id: number
  kind: string
  name: string
  size?: number
  type_id?: number
  nr_elems?: number
  members?: { name: string; type_id: number; bits_offset: number }[]
  values?: { name: string; val: number }[]
}

t.test(
  'our reading of the object agrees with bpftool, type by type',
  { skip: needsBuild || needsBpftool },
  async (t) => {
    const text = execFileSync('bpftool', ['btf', 'dump', '-j', 'file', object], {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    })
    const dump = JSON.parse(text) as { types: DumpedType[] }
    const btf = readObjectBtf(object)
    const added = btf.types.slice(
      dump.types.length + 1,
    ) /* libbpf gives kernel functions that we call a place in the BTF */
    t.same(
      added.filter((type) => !type.name.startsWith('dummy_ksym')),
      [],
    )
    const different = dump.types.filter(
      (theirs) => JSON.stringify(ours(btf, theirs.id)) !== JSON.stringify(normal(theirs)),
    )
    t.same(different, [])
  },
)

/** What both readers say of a type, in one form. Offsets of constants differ on purpose: libbpf has filled ours in. */
function normal(type: DumpedType): unknown {
  const kind = type.kind.toLowerCase()
  const name = type.name === '(anon)' ? '' : type.name
  if (kind === 'struct' || kind === 'union') {
    return [
      kind,
      name,
      type.size,
      type.members?.map((m) => [m.name === '(anon)' ? '' : m.name, m.type_id, m.bits_offset / 8]),
    ]
  }
  if (kind === 'enum') return [kind, name, type.size, type.values?.map((v) => [v.name, v.val | 0])]
  if (kind === 'array') return [kind, '', type.type_id, type.nr_elems]
  if (kind === 'datasec') return [kind, name, undefined, undefined]
  return [kind, name, type.size, kind === 'func_proto' ? undefined : type.type_id]
}

function ours(btf: Btf, id: number): unknown {
  const type = btf.type(id)
  switch (type.kind) {
    case 'struct':
    case 'union':
      return [type.kind, type.name, type.size, type.members.map((m) => [m.name, m.type, m.offset])]
    case 'enum':
      return [type.kind, type.name, type.size, [...type.values].map(([name, value]) => [name, Number(value) | 0])]
    case 'array':
      return [type.kind, '', type.type, type.count]
    case 'int':
    case 'float':
      return [type.kind, type.name, type.size, undefined]
    case 'void':
    case 'fwd':
    case 'func_proto':
    case 'datasec':
      return [type.kind, type.name, undefined, undefined]
    default:
      return [type.kind, type.name, undefined, type.type]
  }
}

t.test('malformed BTF is refused, not guessed at', { skip: needsBuild }, async (t) => {
  t.throws(() => Btf.parse(new Uint8Array(8)), LbError)
  t.throws(() => Btf.parse(new Uint8Array(64)), { code: 'LAYOUT' })
  const header = new Uint32Array([0x0001eb9f, 24, 0, 1000, 1000, 4])
  t.throws(() => Btf.parse(new Uint8Array(header.buffer)), { code: 'LAYOUT', message: /truncated/ })
})

t.test('every value of a mapped map is a whole number of 8-byte words, as the kernel lays arrays out', async (t) => {
  for (const [name, { valueSize }] of Object.entries(maps)) t.equal(valueSize % 8, 0, name)
})
