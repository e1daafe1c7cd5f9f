/** Bulk traffic under every combination of offloads that interfaces may have, compared byte by byte. */
import t from 'tap'
import { openKernelTable } from '../../src/engine/open.ts'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import { Bulk, bulkPort } from '../helpers/bulk.ts'
import { type Bypass, forwarded, setBypass } from '../helpers/datapath-net.ts'
import { Director, real, service, virtual } from '../helpers/director.ts'
import { needsRoot, ports, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const families = ['ipv4', 'ipv6'] as const
const bytes = 1_500_000

/** Interfaces of the hosts and the director, by namespace. */
const interfaces = [
  ['client0', 'eth0'],
  ['server0', 'eth0'],
  ['director', 'cl0'],
  ['director', 'sv0'],
] as const

const features = ['tx', 'tso', 'gso', 'gro'] as const
type Setting = Readonly<Record<(typeof features)[number], boolean>>

/** All combinations of on and off. */
function combinations(fixed: Partial<Setting> = {}): Setting[] {
  return Array.from({ length: 2 ** features.length }, (_, bits) => {
    const setting = Object.fromEntries(features.map((feature, bit) => [feature, (bits >> bit) % 2 === 1]))
    return { ...(setting as Setting), ...fixed }
  }).filter((each, i, all) => all.findIndex((other) => name(other) === name(each)) === i)
}

function name(setting: Setting): string {
  return features.map((feature) => `${feature} ${setting[feature] ? 'on' : 'off'}`).join(', ')
}

async function apply(net: TestNet, setting: Setting): Promise<void> {
  const words = features.flatMap((feature) => [feature, setting[feature] ? 'on' : 'off'])
  await Promise.all(interfaces.map(([role, device]) => net.topology.must(role, 'ethtool', ['-K', device, ...words])))
}

function addServices(table: ReconcilingTable, net: TestNet): void {
  for (const family of families) {
    const services = [
      [virtual(vips[family], 90), bulkPort],
      [virtual(vips[family], 7, 'udp'), ports.echo],
    ] as const
    for (const [key, port] of services) {
      table.addService(service(key))
      for (const server of net.servers) table.addServer(key, real(server[family], port))
    }
  }
}

interface Scene {
  readonly net: TestNet
  readonly director: Director
  readonly bulk: Bulk
}

async function scene(t: Parameters<typeof topology>[0], xdp: 'off' | 'generic' | 'native'): Promise<Scene> {
  const net = await topology(t, { servers: 1, serve: ['echo'] })
  const director = new Director(net.topology)
  const policy = { include: ['*'], exclude: ['lo'], xdp }
  const table = director.within(() => openKernelTable({ create: true, policy }))
  if (table === undefined) throw new Error('no table')
  t.teardown(async () => table.close())
  if (xdp === 'native') {
    // A veth takes frames that XDP sends to it only while its peer polls, as it does with XDP of its own or with GRO.
    for (const peer of ['clients-up', 'servers-up'])
      await net.topology.must('switch', 'ethtool', ['-K', peer, 'gro', 'on'])
  }
  addServices(table, net)
  return { net, director, bulk: await Bulk.start(t, net) }
}

/** TCP in bulk and datagrams of several sizes, over both families: what went wrong. */
async function exchange({ net, bulk }: Scene): Promise<string[]> {
  const errors: string[] = []
  const [client] = net.clients
  for (const family of families) {
    const outcome = await bulk.transfer(vips[family], 90, bytes)
    if (outcome !== 'ok') errors.push(`${family} TCP: ${outcome}`)
    for (const size of [1, 700, 1400]) {
      const answer = await client?.host.call('datagram', { address: vips[family], port: 7, size })
      if (answer === undefined || 'error' in answer) errors.push(`${family} UDP of ${size}: ${answer?.error}`)
    }
  }
  return errors
}

for (const bypass of ['always', 'never'] as const satisfies readonly Bypass[]) {
  const way = bypass === 'always' ? 'past the stack' : 'through the stack'
  t.test(`tcx, ${way}: every combination of offloads carries TCP and UDP unharmed`, root, async (t) => {
    const all = await scene(t, 'off')
    setBypass(all.director, bypass)
    t.same(await exchange(all), [], 'as the interfaces are by default')
    const before = forwarded(all.net.topology)
    for (const setting of combinations()) {
      await apply(all.net, setting)
      t.same(await exchange(all), [], name(setting))
    }
    const grown = forwarded(all.net.topology) - before
    if (bypass === 'always') t.equal(grown, 0, 'nothing went through the stack')
    else t.ok(grown > 1000, 'all of it went through the stack')
    t.same(all.director.check(), [], 'the table is consistent')
  })
}

for (const mode of ['generic', 'native'] as const) {
  t.test(
    `XDP in ${mode} mode beside tcx: with whole checksums every other offload may be on or off`,
    root,
    async (t) => {
      const all = await scene(t, mode)
      t.match(all.director.hooks().join(' '), new RegExp(`xdp-${mode}`), 'XDP is attached')
      for (const bypass of ['always', 'never'] as const) {
        setBypass(all.director, bypass)
        for (const setting of combinations({ tx: false })) {
          await apply(all.net, setting)
          t.same(await exchange(all), [], `${bypass === 'always' ? 'past' : 'through'} the stack: ${name(setting)}`)
        }
      }
    },
  )
}
