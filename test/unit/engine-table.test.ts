import t from 'tap'
import { LbConfigArray, LbFeature, LbServerStateFlag } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { filterWords } from '../../src/maps/filter.ts'
import { readVerdicts } from '../../src/maps/verdicts.ts'
import { LbError } from '../../src/model/errors.ts'
import type { ErrorCode } from '../../src/model/errors.ts'
import type { Scheduler, ServerSpec, ServiceKey, ServiceSpec } from '../../src/model/types.ts'
import { idOf, keyOf, memoryTable, numberOf, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'

function refusal(edit: () => void): ErrorCode | undefined {
  try {
    edit()
  } catch (error) {
    if (error instanceof LbError) return error.code
    throw error
  }
  return undefined
}

t.test('a new server goes to the head of the list and keeps its id', async (t) => {
  const { table } = memoryTable()
  table.addService(serviceOf(1))
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n, n))
  t.same(serversOf(table, 1).map(numberOf), [3, 2, 1])
  const id = idOf(table, 1, 2)
  table.deleteServer(keyOf(1), serverOf(3))
  table.addServer(keyOf(1), serverOf(4))
  t.same(serversOf(table, 1).map(numberOf), [4, 2, 1])
  t.equal(idOf(table, 1, 2), id)
})

t.test('what was asked for is what the table shows', async (t) => {
  const { table } = memoryTable()
  const service: ServiceSpec = {
    key: { kind: 'address', family: 6, protocol: 'udp', address: 'fd00:9::1', port: 53 },
    scheduler: 'wlc',
    schedulerFlags: [1, 3],
    persistence: { timeoutS: 300, mask: 64 },
    onePacket: true,
  }
  const server: ServerSpec = {
    family: 6,
    address: 'fd00:2::1',
    port: 53,
    weight: 7,
    method: 'tunnel',
    upper: 20,
    lower: 10,
    tunnel: { type: 'gue', port: 6080, checksum: 'remcsum' },
  }
  table.addService(service, 'kubernetes')
  table.addServer(service.key, server)
  const zero = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }
  t.strictSame(table.service(service.key), {
    ...service,
    id: 1,
    source: 'kubernetes',
    counters: zero,
    rates: zero,
    servers: [{ ...server, id: 1, active: 0, inactive: 0, persistent: 0, counters: zero, rates: zero }],
  })
})

t.test('a persistence mask of IPv4 is kept as written', async (t) => {
  const { table } = memoryTable()
  const spec = { ...serviceOf(1), persistence: { timeoutS: 60, mask: '255.0.255.1' } }
  table.addService(spec)
  t.same(table.service(keyOf(1))?.persistence, spec.persistence)
  table.editService(serviceOf(1))
  t.equal(table.service(keyOf(1))?.persistence, undefined)
})

t.test('a link-local address is a server only if it is the host itself, or comes back', async (t) => {
  const { table, handles } = memoryTable()
  const key: ServiceKey = { kind: 'address', family: 6, protocol: 'tcp', address: 'fd00:9::1', port: 80 }
  const server: ServerSpec = { ...key, address: 'fe80::1', weight: 1, method: 'masq', upper: 0, lower: 0 }
  table.addService({ key, scheduler: 'rr', schedulerFlags: [], onePacket: false })
  t.throws(() => table.addServer(key, server), { code: 'INVALID' })
  t.throws(() => table.addServer(key, { ...server, lower: 1 }), { code: 'RANGE' }, 'thresholds are told before')
  handles.localAddresses.add('fe80::1')
  table.addServer(key, server)
  t.throws(() => table.addServer(key, server), { code: 'SERVER_EXISTS' })
  handles.localAddresses.clear()
  table.editServer(key, { ...server, weight: 3 })
  t.equal(table.service(key)?.servers[0]?.weight, 3, 'an edit asks no more')
})

