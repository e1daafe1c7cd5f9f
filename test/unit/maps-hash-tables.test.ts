import { createHash } from 'node:crypto'
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { fillByWeight, fillInTurn, fillMaglev, foldAddress } from '../../src/maps/buckets.ts'
import { hsiphash } from '../../src/maps/hsiphash.ts'
import type { TableMaps } from '../../src/maps/table-maps.ts'
import { LbError } from '../../src/model/errors.ts'
import { writeAddress } from '../../src/model/address.ts'
import type { Scheduler } from '../../src/model/types.ts'
import { keyOf, memoryTable, serverOf, serviceOf } from '../helpers/table-specs.ts'

function keyOfEnd(address: string, port: number, family: 4 | 6 = 4): number {
  const bytes = new DataView(new ArrayBuffer(16))
  writeAddress(new Uint8Array(bytes.buffer), 0, address, family)
  return (foldAddress(bytes, 0, family) + port) >>> 0
}

/** The first buckets, how many each server has, and a digest of all. */
function describe(buckets: Uint16Array, servers: number): { first: string; shares: number[]; digest: string } {
  const shares = new Array<number>(servers).fill(0)
  for (const server of buckets) shares[server] = (shares[server] ?? 0) + 1
  const digest = createHash('sha256').update(buckets).digest('hex').slice(0, 16)
  return { first: buckets.subarray(0, 24).join(' '), shares, digest }
}

t.test('hsiphash: SipHash-1-3 of four bytes, folded', async (t) => {
  for (const [value, one, other] of [
    [0, 492468162, 4169286463],
    [1, 384591538, 2182130385],
    [0xdeadbeef, 4127575327, 937261950],
    [0xffffffff, 583391001, 4149874525],
    [0x0a02005b, 3532968564, 4290945822],
  ] as const) {
    t.equal(hsiphash(value, 2654435761), one)
    t.equal(hsiphash(value, 2654446892), other)
  }
})

t.test('an address is hashed as its words folded, an IPv6 one of a service over IPv4 as its first word', async (t) => {
  t.equal(keyOfEnd('10.2.0.11', 0), 0x0a02000b)
  t.equal(keyOfEnd('fd00:2::11', 0, 6), 0xfd000013)
  t.equal(keyOfEnd('255.255.255.255', 2), 1, 'a port is added in 32 bits')
  const six = new DataView(new ArrayBuffer(16))
  writeAddress(new Uint8Array(six.buffer), 0, 'fd00:2::11', 6)
  t.equal(foldAddress(six, 0, 4), 0xfd000002)
})

t.test("mh: the kernel's table of 4,093 buckets", async (t) => {
  const rows = [
    ['1 1 1', '1 1 0 2 2 0 2 2 2 0 0 1 0 1 0 2 2 2 2 0 2 1 0 1', [1365, 1364, 1364], 'b40c7dfe1fe82a14'],
    ['1 2 4', '1 1 2 2 2 2 2 2 2 2 0 1 2 1 0 2 2 2 2 2 2 1 2 1', [585, 1170, 2338], '1881bf5819890864'],
    ['5 0 3', '0 0 0 2 2 0 2 2 0 0 0 0 0 0 0 2 2 2 0 0 2 2 0 0', [2560, 0, 1533], 'e7edc2a1a1a5d76c'],
    ['65535 1 32768', '0 0 0 2 2 0 2 2 0 0 0 0 0 0 0 2 2 2 0 0 2 0 0 0', [2707, 42, 1344], 'bdd4a21ca2090913'],
    ['100 1000 1050', '1 1 2 2 2 2 2 2 2 1 0 1 2 1 1 2 2 2 2 1 2 1 2 1', [192, 1906, 1995], '7f1cfa669cefebd1'],
  ] as const
  for (const [weights, first, shares, digest] of rows) {
    const buckets = new Uint16Array(4093)
    const servers = weights.split(' ').map((weight, i) => ({
      key: keyOfEnd(`10.2.0.${11 + i}`, 80),
      weight: Number(weight),
    }))
    fillMaglev(buckets, servers)
    t.same(describe(buckets, 3), { first, shares, digest }, `weights ${weights}`)
  }
})

