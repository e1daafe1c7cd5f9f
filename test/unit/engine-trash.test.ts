import t from 'tap'
import { LbServerFlag, LbServerStateFlag } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import { idOf, keyOf, memoryTable, numberOf, serverOf, serversOf, serviceOf } from '../helpers/table-specs.ts'
import type { MemoryTable } from '../helpers/table-specs.ts'

/** Service 1 with servers 1, 2, 3, the head being 3. */
function threeServers(scheduler: 'rr' | 'wrr' = 'rr'): MemoryTable {
  const memory = memoryTable()
  memory.table.addService(serviceOf(1, scheduler))
  for (const n of [1, 2, 3]) memory.table.addServer(keyOf(1), serverOf(n))
  return memory
}

t.test('a removed server that comes back within 120 s is the same one, at the head', async (t) => {
  const { table, maps, handles } = threeServers()
  const id = idOf(table, 1, 2)
  maps.stats.setConns(id, 9n)
  table.editServer(keyOf(1), serverOf(2, 1, { upper: 4 }))
  table.deleteServer(keyOf(1), serverOf(2))
  t.equal(maps.servers.flags(id) & LbServerFlag.SERVER_AVAILABLE, 0)
  t.equal(maps.servers.before(id), idOf(table, 1, 3))
  handles.nowS += 119
  maps.serverStates.setInactive(id, 3)
  maps.setOverloaded(id, true)
  table.addServer(keyOf(1), serverOf(2, 7, { upper: 4 }))
  t.same(serversOf(table, 1).map(numberOf), [2, 3, 1])
  const [server] = serversOf(table, 1)
  t.match(server, { id, weight: 7, upper: 4, counters: { conns: 9n } })
  t.equal(maps.serverStates.flags(id), LbServerStateFlag.SERVER_OVERLOAD, 'its overload stays')
  t.same(checkTable(handles), [])
})

t.test('after 120 s without connections it is another one, and what it counted stays with the service', async (t) => {
  const { table, maps, handles } = threeServers()
  const id = idOf(table, 1, 2)
  maps.stats.setConns(id, 9n)
  maps.stats.setInBytes(maps.serverMax + id, 1000n)
  table.deleteServer(keyOf(1), serverOf(2))
  t.match(table.service(keyOf(1))?.counters, { conns: 9n, inBytes: 1000n })
  handles.nowS += 120
  table.addServer(keyOf(1), serverOf(2))
  t.match(serversOf(table, 1)[0]?.counters, { conns: 0n, inBytes: 0n })
  t.match(table.service(keyOf(1))?.counters, { conns: 9n, inBytes: 1000n })
  t.same(checkTable(handles), [])
})

t.test('as long as connections refer to a removed server its id is not used again', async (t) => {
  const { table, maps, handles } = threeServers()
  const id = idOf(table, 1, 2)
  maps.serverStates.setInactive(id, 1)
  table.deleteServer(keyOf(1), serverOf(2))
  handles.nowS += 1000
  table.addServer(keyOf(1), serverOf(4))
  t.not(idOf(table, 1, 4), id)
  t.equal(numberOf({ address: [...maps.servers.addr(id).subarray(0, 4)].join('.') }), 2)
  maps.serverStates.setInactive(id, 0)
  handles.nowS += 119
  table.addServer(keyOf(1), serverOf(2))
  t.equal(idOf(table, 1, 2), id, 'the 120 s begin when the last reference was seen')
})

t.test('a service made anew under its name gets its servers back, with their counts, and counts from 0', async (t) => {
  const { table, maps, handles } = threeServers()
  const service = table.service(keyOf(1))?.id
  const id = idOf(table, 1, 2)
  maps.serverStates.setActive(id, 3)
  maps.stats.setConns(id, 9n)
  table.deleteService(keyOf(1))
  t.equal(table.service(keyOf(1)), undefined)
  t.same(checkTable(handles), [])
  handles.nowS += 500
  table.addService(serviceOf(1, 'wlc'))
  t.equal(table.service(keyOf(1))?.id, service)
  table.addServer(keyOf(1), serverOf(2))
  t.match(serversOf(table, 1)[0], { id, active: 3, counters: { conns: 0n } })
  t.equal(table.service(keyOf(1))?.counters.conns, 0n)
  t.same(checkTable(handles), [])
})

