/** Marks of netfilter come to the programs as long as there are services by mark. */
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { LbError } from '../../src/model/errors.ts'
import type { ServiceSpec } from '../../src/model/types.ts'
import { memoryTable, serviceOf } from '../helpers/table-specs.ts'

function byMark(mark: number, family: 4 | 6 = 4): ServiceSpec {
  return { ...serviceOf(0), key: { kind: 'fwmark', family, mark } }
}

t.test('exactly the marks of the services in force come', async (t) => {
  const { table, handles } = memoryTable()
  table.addService(serviceOf(1))
  t.same(handles.steered, [], 'a service by address needs none')
  table.addService(byMark(1))
  table.addService(byMark(0xffffffff, 6))
  t.same(handles.steered, [
    { family: 4, mark: 1 },
    { family: 6, mark: 0xffffffff },
  ])
  t.throws(() => table.addService(byMark(1)), { code: 'SERVICE_EXISTS' })
  table.deleteService(byMark(1).key)
  t.same(handles.steered, [{ family: 6, mark: 0xffffffff }])
  table.clear()
  t.same(handles.steered, [])
})

t.test('a source takes its marks with it', async (t) => {
  const { table, handles } = memoryTable()
  const want = (mark: number) => ({ service: byMark(mark), servers: [] })
  table.apply('manifest', [want(1), want(2)])
  table.apply('manifest', [want(2), want(3)])
  t.same(handles.steered.map(({ mark }) => mark).sort(), [2, 3], 'those that went and those that came, in one edit')
  table.apply('manifest', [])
  t.same(handles.steered, [])
})

t.test('marks that cannot be had make no service, and the next edit is not troubled', async (t) => {
  const { table, handles } = memoryTable()
  const steer = handles.steer.bind(handles)
  handles.steer = () => {
    throw new LbError('NATIVE', 'no veth')
  }
  t.throws(() => table.addService(byMark(1)), { message: 'no veth' })
  handles.steer = steer
  t.equal(new KernelTable(handles).service(byMark(1).key), undefined)
  table.addService(serviceOf(1))
  t.same(checkTable(handles), [])
  t.same(handles.steered, [])
  table.addService(byMark(1))
  t.same(handles.steered, [{ family: 4, mark: 1 }])
  t.same(checkTable(handles), [])
})

t.test('a recovery asks for the marks of the services that it finds', async (t) => {
  const { table, handles, maps } = memoryTable()
  table.addService(byMark(1))
  handles.steered = []
  maps.book.setEditing(0, 1)
  table.addService(serviceOf(1))
  t.same(handles.steered, [{ family: 4, mark: 1 }])
})