t.test('mh: five servers over IPv6, and as many servers as there are buckets', async (t) => {
  const buckets = new Uint16Array(4093)
  fillMaglev(
    buckets,
    [1, 2, 3, 4, 5].map((weight) => ({ key: keyOfEnd(`fd00:2::${10 + weight}`, 8080, 6), weight })),
  )
  t.same(describe(buckets, 5), {
    first: '4 2 4 1 3 4 2 2 1 3 3 4 0 2 3 3 4 3 4 3 1 4 3 4',
    shares: [273, 546, 819, 1092, 1363],
    digest: '90bc7a05735a6b4f',
  })
  const many = Array.from({ length: 4093 }, (_, i) => ({
    key: keyOfEnd(`10.2.${Math.floor(i / 250)}.${(i % 250) + 1}`, 80),
    weight: 1,
  }))
  fillMaglev(buckets, many)
  const { first, digest } = describe(buckets, 4093)
  t.equal(first.slice(0, 29), '894 1908 3401 2532 419 3087 1')
  t.equal(digest, 'ea97f1f92f67de89')
})

t.test('mh: without any weight the first server stands in every bucket', async (t) => {
  const buckets = new Uint16Array(4093).fill(7)
  fillMaglev(buckets, [
    { key: 1, weight: 0 },
    { key: 2, weight: 0 },
  ])
  t.ok(buckets.every((server) => server === 0))
})

t.test('sh: as many buckets in a row as the weight says, one for a weight of 0; dh: one each', async (t) => {
  const buckets = new Uint16Array(256)
  fillByWeight(buckets, [3, 0, 2])
  t.same(describe(buckets, 3), {
    first: '0 0 0 1 2 2 0 0 0 1 2 2 0 0 0 1 2 2 0 0 0 1 2 2',
    shares: [129, 43, 84],
    digest: '197027436b3f55c7',
  })
  fillByWeight(buckets, [65535, 1, 32768])
  t.same(describe(buckets, 3).shares, [256, 0, 0])
  fillByWeight(
    buckets,
    Array.from({ length: 300 }, () => 1),
  )
  t.equal(describe(buckets, 300).digest, 'd93bf0591d37628e')
  fillInTurn(buckets, 3)
  t.same(describe(buckets, 3), {
    first: '0 1 2 0 1 2 0 1 2 0 1 2 0 1 2 0 1 2 0 1 2 0 1 2',
    shares: [86, 85, 85],
    digest: 'b6a41f124b7f9a5f',
  })
})

/** The buckets in force of service `id`; undefined: it has none. */
function bucketsOf(maps: TableMaps, id: number, count: number): number[] | undefined {
  const table = maps.cells.listTable(maps.services.list(id))
  return table === 0
    ? undefined
    : Array.from({ length: count }, (_, i) => maps.cells.bucket(table + Math.floor(i / 16), i % 16))
}

t.test('a service has a table while its scheduler wants one and it has servers', async (t) => {
  const { table, maps, handles } = memoryTable()
  table.addService(serviceOf(1, 'sh'))
  t.equal(bucketsOf(maps, 1, 256), undefined, 'no servers, no table')
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n, n))
  t.same(bucketsOf(maps, 1, 7), [0, 0, 0, 1, 1, 2, 0], 'the newest server first')
  table.editServer(keyOf(1), serverOf(3, 1))
  t.same(bucketsOf(maps, 1, 7), [0, 1, 1, 2, 0, 1, 1])
  table.editService(serviceOf(1, 'dh'))
  t.same(bucketsOf(maps, 1, 4), [0, 1, 2, 0])
  table.editService(serviceOf(1, 'rr'))
  t.equal(bucketsOf(maps, 1, 4), undefined)
  table.editService(serviceOf(1, 'mh'))
  t.same(
    bucketsOf(maps, 1, 4093)?.filter((server) => server > 2),
    [],
  )
  t.same(checkTable(handles), [])
})

t.test("mh: weight 0 leaves a server's buckets to it, unless it was added with that", async (t) => {
  const { table, maps } = memoryTable()
  table.addService(serviceOf(1, 'mh'))
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n, n))
  const before = bucketsOf(maps, 1, 4093)
  table.editServer(keyOf(1), serverOf(2, 0))
  t.same(bucketsOf(maps, 1, 4093), before)
  table.deleteServer(keyOf(1), serverOf(2))
  table.addServer(keyOf(1), serverOf(2, 0))
  t.notOk(bucketsOf(maps, 1, 4093)?.includes(0), 'it is the first of the list')
})