// Seen in the kernel's listing; __ip_vs_update_dest() zeroes the counters if the service is another object.
t.test(
  "a server's counters survive -d and -a, and begin at 0 after -D and -A; its connections survive both",
  async (t) => {
    const { table, maps } = threeServers()
    const id = idOf(table, 1, 2)
    const seen = (): unknown => {
      const service = table.service(keyOf(1))
      const server = service?.servers.find((view) => view.id === id)
      return [service?.counters.inPkts, server?.counters.inPkts, server?.active, server?.inactive]
    }
    maps.stats.setInPkts(id, 13n)
    maps.serverStates.setActive(id, 2)
    maps.serverStates.setInactive(id, 1)
    t.same(seen(), [13n, 13n, 2, 1])
    table.deleteServer(keyOf(1), serverOf(2))
    t.same(seen(), [13n, undefined, undefined, undefined])
    table.addServer(keyOf(1), serverOf(2))
    t.same(seen(), [13n, 13n, 2, 1])
    table.deleteService(keyOf(1))
    table.addService(serviceOf(1))
    t.same(seen(), [0n, undefined, undefined, undefined])
    table.addServer(keyOf(1), serverOf(2))
    t.same(seen(), [0n, 0n, 2, 1])
    maps.stats.setInPkts(id, 19n)
    t.same(seen(), [6n, 6n, 2, 1])
    table.deleteServer(keyOf(1), serverOf(2))
    table.addServer(keyOf(1), serverOf(2))
    t.same(seen(), [6n, 6n, 2, 1], 'the service is the same one this time')
  },
)

t.test(
  'a deleted service of which nothing is left is freed, but its id is not used before a grace period',
  async (t) => {
    const { table, maps, handles } = threeServers()
    table.deleteService(keyOf(1))
    handles.nowS += 120
    table.addService(serviceOf(2))
    t.equal(table.service(keyOf(2))?.id, 3, 'programs may still use the first id')
    t.equal(maps.services.af(1), 0)
    t.equal(maps.book.trashed(0), 0)
    t.same(checkTable(handles), [])
  },
)

t.test('zeroing makes a service, its servers and its removed servers read 0 and touches no counter', async (t) => {
  const { table, maps } = threeServers()
  for (const n of [1, 2, 3]) maps.stats.setOutPkts(idOf(table, 1, n), 10n)
  const id = idOf(table, 1, 2)
  table.deleteServer(keyOf(1), serverOf(2))
  t.equal(table.service(keyOf(1))?.counters.outPkts, 30n)
  table.zero(keyOf(1))
  t.equal(table.service(keyOf(1))?.counters.outPkts, 0n)
  t.same(
    serversOf(table, 1).map(({ counters }) => counters.outPkts),
    [0n, 0n],
  )
  t.equal(maps.stats.outPkts(id), 10n)
  maps.stats.setOutPkts(id, 12n)
  t.equal(table.service(keyOf(1))?.counters.outPkts, 2n)
})

t.test('a server removed from a service does not come back in another', async (t) => {
  const { table } = threeServers()
  const id = idOf(table, 1, 2)
  table.deleteServer(keyOf(1), serverOf(2))
  table.addService(serviceOf(2))
  table.addServer(keyOf(2), serverOf(2))
  t.not(idOf(table, 2, 2), id)
})

t.test('removed servers give way when ids run out, but not those with connections', async (t) => {
  const { table, maps, handles } = memoryTable({ servers: 4 })
  table.addService(serviceOf(1))
  for (const n of [1, 2, 3]) table.addServer(keyOf(1), serverOf(n))
  const busy = idOf(table, 1, 1)
  maps.serverStates.setActive(busy, 1)
  table.deleteServer(keyOf(1), serverOf(1))
  const idle = idOf(table, 1, 2)
  table.deleteServer(keyOf(1), serverOf(2))
  table.addServer(keyOf(1), serverOf(4))
  t.equal(idOf(table, 1, 4), idle)
  t.ok(handles.graces > 0, 'no program that chose the server still runs')
  t.throws(() => table.addServer(keyOf(1), serverOf(5)), { code: 'TABLE_FULL' })
  t.same(checkTable(handles), [])
})

t.test('a cursor never names a server that is free', async (t) => {
  const { table, maps, handles } = threeServers()
  const [three, two] = [idOf(table, 1, 3), idOf(table, 1, 2)]
  table.deleteServer(keyOf(1), serverOf(2))
  // A packet that was under way used the removed server.
  maps.serviceStates.setCursor(1, BigInt(two))
  handles.nowS += 200
  table.addServer(keyOf(1), serverOf(4))
  t.equal(maps.serviceStates.cursor(1), BigInt(three))
  t.same(checkTable(handles), [])
})