t.test('services by firewall mark are told apart by mark and family', async (t) => {
  const { table, maps, handles } = memoryTable()
  for (const [family, mark] of [
    [4, 7],
    [6, 7],
    [4, 0xffffffff],
  ] as const) {
    table.addService({ ...serviceOf(0), key: { kind: 'fwmark', family, mark } })
  }
  t.same(
    table.services().map(({ key }) => key),
    [
      { kind: 'fwmark', family: 4, mark: 7 },
      { kind: 'fwmark', family: 6, mark: 7 },
      { kind: 'fwmark', family: 4, mark: 0xffffffff },
    ],
  )
  t.equal(maps.config.features(0), 1)
  t.same(checkTable(handles), [])
  table.clear()
  t.equal(maps.config.features(0), 0)
})

t.test("a service of TCP at FTP's port is announced to packets, of UDP it is not", async (t) => {
  const { table, maps, handles } = memoryTable()
  const at = (protocol: 'tcp' | 'udp', address: string) =>
    ({ kind: 'address', family: 4, protocol, address, port: 21 }) as const
  table.addService({ ...serviceOf(0), key: at('udp', '10.0.0.1') })
  t.equal(maps.config.features(0), 0)
  for (const address of ['10.0.0.1', '10.0.0.2']) table.addService({ ...serviceOf(0), key: at('tcp', address) })
  t.equal(maps.config.features(0), LbFeature.FEATURE_FTP)
  t.same(checkTable(handles), [], 'the filter has its bits')
  table.deleteService(at('tcp', '10.0.0.1'))
  t.equal(maps.config.features(0), LbFeature.FEATURE_FTP)
  table.deleteService(at('tcp', '10.0.0.2'))
  t.equal(maps.config.features(0), 0)
})

t.test('servers in tunnels are told of before packets find them, and no others', async (t) => {
  const { table, handles } = memoryTable()
  const tunnel = { method: 'tunnel', tunnel: { type: 'ipip', port: 0, checksum: 'none' } } as const
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1))
  t.equal(handles.tunnelEnds.size, 0)
  table.addServer(keyOf(1), { ...serverOf(2), ...tunnel })
  t.same([...handles.tunnelEnds], [serverOf(2).address])
  table.addServer(keyOf(1), { ...serverOf(3), ...tunnel })
  const both = [serverOf(2).address, serverOf(3).address]
  t.same([...handles.tunnelEnds], both)
  handles.tunnelEnds.add('10.99.99.99')
  table.refreshSources()
  t.same([...handles.tunnelEnds], both, 'those that are needed')
})

t.test('each refusal has its code and changes nothing', async (t) => {
  const { table, handles } = memoryTable()
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1))
  const before = table.services()
  const generation = table.generation()
  const rows: readonly (readonly [what: string, code: ErrorCode, edit: () => void])[] = [
    ['service twice', 'SERVICE_EXISTS', () => table.addService(serviceOf(1))],
    ['edit of no service', 'NO_SERVICE', () => table.editService(serviceOf(2))],
    ['delete of no service', 'NO_SERVICE', () => table.deleteService(keyOf(2))],
    ['zero of no service', 'NO_SERVICE', () => table.zero(keyOf(2))],
    ['scheduler that is not there', 'NO_SCHEDULER', () => table.addService(serviceOf(2, 'nosuch' as Scheduler))],
    ['port 0 without persistence', 'INVALID', () => table.addService({ ...serviceOf(2), key: keyOf(2, 0) })],
    ['port too great', 'INVALID', () => table.addService({ ...serviceOf(2), key: keyOf(2, 65536) })],
    ['mark 0', 'INVALID', () => table.addService({ ...serviceOf(2), key: { kind: 'fwmark', family: 4, mark: 0 } })],
    ['server of no service', 'SERVICE_NOT_DEFINED', () => table.addServer(keyOf(2), serverOf(1))],
    ['server twice', 'SERVER_EXISTS', () => table.addServer(keyOf(1), serverOf(1))],
    ['edit of no server', 'NO_SERVER', () => table.editServer(keyOf(1), serverOf(2))],
    ['delete of no server', 'NO_SERVER', () => table.deleteServer(keyOf(1), serverOf(2))],
    ['weight below 0', 'RANGE', () => table.addServer(keyOf(1), serverOf(2, -1))],
    ['weight too great', 'RANGE', () => table.addServer(keyOf(1), serverOf(2, 2 ** 31))],
    ['lower above upper', 'RANGE', () => table.addServer(keyOf(1), serverOf(2, 1, { upper: 5, lower: 10 }))],
    ['lower alone', 'RANGE', () => table.editServer(keyOf(1), serverOf(1, 1, { lower: 1 }))],
    ['multicast server', 'INVALID', () => table.addServer(keyOf(1), serverOf(2, 1, { address: '224.0.0.1' }))],
    [
      'server of another family',
      'INVALID',
      () => table.addServer(keyOf(1), serverOf(2, 1, { family: 6, address: 'fd00::1' })),
    ],
    ['no address', 'INVALID', () => table.addServer(keyOf(1), serverOf(2, 1, { address: 'x' }))],
    ['timeout above 31 days', 'INVALID', () => table.setTimeouts({ tcpS: 2678401, tcpFinS: 1, udpS: 1 })],
  ]
  for (const [what, code, edit] of rows) t.equal(refusal(edit), code, what)
  t.same(table.services(), before)
  t.equal(table.generation(), generation)
  t.same(checkTable(handles), [])
})

