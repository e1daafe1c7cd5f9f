/** VIP records: the datapath answers echo requests to an address that has one. */
import t from 'tap'
import { LbServiceFlag } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { filterWords } from '../../src/maps/filter.ts'
import { serviceName, vipName } from '../../src/maps/names.ts'
import { findService, serviceSpot } from '../../src/maps/service-index.ts'
import { TableMaps } from '../../src/maps/table-maps.ts'
import type { ServiceKey, ServiceSpec } from '../../src/model/types.ts'
import { DyingHandles } from '../helpers/dying-handles.ts'
import { keyOf, memoryTable, seeded, serverOf, serviceOf } from '../helpers/table-specs.ts'
import type { MemoryTable } from '../helpers/table-specs.ts'

function at(address: string, port = 80, protocol: 'tcp' | 'udp' = 'tcp'): ServiceSpec {
  const family = address.includes(':') ? 6 : 4
  return { ...serviceOf(0), key: { kind: 'address', family, protocol, address, port } }
}

function byMark(mark: number, family: 4 | 6 = 4): ServiceSpec {
  return { ...serviceOf(0), key: { kind: 'fwmark', family, mark } }
}

/** What the datapath finds for an address: the count in its record, if packets find it; 0: nothing. */
function countOf({ maps }: Pick<MemoryTable, 'maps'>, address: string): number {
  const name = vipName(serviceName(at(address).key)) ?? ''
  const spot = serviceSpot(maps.handles, name)
  const entry = findService(maps, name, spot)
  if (entry === undefined || !entry.live) return 0
  const { services } = maps
  const word = filterWords(maps)[spot.filterBit >>> 5] ?? 0
  const passed = ((word >>> (spot.filterBit & 31)) & 1) !== 0
  const { id } = entry
  const plain = services.proto(id) === 0 && services.vport(id) === 0 && services.list(id) === 0
  return passed && plain && services.flags(id) === LbServiceFlag.SERVICE_VIP ? services.fwmark(id) : -1
}

t.test('an address has a record from its first service to its last, which counts them', async (t) => {
  const memory = memoryTable()
  const { table, handles } = memory
  const specs = [at('10.9.0.1'), at('10.9.0.1', 443), at('10.9.0.1', 80, 'udp')]
  t.equal(countOf(memory, '10.9.0.1'), 0)
  for (const [i, spec] of specs.entries()) {
    table.addService(spec)
    t.equal(countOf(memory, '10.9.0.1'), i + 1)
  }
  table.addService(at('fd00:9::1'))
  t.equal(countOf(memory, 'fd00:9::1'), 1)
  t.equal(countOf(memory, '10.9.0.2'), 0)
  t.same(checkTable(handles), [])
  for (const [i, { key }] of specs.entries()) {
    table.deleteService(key)
    t.equal(countOf(memory, '10.9.0.1'), 2 - i)
  }
  t.equal(countOf(memory, 'fd00:9::1'), 1)
  t.same(checkTable(handles), [])
})

t.test('a service that is kept for its removed servers has no part in its address', async (t) => {
  const memory = memoryTable()
  const { table, handles } = memory
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1))
  table.deleteService(keyOf(1))
  t.equal(countOf(memory, '10.9.0.1'), 0)
  t.same(checkTable(handles), [])
  table.addService(serviceOf(1))
  t.equal(countOf(memory, '10.9.0.1'), 1)
  t.same(checkTable(handles), [])
})

t.test('records are never listed, and go with clear()', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  const specs = [at('10.9.0.1'), at('10.9.0.1', 443), at('10.9.0.2'), byMark(7)]
  for (const spec of specs) table.addService(spec)
  t.same(
    table.services().map(({ key }) => key),
    specs.map(({ key }) => key),
  )
  t.equal(maps.book.services(0), 4)
  table.clear()
  t.same([countOf(memory, '10.9.0.1'), countOf(memory, '10.9.0.2')], [0, 0])
  t.same(table.services(), [])
  t.same(checkTable(handles), [])
})

t.test('apply() keeps the records of what it adds, leaves and removes', async (t) => {
  const memory = memoryTable()
  const { table, handles } = memory
  const want = (...specs: ServiceSpec[]): DesiredService[] => specs.map((service) => ({ service, servers: [] }))
  table.apply('manifest', want(at('10.9.0.1'), at('10.9.0.1', 443), at('10.9.0.2')))
  t.same([countOf(memory, '10.9.0.1'), countOf(memory, '10.9.0.2')], [2, 1])
  table.apply('kubernetes', want(at('10.9.0.2', 53, 'udp')))
  table.apply('manifest', want(at('10.9.0.1', 443)))
  t.same([countOf(memory, '10.9.0.1'), countOf(memory, '10.9.0.2')], [1, 1])
  t.same(checkTable(handles), [])
})

t.test('neither is a mark taken for an address of the same 32 bits, nor an address for a mark', async (t) => {
  // 10.9.0.1 in memory, read as a number; 1.0.0.0 whose record counts 1 and so looks like mark 1.
  const rows: readonly (readonly [address: string, mark: number])[] = [
    ['10.9.0.1', new Uint32Array(Uint8Array.of(10, 9, 0, 1).buffer)[0] ?? 0],
    ['1.0.0.0', new Uint32Array(Uint8Array.of(1, 0, 0, 0).buffer)[0] ?? 0],
    ['0.0.0.0', 1],
    ['::', 1],
  ]
  for (const [address, mark] of rows) {
    const family = address.includes(':') ? 6 : 4
    for (const first of ['address', 'mark'] as const) {
      const memory = memoryTable()
      const { table, handles } = memory
      const specs = [at(address), byMark(mark, family)]
      if (first === 'mark') specs.reverse()
      const [one, two] = specs
      if (one === undefined || two === undefined) throw new Error('two specs')
      table.addService(one)
      t.equal(table.service(two.key), undefined, `${address}, mark ${mark}: only the ${first} is there`)
      t.equal(countOf(memory, address), first === 'address' ? 1 : 0)
      table.addService(two)
      t.same(
        table.services().map(({ key }) => key),
        [one.key, two.key],
      )
      t.same(checkTable(handles), [])
      table.deleteService(one.key)
      t.equal(countOf(memory, address), first === 'address' ? 0 : 1)
      t.same(
        table.services().map(({ key }) => key),
        [two.key],
      )
      t.same(checkTable(handles), [])
    }
  }
})

