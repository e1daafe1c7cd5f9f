/** Services that have a policy, other servers for insiders, and only some clients. */
import t from 'tap'
import { LbPolicy, LbServiceFlag } from '../../src/abi/generated.ts'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import type { DesiredService } from '../../src/engine/table.ts'
import { audienceCell } from '../../src/maps/audience.ts'
import { readList } from '../../src/maps/lists.ts'
import type { ServicePolicy } from '../../src/model/types.ts'
import {
  idOf,
  keyOf,
  memoryTable,
  numberOf,
  policyOf,
  serverOf,
  serversOf,
  serviceOf,
  idsOf,
  lan,
  office,
  wanted,
} from '../helpers/table-specs.ts'

t.test('a policy is in the list that it is in force with, and comes back as it was given', async (t) => {
  const { table, maps, handles } = memoryTable()
  const rows: readonly (readonly [Partial<ServicePolicy>, number])[] = [
    [{ masquerade: { pods: true, node: false, others: false } }, LbPolicy.POLICY_MASQ_PODS],
    [{ masquerade: { pods: false, node: true, others: false } }, LbPolicy.POLICY_MASQ_NODE],
    [{ masquerade: { pods: false, node: false, others: true } }, LbPolicy.POLICY_MASQ_OTHERS],
    [{ whenEmpty: 'drop' }, LbPolicy.POLICY_DROP_EMPTY],
    [{ nodePort: true }, LbPolicy.POLICY_NODE_PORT],
    [{ foreign: true }, LbPolicy.POLICY_FOREIGN],
    [{ sources: [lan, office] }, LbPolicy.POLICY_AUDIENCE],
  ]
  for (const [i, [more, bits]] of rows.entries()) {
    table.addService({ ...serviceOf(i), policy: policyOf(more) })
    const view = table.service(keyOf(i))
    t.same(view?.policy, policyOf(more))
    t.equal(maps.cells.listPolicy(maps.services.list(view?.id ?? 0)), bits)
    t.notOk(view?.insiders)
  }
  table.addService(serviceOf(50))
  t.notOk(table.service(keyOf(50))?.policy, 'of a service that only forwards there is none')
  t.same(checkTable(handles), [])
})

t.test('the last cell of a list says who gets other servers and who may come', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  for (const servers of [0, 1, 3, 4, 5, 12, 13]) {
    const policy = policyOf({ whenEmpty: 'drop', sources: [office, lan, { ...office, address: '198.51.100.0' }] })
    const some = Array.from({ length: servers }, (_, i) => i + 1)
    table.apply('kubernetes', [wanted(1, some, [40, 41], policy, 'sh')])
    const { head, insiders } = idsOf(memory, 1)
    const list = maps.services.list(head)
    const last = audienceCell(list, maps.cells.listOrder(list))
    t.ok(last > list + Math.ceil(servers / 4), `${servers} servers leave it alone`)
    t.equal(maps.cells.audienceAllowedCount(last), 3)
    const first = maps.cells.audienceAllowed(last)
    t.same([...maps.cells.intervalFirst(first)].slice(0, 5), [10, 0, 0, 0, 0])
    t.same([...maps.cells.intervalLast(first)].slice(0, 5), [10, 255, 255, 255, 0])
    t.equal(maps.services.flags(insiders), LbServiceFlag.SERVICE_INSIDERS)
    t.equal(maps.serviceName(insiders), maps.serviceName(head))
    t.equal(maps.cells.listPolicy(maps.services.list(insiders)), LbPolicy.POLICY_DROP_EMPTY, 'and has no audience')
    t.same(serversOf(table, 1).map(numberOf), some.toReversed())
    t.same(table.service(keyOf(1))?.insiders?.map(numberOf), [41, 40])
    t.same(checkTable(handles), [])
  }
})

t.test('the service for insiders is no service of its own', async (t) => {
  const { table, maps } = memoryTable()
  table.apply('kubernetes', [wanted(1, [1], [2])])
  t.equal(table.services().length, 1)
  t.equal(maps.book.services(0), 1)
  t.same(table.apply('kubernetes', [wanted(1, [1], [2])]), { added: 0, changed: 0, removed: 0, failed: [] })
  t.same(new KernelTable(maps.handles).apply('kubernetes', [wanted(1, [1], [2])]).changed, 0, 'read anew too')
  t.throws(() => table.addService(serviceOf(1)), { code: 'SERVICE_EXISTS' })
})