t.test('every edit raises the generation by one, whatever it touches', async (t) => {
  const { table } = memoryTable()
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1))
  table.editServer(keyOf(1), serverOf(1, 5))
  table.deleteServer(keyOf(1), serverOf(1))
  table.zero()
  table.clear()
  t.equal(table.generation(), 6n)
})

t.test("the port of a server that is not behind NAT is the service's", async (t) => {
  const { table } = memoryTable()
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1, 1, { method: 'droute' }))
  table.addServer(keyOf(1), serverOf(2, 1, { method: 'tunnel' }))
  t.same(
    serversOf(table, 1).map(({ port }) => port),
    [80, 80],
  )
  t.equal(
    refusal(() => table.editServer(keyOf(1), serverOf(1, 3, { method: 'droute' }))),
    undefined,
  )
})

t.test('another forwarding method leaves the server the one that it was, with its connections', async (t) => {
  const { table, maps } = memoryTable()
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1, 1, { port: 80 }))
  const id = idOf(table, 1, 1)
  maps.serverStates.setActive(id, 3)
  for (const method of ['droute', 'tunnel', 'masq'] as const) {
    table.editServer(keyOf(1), serverOf(1, 1, { port: 80, method }))
    t.match(serversOf(table, 1), [{ id, method, port: 80, active: 3 }])
  }
})

t.test('--set changes three timeouts, and 0 keeps one', async (t) => {
  const { table, handles } = memoryTable()
  table.setTimeouts({ tcpS: 10, tcpFinS: 20, udpS: 30 })
  table.setTimeouts({ tcpS: 0, tcpFinS: 25, udpS: 0 })
  t.same(table.timeouts(), { tcpS: 10, tcpFinS: 25, udpS: 30 })
  const config = new LbConfigArray(handles.buffer('lb_config'))
  t.same([config.timeout(0, 1), config.timeout(0, 4), config.timeout(0, 11)], [10, 25, 30])
})

t.test('an edit compares the connections with the thresholds; between them an overload stays as it was', async (t) => {
  const rows = [
    // Connections, upper and lower threshold given, overloaded afterwards if it was, and if it was not.
    [5, 5, 0, true, true],
    [5, 4, 0, true, true],
    [5, 6, 0, true, false],
    [5, 7, 0, false, false],
    [5, 8, 0, false, false],
    [5, 0, 0, false, false],
    [5, 8, 5, true, false],
    [5, 8, 6, false, false],
    [5, 6, 6, false, false],
    [0, 1, 0, false, false],
  ] as const
  const { table, maps } = memoryTable()
  table.addService(serviceOf(1))
  table.addServer(keyOf(1), serverOf(1, 1, { upper: 5 }))
  const id = idOf(table, 1, 1)
  for (const [connections, upper, lower, after, otherwise] of rows) {
    for (const before of [true, false]) {
      maps.serverStates.setActive(id, connections - 1)
      maps.serverStates.setInactive(id, 1)
      if (connections === 0) maps.serverStates.clear(id)
      maps.setOverloaded(id, before)
      table.editServer(keyOf(1), serverOf(1, 1, { upper, lower }))
      const overloaded = (maps.serverStates.flags(id) & LbServerStateFlag.SERVER_OVERLOAD) !== 0
      const what = `${connections} connections, -x ${upper} -y ${lower}, ${before ? '' : 'not '}overloaded before`
      t.equal(overloaded, before ? after : otherwise, what)
    }
  }
})

