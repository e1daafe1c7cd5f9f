/** Tables of iptables as the kernel takes them, from chains and rules. */
import { littleEndian } from '../../src/abi/codec.ts'
import type { XtTable } from '../../src/native/xtables-table.ts'

/** `to`: a chain; or what becomes of the packet. */
export interface XtRule {
  readonly to: string
  readonly packets?: number
}

/** Sends TCP for an address on to another (IPv4): DNAT, as its first revision has it. */
export interface XtNat {
  readonly address: string
  readonly server: string
  readonly port: number
}

export interface XtChain {
  readonly name: string
  /** Its hook; those of others begin with an entry that names them. */
  readonly hook?: number
  readonly rules: readonly (XtRule | XtNat)[]
}

const verdicts: Readonly<Record<string, number>> = { DROP: -1, ACCEPT: -2, RETURN: -5 }
const shapes = {
  4: { head: 112, target: 88, next: 90, counters: 96 },
  6: { head: 168, target: 140, next: 142, counters: 152 },
} as const
const STANDARD = 40
const ERROR = 64
const NAT = 56
const HOOKS = 5

function entry(family: 4 | 6, size: number, fill: (bytes: Buffer, view: DataView, target: number) => void): Buffer {
  const { head, target, next } = shapes[family]
  const bytes = Buffer.alloc(head + size)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  view.setUint16(target, head, littleEndian)
  view.setUint16(next, head + size, littleEndian)
  view.setUint16(head, size, littleEndian)
  fill(bytes, view, head)
  return bytes
}

function beginning(family: 4 | 6, name: string): Buffer {
  return entry(family, ERROR, (bytes, _view, at) => {
    bytes.write('ERROR', at + 2)
    bytes.write(name, at + 32)
  })
}

function nat({ address, server, port }: XtNat): Buffer {
  return entry(4, NAT, (bytes, view, target) => {
    const write = (at: number, text: string): number => Buffer.from(text.split('.').map(Number)).copy(bytes, at)
    write(4, address)
    view.setUint32(12, 0xffffffff)
    view.setUint16(80, 6, littleEndian) /* TCP */
    bytes.write('DNAT', target + 2)
    view.setUint32(target + 32, 1, littleEndian) /* ranges */
    view.setUint32(target + 36, 3, littleEndian) /* addresses and ports */
    for (const at of [40, 44]) write(target + at, server)
    for (const at of [48, 50]) view.setUint16(target + at, port)
  })
}

/** The chains in their order; each of a hook ends with ACCEPT, all others with RETURN. */
export function xtTable(family: 4 | 6, chains: readonly XtChain[]): XtTable {
  const { head, counters } = shapes[family]
  const begins = new Map<string, number>()
  const ends = new Map<string, number>()
  let at = 0
  for (const { name, hook, rules } of chains) {
    if (hook === undefined) at += head + ERROR
    begins.set(name, at)
    for (const each of rules) at += head + ('to' in each ? STANDARD : NAT)
    ends.set(name, at)
    at += head + STANDARD
  }
  const rule = ({ to, packets = 0 }: XtRule): Buffer =>
    entry(family, STANDARD, (_bytes, view, target) => {
      view.setInt32(target + 32, verdicts[to] ?? begins.get(to) ?? 0, littleEndian)
      view.setBigUint64(counters, BigInt(packets), littleEndian)
    })
  const parts = chains.flatMap(({ name, hook, rules }) => [
    ...(hook === undefined ? [beginning(family, name)] : []),
    ...[...rules, { to: hook === undefined ? 'RETURN' : 'ACCEPT' }].map((each) =>
      'to' in each ? rule(each) : nat(each),
    ),
  ])
  const ofHooks = (places: ReadonlyMap<string, number>): number[] => {
    const named = (i: number) => chains.find(({ hook }) => hook === i)?.name ?? ''
    return Array.from({ length: HOOKS }, (_, i) => places.get(named(i)) ?? 0)
  }
  const entries = Buffer.concat([...parts, beginning(family, 'ERROR')])
  return { family, entries, hooks: ofHooks(begins), underflows: ofHooks(ends) }
}