t.test('only what differs is touched', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  const lists = () => {
    const { head, insiders } = idsOf(memory, 1)
    return [maps.services.list(head), maps.services.list(insiders)] as const
  }
  const policy = policyOf({ sources: [lan] })
  table.apply('kubernetes', [wanted(1, [1], [2, 3], policy)])
  const steps: readonly (readonly [string, DesiredService, own: boolean, insiders: boolean])[] = [
    ['a server of the insiders', wanted(1, [1], [2, 3, 4], policy), false, true],
    ['a server of all others', wanted(1, [1, 2], [2, 3, 4], policy), true, false],
    ['who may come', wanted(1, [1, 2], [2, 3, 4], policyOf({ sources: [lan, office] })), true, false],
    ['whether it drops', wanted(1, [1, 2], [2, 3, 4], policyOf({ sources: [lan], whenEmpty: 'drop' })), true, true],
    ['the scheduler', wanted(1, [1, 2], [2, 3, 4], policyOf({ sources: [lan], whenEmpty: 'drop' }), 'sh'), true, true],
  ]
  for (const [what, want, own, insiders] of steps) {
    const before = lists()
    t.equal(table.apply('kubernetes', [want]).changed, 1, what)
    const after = lists()
    t.same([before[0] !== after[0], before[1] !== after[1]], [own, insiders], what)
    t.same(checkTable(handles), [], what)
  }
})

t.test('what insiders did counts for the service, even when they have its own servers again', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  table.apply('kubernetes', [wanted(1, [1], [2])])
  const { head, insiders } = idsOf(memory, 1)
  const inside = readList(maps.cells, maps.services.list(insiders)).ids[0] ?? 0
  maps.stats.setConns(idOf(table, 1, 1), 5n)
  maps.stats.setConns(inside, 7n)
  maps.rates.setCps(maps.serverMax + head, 1024)
  maps.rates.setCps(maps.serverMax + insiders, 2048)
  const conns = () => table.service(keyOf(1))?.counters.conns
  t.equal(conns(), 12n)
  t.equal(table.service(keyOf(1))?.rates.conns, 3n)
  maps.serverStates.setActive(inside, 1)
  table.apply('kubernetes', [wanted(1, [1])])
  t.equal(conns(), 12n, 'while the server has a connection')
  t.notOk(table.service(keyOf(1))?.insiders)
  t.same(checkTable(handles), [])
  maps.serverStates.setActive(inside, 0)
  handles.nowS += 500
  table.zero(keyOf(1))
  t.equal(conns(), 0n, 'zeroing zeroes all of it')
})

t.test('a packet on its way to the servers of insiders still finds them when these are taken away', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  table.apply('kubernetes', [wanted(1, [1], [2]), wanted(2, [1], [2])])
  const { insiders } = idsOf(memory, 1)
  const list = maps.services.list(insiders)
  let seen: number | undefined
  handles.onGrace = () => {
    seen = maps.services.list(insiders)
    t.equal(idsOf(memory, 1).insiders, 0, 'no list leads there any more')
  }
  const graces = handles.graces
  table.apply('kubernetes', [wanted(1, [1]), wanted(2, [1])])
  t.equal(seen, list, 'in force until nobody can be on the way')
  t.equal(maps.services.list(insiders), 0)
  t.equal(handles.graces, graces + 1, 'one grace period for all services of an edit')
})

t.test('counts outlive the service of insiders', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  table.apply('kubernetes', [wanted(1, [1], [2])])
  const { insiders } = idsOf(memory, 1)
  const inside = readList(maps.cells, maps.services.list(insiders)).ids[0] ?? 0
  maps.stats.setConns(inside, 7n)
  table.apply('kubernetes', [wanted(1, [1])])
  handles.nowS += 500
  table.addService(serviceOf(2))
  t.equal(maps.services.af(insiders), 0, 'its record is free')
  t.equal(table.service(keyOf(1))?.counters.conns, 7n)
  t.same(checkTable(handles), [])
})

t.test('a server of insiders that has connections goes on where it was when they have it again', async (t) => {
  const memory = memoryTable()
  const { table, maps, handles } = memory
  table.apply('kubernetes', [wanted(1, [1], [2])])
  const before = idsOf(memory, 1)
  const inside = readList(maps.cells, maps.services.list(before.insiders)).ids[0] ?? 0
  maps.serverStates.setActive(inside, 3)
  for (const gone of [[wanted(1, [1])], []]) {
    table.apply('kubernetes', gone)
    handles.nowS += 500
    table.addService(serviceOf(2))
    table.deleteService(keyOf(2))
    t.same(checkTable(handles), [])
    table.apply('kubernetes', [wanted(1, [1], [2])])
    t.same(idsOf(memory, 1), before)
    t.equal(table.service(keyOf(1))?.insiders?.[0]?.active, 3)
    t.equal(table.service(keyOf(1))?.insiders?.[0]?.id, inside)
  }
})

