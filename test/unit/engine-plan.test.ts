import t from 'tap'
import { plan, planServers } from '../../src/engine/plan.ts'
import type { ActualServer, ActualService, DesiredRecord } from '../../src/engine/plan.ts'
import type { ServerWant, ServiceConfig } from '../../src/maps/records.ts'

const config: ServiceConfig = {
  scheduler: 1,
  flags: 0,
  timeoutS: 0,
  netmask: 0,
  affinity: 0,
  affinityPort: 0,
  policy: 0,
  allowed: '',
}

function want(name: string, weight = 1): ServerWant {
  return { name, config: { method: 0, weight, upper: 0, lower: 0, tunnelType: 0, tunnelFlags: 0, tunnelPort: 0 } }
}

function actual(id: number, name: string, weight = 1): ActualServer {
  return { id, ...want(name, weight) }
}

function desired(name: string, servers: readonly ServerWant[], more: Partial<ServiceConfig> = {}): DesiredRecord {
  return { name, config: { ...config, ...more }, servers }
}

function present(id: number, name: string, servers: readonly ActualServer[]): ActualService {
  return { id, name, config, servers }
}

t.test('nothing is planned where the table is as wanted', async (t) => {
  // The newest server is first in the list.
  const table = [present(1, 'web', [actual(2, 'b'), actual(1, 'a')]), present(2, 'dns', [])]
  t.same(plan(table, [desired('dns', []), desired('web', [want('a'), want('b')])]), [])
})

t.test('another order of the same servers changes nothing', async (t) => {
  t.same(plan([present(1, 'web', [actual(2, 'b'), actual(1, 'a')])], [desired('web', [want('b'), want('a')])]), [])
})

t.test('removals come before changes, and changes before additions', async (t) => {
  const table = [present(1, 'old', []), present(2, 'web', [])]
  const operations = plan(table, [desired('new', []), desired('web', [want('a')])])
  t.same(
    operations.map(({ kind, name }) => [kind, name]),
    [
      ['remove', 'old'],
      ['change', 'web'],
      ['add', 'new'],
    ],
  )
})

t.test('a service is changed by what differs only', async (t) => {
  const table = [present(1, 'web', [actual(3, 'c'), actual(2, 'b'), actual(1, 'a', 5)])]
  const [operation, ...others] = plan(table, [desired('web', [want('a', 6), want('d'), want('c'), want('e')])])
  t.same(others, [])
  t.match(operation, { kind: 'change', id: 1 })
  if (operation?.kind !== 'change') return
  t.equal(operation.changes.config, undefined)
  t.same([...operation.changes.removed], [2])
  t.same([...operation.changes.edited], [[1, want('a', 6)]])
  t.same(operation.changes.added, [want('d'), want('e')], 'in the order of adding')
})

t.test('a changed scheduler alone is planned without touching servers', async (t) => {
  const [operation] = plan([present(1, 'web', [actual(1, 'a')])], [desired('web', [want('a')], { scheduler: 2 })])
  t.match(operation, { kind: 'change', changes: { config: { scheduler: 2 }, added: [] } })
})

t.test('every field of a server counts', async (t) => {
  for (const field of ['method', 'weight', 'upper', 'lower', 'tunnelType', 'tunnelFlags', 'tunnelPort'] as const) {
    const other = want('a')
    const changes = planServers([actual(1, 'a')], [{ ...other, config: { ...other.config, [field]: 9 } }])
    t.equal(changes.edited.size, 1, field)
  }
})

t.test('a server that is no longer wanted and drains is changed to weight 0, or stays at it', async (t) => {
  const before = [actual(3, 'c', 4), actual(2, 'b', 0), actual(1, 'a')]
  const drains = ({ id }: ActualServer): boolean => id !== 1
  t.same(planServers(before, [want('d')], drains), {
    removed: new Set([1]),
    edited: new Map([[3, want('c', 0)]]),
    added: [want('d')],
  })
})