t.test('where there is no id for the record the service is refused, and nothing is left of it', async (t) => {
  const { table, handles } = memoryTable({ services: 4 })
  table.addService(at('10.9.0.1'))
  t.throws(() => table.addService(at('10.9.0.2')), { code: 'TABLE_FULL' })
  t.same(checkTable(handles), [])
  table.addService(at('10.9.0.1', 443))
  t.same(checkTable(handles), [])
})

t.test('the record survives a filter computed anew', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  table.addService(at('10.9.0.1'))
  maps.book.setStaleBits(0, 5000)
  table.zero()
  t.equal(maps.book.staleBits(0), 0)
  t.equal(countOf(memory, '10.9.0.1'), 1)
  t.same(checkTable(handles), [])
})

t.test('a recovery keeps the records that are right, corrects counts, makes what lacks, drops the rest', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  const record = (address: string): { id: number; slot: number } => {
    const name = vipName(serviceName(at(address).key)) ?? ''
    return findService(maps, name, serviceSpot(handles, name)) ?? { id: 0, slot: 0 }
  }
  for (const n of [1, 2, 3, 4]) table.addService(at(`10.9.0.${n}`))
  const [right, wrong, lost] = [record('10.9.0.1'), record('10.9.0.2'), record('10.9.0.3')]
  maps.services.setFwmark(wrong.id, 9)
  maps.index.u64[lost.slot] = 0n
  const key: ServiceKey = at('10.9.0.4').key
  const spot = serviceSpot(handles, serviceName(key))
  maps.index.u64[findService(maps, serviceName(key), spot)?.slot ?? 0] = 0n
  t.not(checkTable(handles).length, 0)
  maps.book.setEditing(0, 1)
  table.zero()
  t.same(
    [1, 2, 3, 4].map((n) => countOf(memory, `10.9.0.${n}`)),
    [1, 1, 1, 0],
  )
  t.equal(record('10.9.0.1').id, right.id)
  t.equal(record('10.9.0.2').id, wrong.id)
  t.same(checkTable(handles), [])
})

t.test('the check tells of a record that is wrong', async (t) => {
  const rows: readonly (readonly [violation: RegExp, breakIt: (maps: TableMaps, id: number) => void])[] = [
    [/counts 3 services, not 1/, (maps, id) => maps.services.setFwmark(id, 3)],
    [/no VIP record/, (maps, id) => maps.services.clear(id)],
    [/VIP record \d+ has a list/, (maps, id) => maps.switchList(id, 9)],
    [
      /packets do not find VIP record/,
      (maps, id) => {
        maps.index.u64.forEach((slot, i) => {
          if (Number(slot & 0xffffffffn) === id) maps.index.u64[i] = 0n
        })
      },
    ],
    [
      /counts 1 services, not 0/,
      (maps, id) => {
        maps.services.vaddr(id)[3] = 77
      },
    ],
  ]
  for (const [violation, breakIt] of rows) {
    const { table, maps, handles } = memoryTable()
    table.addService(at('10.9.0.1'))
    const name = vipName(serviceName(at('10.9.0.1').key)) ?? ''
    breakIt(maps, findService(maps, name, serviceSpot(handles, name))?.id ?? 0)
    t.match(checkTable(handles).join('; '), violation)
  }
})

t.test('counts stay right over random edits, refusals and deaths of writers', async (t) => {
  const random = seeded(9)
  const handles = new DyingHandles({ services: 24, lines: 2 })
  const memory = { table: new KernelTable(handles), maps: new TableMaps(handles) }
  const { table } = memory
  const spec = (): ServiceSpec => at(`10.9.0.${random(4)}`, 80 + random(4))
  const outcomes = { done: 0, refused: 0, died: 0 }
  for (let i = 0; i < 1500; i++) {
    handles.left = random(3) === 0 ? random(5) : Number.POSITIVE_INFINITY
    try {
      switch (random(5)) {
        case 0:
        case 1:
          table.addService(spec())
          break
        case 2:
          table.deleteService(spec().key)
          break
        case 3:
          table.addServer(spec().key, serverOf(random(5)))
          break
        default:
          table.apply('manifest', [{ service: spec(), servers: [serverOf(1)] }])
      }
      outcomes.done++
    } catch (error) {
      if (error instanceof Error && error.message === 'killed') outcomes.died++
      else outcomes.refused++
    }
    handles.left = Number.POSITIVE_INFINITY
    handles.nowS += random(60)
    table.zero()
    const problems = checkTable(handles)
    if (problems.length > 0) {
      t.same(problems, [], `edit ${i}`)
      return
    }
  }
  t.ok(outcomes.done > 300 && outcomes.refused > 100 && outcomes.died > 100, JSON.stringify(outcomes))
  for (let n = 0; n < 4; n++) {
    const due = table.services().filter(({ key }) => key.kind === 'address' && key.address === `10.9.0.${n}`).length
    t.equal(countOf(memory, `10.9.0.${n}`), due)
  }
})