function large(scheduler: Scheduler, servers: number): ReturnType<typeof memoryTable> {
  const memory = memoryTable({ servers: 8192, cells: 8192 })
  const wanted = Array.from({ length: servers }, (_, i) => serverOf(i + 1))
  memory.table.apply('command', [{ service: serviceOf(1, scheduler), servers: wanted }])
  return memory
}

t.test('mh: with more servers than buckets the newest get none, and the others keep theirs', async (t) => {
  const { table, maps, handles } = large('mh', 4093)
  const before = bucketsOf(maps, 1, 4093)
  t.equal(new Set(before).size, 4093)
  table.addServer(keyOf(1), serverOf(5000))
  table.addServer(keyOf(1), serverOf(5001, 7))
  t.same(
    bucketsOf(maps, 1, 4093),
    before?.map((server) => server + 2),
  )
  t.same(checkTable(handles), [])
})

t.test('mh: is refused to a service that has more servers than buckets, and nothing changes', async (t) => {
  const { table, handles } = large('rr', 4094)
  t.throws(() => table.editService(serviceOf(1, 'mh')), new LbError('INVALID'))
  t.equal(table.service(keyOf(1))?.scheduler, 'rr')
  t.same(checkTable(handles), [])
  table.deleteServer(keyOf(1), serverOf(9))
  table.editService(serviceOf(1, 'mh'))
  t.same(checkTable(handles), [])
})

t.test('lists and tables are moved together when there is no other room, and say the same afterwards', async (t) => {
  const { table, maps, handles } = memoryTable({ cells: 1024, services: 512 })
  const numbers = Array.from({ length: 44 }, (_, i) => i + 1)
  const stay = numbers.filter((n) => n % 4 === 0)
  const wanted = (which: readonly number[]) =>
    which.map((n) => ({ service: serviceOf(n, 'sh'), servers: [1, 2, 3].map((s) => serverOf(s, n * s)) }))
  table.apply('command', wanted(numbers))
  table.apply('command', wanted(stay))
  const idOf = (n: number): number => table.service(keyOf(n))?.id ?? 0
  const where = (): number[] => stay.map((n) => maps.cells.listTable(maps.services.list(idOf(n))))
  const before = stay.map((n) => bucketsOf(maps, idOf(n), 256))
  const places = where()
  table.addService(serviceOf(500, 'mh'))
  table.addServer(keyOf(500), serverOf(1))
  table.addServer(keyOf(500), serverOf(2))
  t.notSame(where(), places, 'a table was moved')
  t.same(
    stay.map((n) => bucketsOf(maps, idOf(n), 256)),
    before,
  )
  t.same(checkTable(handles), [])
})

t.test('a table that does not fit is refused, and the list in force stays', async (t) => {
  const { table, maps, handles } = memoryTable({ cells: 256 })
  table.addService(serviceOf(1, 'sh'))
  table.addServer(keyOf(1), serverOf(1))
  const before = maps.services.list(1)
  t.throws(() => table.editService(serviceOf(1, 'mh')), new LbError('TABLE_FULL'))
  t.equal(table.service(keyOf(1))?.scheduler, 'sh')
  t.equal(bucketsOf(maps, 1, 256)?.length, 256)
  t.ok(before > 0)
  t.same(checkTable(handles), [])
})

t.test('the check finds a wrong bucket, a recovery puts it right', async (t) => {
  const { table, maps, handles } = memoryTable()
  table.addService(serviceOf(1, 'mh'))
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n, n))
  const before = bucketsOf(maps, 1, 4093)
  maps.cells.setBucket(maps.cells.listTable(maps.services.list(1)), 3, 9)
  t.match(checkTable(handles), [/its table is not what its servers say/])
  maps.servers.setWeight(1, 77) /* as an edit leaves it that dies before the switch */
  maps.book.setEditing(0, 1)
  table.zero()
  t.same(checkTable(handles), [])
  t.same(bucketsOf(maps, 1, 4093), before)
})
