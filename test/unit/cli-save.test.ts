import t from 'tap'
import {
  schedulers,
  type Family,
  type Protocol,
  type ServerSpec,
  type ServiceKey,
  type ServiceSpec,
} from '../../src/model/types.ts'
import { ModelTable, modelOperations } from '../helpers/model-table.ts'
import { random } from '../helpers/random.ts'
import { hostsResolver, runCommand } from '../helpers/recordings.ts'

type Next = (below: number) => number

function pick<T>(next: Next, items: readonly T[]): T {
  const item = items[next(items.length)]
  if (item === undefined) throw new Error('nothing to pick from')
  return item
}

function address(next: Next, family: Family): string {
  if (family === 4) return `10.${next(3)}.${next(256)}.${1 + next(250)}`
  return `fd00::${next(2) === 0 ? 'a:' : ''}${(1 + next(65535)).toString(16)}`
}

function serviceKey(next: Next): ServiceKey {
  const family: Family = next(2) === 0 ? 4 : 6
  if (next(4) === 0) return { kind: 'fwmark', family, mark: 1 + next(4294967295) }
  const protocol: Protocol = pick(next, ['tcp', 'udp', 'sctp'])
  return { kind: 'address', family, protocol, address: address(next, family), port: 1 + next(65535) }
}

function serviceSpec(next: Next): ServiceSpec {
  const key = serviceKey(next)
  const mask = key.family === 4 ? pick(next, ['255.255.255.255', '255.255.0.0', '0.0.0.24', '0.0.0.0']) : 1 + next(128)
  return {
    key,
    scheduler: pick(next, schedulers),
    schedulerFlags: ([1, 2, 3] as const).filter(() => next(3) === 0),
    ...(next(2) === 0 ? { persistence: { timeoutS: 1 + next(2678400), mask } } : {}),
    onePacket: next(4) === 0 && (key.kind === 'fwmark' || key.protocol === 'udp'),
  }
}

/** A server that the service can have; thresholds are not saved, so there are none. */
function serverSpec(next: Next, service: ServiceKey): ServerSpec {
  const method = pick(next, ['masq', 'tunnel', 'droute'] as const)
  const family: Family = method === 'tunnel' && next(3) === 0 ? (service.family === 4 ? 6 : 4) : service.family
  const free = service.kind === 'fwmark' || method === 'masq'
  const type = pick(next, ['ipip', 'gue', 'gre'] as const)
  const checksum =
    type === 'ipip'
      ? 'none'
      : pick(next, type === 'gue' ? (['none', 'csum', 'remcsum'] as const) : (['none', 'csum'] as const))
  return {
    family,
    address: address(next, family),
    port: free ? next(65536) : service.port,
    weight: pick(next, [0, 1, 100, 2147483647]),
    method,
    upper: 0,
    lower: 0,
    ...(method === 'tunnel' ? { tunnel: { type, port: type === 'gue' ? 1 + next(65535) : 0, checksum } } : {}),
  }
}

function randomTable(next: Next): ModelTable {
  const table = new ModelTable()
  for (let count = next(20); count > 0; count--) {
    const spec = serviceSpec(next)
    if (table.service(spec.key) !== undefined) continue
    table.addService(spec)
    const servers = Array.from({ length: next(6) }, () => serverSpec(next, spec.key))
    const distinct = new Map(servers.map((server) => [`${server.address} ${server.port}`, server]))
    for (const server of distinct.values()) table.addServer(spec.key, server)
  }
  return table
}

/** What of a table is saved; in no order. */
function saved(table: ModelTable): unknown {
  return table
    .services()
    .map(({ id, ...service }) => ({
      ...service,
      servers: service.servers.map(({ id, ...server }) => JSON.stringify(server, plain)).sort(),
    }))
    .map((service) => JSON.stringify(service, plain))
    .sort()
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

t.test('a saved table, restored, is the same table', async (t) => {
  const next = random(3)
  let services = 0
  for (let round = 0; round < 150; round++) {
    const table = randomTable(next)
    services += table.services().length
    const save = await runCommand(['-S', '-n'], { operations: modelOperations({ table }) })
    const restored = new ModelTable()
    const operations = modelOperations({ table: restored })
    t.same(await runCommand(['-R'], { operations, stdin: save.out }), { rc: 0, out: '', err: '' })
    t.same(saved(restored), saved(table))
    const again = await runCommand(['-Sn'], { operations })
    t.same(again.out.split('\n').sort(), save.out.split('\n').sort())
  }
  t.ok(services > 500, `${services} services went through`)
})

t.test('a table saved by names, restored, is the same table', async (t) => {
  const resolver = hostsResolver('10.9.0.1 www\n10.2.0.11 b1\n')
  const table = new ModelTable()
  const operations = modelOperations({ table })
  const input = '-A -t www:http -s rr\n-a -t www:http -r b1:http-alt -m -w 3\n'
  await runCommand(['-R'], { operations, resolver, stdin: input })
  const save = await runCommand(['-S'], { operations, resolver })
  t.equal(save.out, input)
  t.equal(
    (await runCommand(['-S', '-n'], { operations })).out,
    '-A -t 10.9.0.1:80 -s rr\n-a -t 10.9.0.1:80 -r 10.2.0.11:8080 -m -w 3\n',
  )
})
