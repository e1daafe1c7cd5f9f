/** Servers that are no longer wanted and have connections: they drain, and what tells of it is in the table alone. */
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import type { Protocol } from '../../src/model/types.ts'
import { idOf, memoryTable, type MemoryTable, numberOf, serverOf, serviceOf } from '../helpers/table-specs.ts'

const limitS = 600
const nothing = { added: [], dropped: [] }

function wanted(servers: readonly number[], protocol: Protocol = 'tcp', weight = 1): DesiredService {
  const service = serviceOf(1, 'wlc')
  const key = { ...service.key, protocol } as typeof service.key
  return { service: { ...service, key }, servers: servers.map((n) => serverOf(n, weight)) }
}

/** `2:0 1:1`: number and weight, in the order of the list. */
function listed({ table }: Pick<MemoryTable, 'table'>): string {
  return table
    .services()
    .flatMap(({ servers }) => servers.map((server) => `${numberOf(server)}:${server.weight}`))
    .join(' ')
}

/** Servers 1 and 2 are wanted, 2 has a connection, and is wanted no more. */
function draining(protocol: Protocol = 'tcp'): MemoryTable & { readonly id: number } {
  const memory = memoryTable()
  memory.table.apply('kubernetes', [wanted([1, 2], protocol)], undefined, limitS)
  const [{ servers = [] } = {}] = memory.table.services()
  const id = servers.find((server) => numberOf(server) === 2)?.id ?? 0
  memory.maps.serverStates.setActive(id, 1)
  memory.table.apply('kubernetes', [wanted([1], protocol)], undefined, limitS)
  return { ...memory, id }
}

t.test('with connections it stays at weight 0; without, it goes', async (t) => {
  const memory = memoryTable()
  const { table, maps } = memory
  table.apply('kubernetes', [wanted([1, 2, 3])], undefined, limitS)
  maps.serverStates.setInactive(idOf(table, 1, 2), 1)
  table.apply('kubernetes', [wanted([1])], undefined, limitS)
  t.equal(listed(memory), '2:0 1:1')
  t.equal(table.hasDrained('kubernetes', limitS), false)
  t.same(checkTable(memory.handles), [])
})

t.test('when its connections have ended it goes with the next look, and nothing else is touched', async (t) => {
  const memory = draining()
  const { table, maps, id } = memory
  t.equal(listed(memory), '2:0 1:1')
  const before = table.generation()
  t.match(table.apply('kubernetes', [], nothing, limitS), { changed: 0 })
  t.equal(table.generation(), before, 'as long as it drains there is nothing to do')
  maps.serverStates.setActive(id, 0)
  t.equal(table.hasDrained('kubernetes', limitS), true)
  t.match(table.apply('kubernetes', [], nothing, limitS), { added: 0, changed: 1, removed: 0, failed: [] })
  t.equal(listed(memory), '1:1')
  t.equal(table.hasDrained('kubernetes', limitS), false)
  t.same(checkTable(memory.handles), [])
})

t.test('when its time is up it goes, though it has connections, which the trash keeps', async (t) => {
  const memory = draining()
  const { table, handles, maps, id } = memory
  handles.nowS += limitS - 1
  t.equal(table.hasDrained('kubernetes', limitS), false)
  handles.nowS += 1
  t.equal(table.hasDrained('kubernetes', limitS), true)
  table.apply('kubernetes', [], nothing, limitS)
  t.equal(listed(memory), '1:1')
  t.equal(maps.serverStates.active(id), 1)
})

t.test('over a restart it goes on draining, and its time with it', async (t) => {
  const { handles, maps, id } = draining()
  handles.nowS += limitS - 10
  const table = new KernelTable(handles)
  t.match(table.apply('kubernetes', [wanted([1])], undefined, limitS), { added: 0, changed: 0, removed: 0 })
  t.equal(listed({ table }), '2:0 1:1')
  t.equal(table.hasDrained('kubernetes', limitS), false)
  handles.nowS += 10
  t.equal(table.hasDrained('kubernetes', limitS), true)
  maps.serverStates.setActive(id, 0)
  table.apply('kubernetes', [], nothing, limitS)
  t.equal(listed({ table }), '1:1')
})

for (const weight of [1, 0]) {
  t.test(
    `one that returns is the same server, in use at once with weight ${weight}, and drains anew later`,
    async (t) => {
      const memory = draining()
      const { table, handles, maps, id } = memory
      maps.stats.setConns(id, 7n)
      handles.nowS += limitS - 1
      table.apply('kubernetes', [wanted([1, 2], 'tcp', weight)], undefined, limitS)
      t.equal(listed(memory), `2:${weight} 1:${weight}`)
      t.match(table.services()[0]?.servers[0], { id, counters: { conns: 7n } })
      table.apply('kubernetes', [wanted([1])], undefined, limitS)
      handles.nowS += limitS - 1
      t.equal(table.hasDrained('kubernetes', limitS), false, 'its time began anew')
    },
  )
}

t.test('what is not TCP goes at once, and so does everything without a limit or of a deleted service', async (t) => {
  t.equal(listed(draining('udp')), '1:1')
  t.equal(listed(draining('sctp')), '1:1')
  const { table } = draining()
  table.apply('kubernetes', [wanted([1])])
  t.equal(listed({ table }), '1:1')
  const deleted = draining()
  deleted.table.apply('kubernetes', [], undefined, limitS)
  t.same(deleted.table.services(), [])
  t.equal(deleted.table.hasDrained('kubernetes', limitS), false)
})

t.test('what of a service changes otherwise leaves its draining servers draining', async (t) => {
  const memory = draining()
  memory.table.apply('kubernetes', [wanted([1, 3])], undefined, limitS)
  t.equal(listed(memory), '3:1 2:0 1:1')
  memory.table.apply('kubernetes', [wanted([])], undefined, limitS)
  t.equal(listed(memory), '2:0')
})