t.test(
  'the last weight is the last that an edit set above 0, or the one given when the server was added',
  async (t) => {
    const { table, maps } = memoryTable()
    table.addService(serviceOf(1))
    table.addServer(keyOf(1), serverOf(1, 4))
    const id = idOf(table, 1, 1)
    table.editServer(keyOf(1), serverOf(1, 0))
    t.equal(maps.servers.lastWeight(id), 4)
    table.deleteServer(keyOf(1), serverOf(1))
    table.addServer(keyOf(1), serverOf(1, 0))
    t.equal(maps.servers.lastWeight(id), 0)
  },
)

t.test('a second handle on the same table sees every edit at once', async (t) => {
  const { table, handles } = memoryTable()
  const other = new KernelTable(handles)
  table.addService(serviceOf(1))
  other.addServer(keyOf(1), serverOf(1))
  t.same(serversOf(table, 1).map(numberOf), [1])
  other.deleteService(keyOf(1))
  t.equal(table.service(keyOf(1)), undefined)
})

t.test('the filter is computed anew when too much of it is stale, and loses no bit that is needed', async (t) => {
  const { table, handles, maps } = memoryTable({ filterBits: 1 << 20 })
  const bits = (): number =>
    filterWords(maps).reduce((sum, word) => sum + word.toString(2).replaceAll('0', '').length, 0)
  table.addService(serviceOf(0))
  table.addServer(keyOf(0), serverOf(0))
  for (let i = 1; i <= 400; i++) {
    table.addService(serviceOf(i))
    table.deleteService(keyOf(i))
  }
  t.ok(bits() > 700, 'a single edit does not pay for it')
  for (let i = 401; maps.book.staleBits(0) > 0 && i < 2000; i++) {
    table.addService(serviceOf(i))
    table.deleteService(keyOf(i))
  }
  t.equal(maps.book.staleBits(0), 0)
  t.equal(bits(), 3, 'of the service, its address and its server')
  t.same(checkTable(handles), [])
})

t.test('verdicts are summed over all lanes', async (t) => {
  const { handles } = memoryTable({ lanes: 2 })
  const counts = new BigUint64Array(handles.buffer('lb_verdicts'))
  counts[1] = 5n
  counts[64 + 1] = 7n
  const verdicts = readVerdicts(handles)
  t.equal(verdicts.get('REFUSE_NO_SERVER'), 12n)
  t.equal(verdicts.get('DROP_MALFORMED'), 0n)
})

t.test('a table that is full refuses more services and servers, and goes on when some are removed', async (t) => {
  const { table, handles } = memoryTable({ services: 9, servers: 5, lines: 16 }) // each with an id for its address
  for (const n of [1, 2, 3, 4]) table.addService(serviceOf(n))
  t.equal(
    refusal(() => table.addService(serviceOf(5))),
    'TABLE_FULL',
  )
  for (const n of [1, 2, 3, 4]) table.addServer(keyOf(1), serverOf(n))
  t.equal(
    refusal(() => table.addServer(keyOf(2), serverOf(5))),
    'TABLE_FULL',
  )
  t.same(checkTable(handles), [])
  table.deleteServer(keyOf(1), serverOf(2))
  t.equal(
    refusal(() => table.addServer(keyOf(2), serverOf(5))),
    undefined,
  )
  table.deleteService(keyOf(4))
  t.equal(
    refusal(() => table.addService(serviceOf(5))),
    undefined,
  )
  t.same(checkTable(handles), [])
})