t.test('servers of insiders drain as all others do', async (t) => {
  const limitS = 600
  const { table, maps, handles } = memoryTable()
  const shown = () => table.service(keyOf(1))?.insiders?.map((server) => `${numberOf(server)}:${server.weight}`)
  const submit = (insiders: readonly number[]) =>
    table.apply('kubernetes', [wanted(1, [3], insiders)], undefined, limitS)
  submit([3, 4])
  const draining = table.service(keyOf(1))?.insiders?.[0]?.id ?? 0
  maps.serverStates.setActive(draining, 1)
  submit([3])
  t.same(shown(), ['4:0', '3:1'])
  t.same(serversOf(table, 1).map(numberOf), [3])
  submit([3, 4])
  t.same(shown(), ['4:1', '3:1'], 'it is wanted again')
  t.equal(maps.servers.removed(draining), 0)
  submit([3])
  maps.serverStates.setActive(draining, 0)
  t.equal(table.hasDrained('kubernetes', limitS), true)
  table.apply('kubernetes', [], { added: [], dropped: [] }, limitS)
  t.same(shown(), ['3:1'])
  t.same(checkTable(handles), [])
})

t.test('a service goes with that of its insiders, and nothing is left of either', async (t) => {
  const { table, maps, handles } = memoryTable()
  const policy = policyOf({ sources: [office] })
  const ways: readonly (readonly [string, (table: KernelTable) => void])[] = [
    ['-D', (table) => table.deleteService(keyOf(1))],
    ['-C', (table) => table.clear()],
    ['apply', (table) => void table.apply('kubernetes', [])],
  ]
  for (const [what, remove] of ways) {
    table.apply('kubernetes', [wanted(1, [1, 2], [2, 3], policy, 'mh')])
    remove(table)
    t.same(table.services(), [], what)
    t.equal(maps.book.cellsUsed(0), 0, what)
    handles.nowS += 500
    table.zero()
    t.equal(maps.book.trashed(0), 0, what)
    for (let id = 1; id < maps.book.serviceHigh(0); id++) t.equal(maps.services.af(id), 0, `${what}: record ${id}`)
    t.same(checkTable(handles), [], what)
  }
})

t.test('a service by mark may have insiders too, and is one service of that mark', async (t) => {
  const { table, maps, handles } = memoryTable()
  const key = { kind: 'fwmark', family: 4, mark: 7 } as const
  const want = wanted(1, [1], [2], policyOf({ whenEmpty: 'drop' }))
  table.apply('kubernetes', [{ ...want, service: { ...want.service, key } }])
  t.same(handles.steered, [{ family: 4, mark: 7 }])
  t.equal(maps.book.fwmarkServices(0), 1)
  t.same(table.service(key)?.insiders?.map(numberOf), [2])
  t.same(checkTable(handles), [])
  table.deleteService(key)
  t.same(handles.steered, [])
  t.equal(maps.book.fwmarkServices(0), 0)
  t.same(checkTable(handles), [])
})

t.test('a command that says nothing of policies leaves them alone', async (t) => {
  const { table, handles } = memoryTable()
  const policy = policyOf({ whenEmpty: 'drop', sources: [office] })
  table.apply('kubernetes', [wanted(1, [1], [2], policy)])
  table.editService(serviceOf(1, 'wrr'))
  table.addServer(keyOf(1), serverOf(5))
  table.deleteServer(keyOf(1), serverOf(1))
  const view = table.service(keyOf(1))
  t.same([view?.scheduler, view?.policy], ['wrr', policy])
  t.same([view?.servers.map(numberOf), view?.insiders?.map(numberOf)], [[5], [2]])
  t.throws(() => table.deleteServer(keyOf(1), serverOf(2)), { code: 'NO_SERVER' })
  t.same(checkTable(handles), [])
})

t.test('a table that has no room for all of it is as it was', async (t) => {
  for (let servers = 4; servers < 14; servers++) {
    const { table, handles, maps } = memoryTable({ servers: 12, services: 8, cells: 24 })
    table.apply('kubernetes', [wanted(1, [1, 2], [3])])
    const before = table.services()
    const some = Array.from({ length: servers }, (_, i) => i + 1)
    const { failed } = table.apply('kubernetes', [wanted(1, some, [...some, 20], policyOf({ sources: [lan] }))])
    if (failed.length > 0) t.same(table.services(), before, `${servers} servers`)
    t.same(checkTable(handles), [], `${servers} servers`)
    table.apply('kubernetes', [wanted(1, [1, 2]), wanted(2, some, some)])
    t.same(checkTable(handles), [])
    t.ok(maps.book.editing(0) === 0)
  }
})

t.test('INVALID: nobody may come, or whoever may is no prefix', async (t) => {
  const { table } = memoryTable()
  for (const sources of [[], [{ family: 6, address: 'fd00::', length: 8 }], [{ ...lan, length: 33 }]] as const) {
    t.throws(() => table.addService({ ...serviceOf(1), policy: policyOf({ sources }) }), { code: 'INVALID' })
  }
})
