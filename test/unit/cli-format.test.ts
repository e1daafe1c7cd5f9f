import t from 'tap'
import { formatConnections, type ListedConnection } from '../../src/cli/format-connections.ts'
import { formatLargeNumber, formatTable, type ListedService } from '../../src/cli/format-listing.ts'
import type { NamedProtocol } from '../../src/cli/format-name.ts'
import { formatHooks, formatVerdicts } from '../../src/cli/format-own.ts'
import { sortServices } from '../../src/cli/sort.ts'
import type { Family, ServerView, ServiceView } from '../../src/model/types.ts'
import { readRecording } from '../helpers/recordings.ts'

const counters = { conns: 0n, inPkts: 0n, outPkts: 0n, inBytes: 0n, outBytes: 0n }

function server(address: string, port: number, more: Partial<ServerView> = {}): ServerView {
  return {
    family: 4,
    address,
    port,
    weight: 1,
    method: 'masq',
    upper: 0,
    lower: 0,
    id: 1,
    active: 0,
    inactive: 0,
    persistent: 0,
    counters,
    rates: counters,
    ...more,
  }
}

function service(address: string, port: number, more: Partial<ListedService> = {}): ListedService {
  return {
    key: { kind: 'address', family: 4, protocol: 'tcp', address, port },
    scheduler: 'rr',
    schedulerFlags: [],
    onePacket: false,
    id: 1,
    source: 'command',
    counters,
    rates: counters,
    servers: [],
    ...more,
  }
}

t.test('a counter of more than eight digits is cut to thousands, millions and so on', async (t) => {
  const rows: readonly (readonly [bigint, string])[] = [
    [0n, '0'],
    [99_999_999n, '99999999'],
    [100_000_000n, '100000K'],
    [151_126_028n, '151126K'],
    [999_999_999n, '999999K'],
    [1_000_000_000n, '1000M'],
    [99_999_999_999n, '99999M'],
    [100_000_000_000n, '100G'],
    [99_999_999_999_999n, '99999G'],
    [100_000_000_000_000n, '100T'],
    [18_446_744_073_709_551_615n, '18446744T'],
  ]
  for (const [value, text] of rows) t.equal(formatLargeNumber(value), text)
})

t.test('servers for insiders are listed if that is asked for, after those of all', async (t) => {
  const services = [
    service('10.9.0.1', 80, {
      servers: [server('10.2.0.11', 8080)],
      insiders: [server('10.2.0.12', 8080, { active: 3 }), server('10.2.0.11', 8080)],
    }),
    service('10.9.0.2', 80, { servers: [server('10.2.0.13', 8080)] }),
  ]
  const lines = (insiders: boolean) =>
    formatTable(services, { columns: 'plain', exact: false, sorted: true, insiders }).split('\n').slice(3)
  const plain = (arrow: string, name: string, active: number) =>
    `  ${arrow} ${name.padEnd(28)} Masq    1      ${String(active).padEnd(10)} 0         `
  t.same(lines(true), [
    'TCP  10.9.0.1:80 rr',
    plain('->', '10.2.0.11:8080', 0),
    plain('=>', '10.2.0.11:8080', 0),
    plain('=>', '10.2.0.12:8080', 3),
    'TCP  10.9.0.2:80 rr',
    plain('->', '10.2.0.13:8080', 0),
    '',
  ])
  t.same(
    lines(false),
    lines(true).filter((line) => !line.includes('=>')),
  )
  const stats = formatTable(services, { columns: 'stats', exact: false, sorted: true, insiders: true })
  t.match(stats, /^ {2}=> 10\.2\.0\.12:8080( +0){5}$/m)
})

t.test('big counters are listed as recorded, cut or exact', async (t) => {
  const total = { conns: 10n, inPkts: 2515n, outPkts: 1357n, inBytes: 151_126_028n, outBytes: 70_656n }
  const one = { conns: 4n, inPkts: 2500n, outPkts: 1348n, inBytes: 151_125_200n, outBytes: 70_140n }
  const services = [
    service('10.9.0.1', 80, { counters: total, servers: [server('10.2.0.11', 8080, { counters: one })] }),
  ]
  const recorded = readRecording('listing').scenarios.flatMap((scenario) => scenario.steps)
  for (const [args, exact] of [
    ['-Ln --stats', false],
    ['-Ln --stats --exact', true],
  ] as const) {
    const step = recorded.findLast((step) => step.do === 'ipvsadm' && step.args === args && step.out.includes('151'))
    t.ok(step?.do === 'ipvsadm', `${args} was recorded`)
    const lines = step?.do === 'ipvsadm' ? step.out.split('\n') : []
    for (const line of formatTable(services, { columns: 'stats', exact, sorted: true }).trimEnd().split('\n')) {
      t.ok(lines.includes(line), line)
    }
  }
})

/** A recorded line of `-Lnc`, taken apart. */
function readConnection(line: string): ListedConnection {
  const [protocol = '', expires = '', state = '', ...ends] = line.split(/ +/)
  const [client, virtual, destination] = ends.map((end) => {
    const match = /^\[?([0-9a-f.:]+?)\]?:(\d+)$/.exec(end)
    const address = match?.[1] ?? ''
    const family: Family = address.includes(':') ? 6 : 4
    return { family, address, port: Number(match?.[2]) }
  })
  const [minutes, seconds] = expires.split(':').map(Number)
  if (client === undefined || virtual === undefined || destination === undefined) throw new Error(`not read: ${line}`)
  const expiresS = (minutes ?? 0) * 60 + (seconds ?? 0)
  const named = protocol.toLowerCase() as NamedProtocol
  return { family: client.family, protocol: named, state, expiresS, client, virtual, server: destination }
}

t.test('connection entries are listed as recorded', async (t) => {
  const steps = readRecording('listing').scenarios.flatMap((scenario) => scenario.steps)
  let lines = 0
  for (const step of steps) {
    if (step.do !== 'ipvsadm' || !/^-Lnc( --persistent-conn)?$/.test(String(step.args)) || step.rc !== 0) continue
    const connections = step.out.trimEnd().split('\n').slice(2).map(readConnection)
    lines += connections.length
    t.equal([...formatConnections(connections, String(step.args).includes('persistent'))].join(''), step.out)
  }
  t.ok(lines > 100, `${lines} entries were recorded`)
})

function lastLine(pieces: Iterable<string>): string {
  return [...pieces].join('').split('\n').at(-2) ?? ''
}

t.test('a long listing of connections comes in pieces of many lines', async (t) => {
  const place = { address: '10.0.0.1', port: 1 }
  const connection = { family: 4, protocol: 'tcp', state: 'ESTABLISHED', expiresS: 1, client: place, virtual: place }
  const listed = { ...connection, server: { family: 4, ...place } } as ListedConnection
  const pieces = [...formatConnections(new Array<ListedConnection>(10_000).fill(listed), false)]
  t.ok(pieces.length < 20, `${pieces.length} pieces`)
  t.equal(pieces.join('').split('\n').length, 10_003)
})

t.test('a template of a persistence engine shows its name and key', async (t) => {
  const connection: ListedConnection = {
    family: 4,
    protocol: 'udp',
    state: 'UDP',
    expiresS: 299,
    client: { address: '10.1.0.1', port: 0 },
    virtual: { address: '10.9.0.1', port: 5060 },
    server: { family: 4, address: '10.2.0.11', port: 5060 },
    engine: { name: 'sip', data: 'call@host' },
  }
  t.equal(
    lastLine(formatConnections([connection], true)),
    'UDP 04:59  UDP         10.1.0.1:0         10.9.0.1:5060      10.2.0.11:5060     sip              call@host',
  )
})

t.test('entries that last an hour or more show minutes beyond 59', async (t) => {
  const place = { address: '10.0.0.1', port: 1 }
  const connection = { family: 4, protocol: 'tcp', state: 'ESTABLISHED', client: place, virtual: place } as const
  const listed = { ...connection, expiresS: 6005, server: { family: 4, ...place } } as const
  t.match(lastLine(formatConnections([listed], false)), /^TCP 100:05 {2}ESTABLISHED /)
})

t.test('services that no total order holds come out as from glibc', async (t) => {
  const scenario = readRecording('grammar').scenarios.find((candidate) => candidate.name === 'names_and_order')
  const listing = (args: string): string[] => {
    const step = scenario?.steps.find((step) => step.do === 'ipvsadm' && step.args === args)
    if (step?.do !== 'ipvsadm') throw new Error(`${args} was not recorded`)
    return step.out.split('\n').filter((line) => /^(TCP|UDP|FWM)/.test(line))
  }
  const views = listing('-L -n --nosort').map((line): ServiceView & { line: string } => ({
    ...readService(line),
    line,
  }))
  t.same(
    sortServices(views).map((view) => view.line),
    listing('-Ln'),
  )
})

/** A service line of a listing, as far as its order depends on it. */
function readService(line: string): ServiceView {
  const [protocol = '', where = '', ipv6] = line.split(/ +/)
  if (protocol === 'FWM') {
    return {
      ...service('0.0.0.0', 0),
      key: { kind: 'fwmark', family: ipv6 === 'IPv6' ? 6 : 4, mark: Number(where) >>> 0 },
    }
  }
  const [, address = '', port] = /^\[?([0-9a-f.:]+?)\]?:(\d+)$/.exec(where) ?? []
  const family = address.includes(':') ? 6 : 4
  const named = protocol.toLowerCase() as 'tcp' | 'udp'
  return { ...service(address, 0), key: { kind: 'address', family, protocol: named, address, port: Number(port) } }
}

t.test("bpvs's own listings have columns as wide as their widest word", async (t) => {
  t.equal(
    formatHooks([{ ifindex: 12, interface: 'veth0', hook: 'tcx/ingress', mode: 'link' }]),
    'Interface  Index  Hook         Mode\nveth0      12     tcx/ingress  link\n',
  )
  t.equal(formatVerdicts([{ name: 'NO_SERVER', count: 12n }]), 'Verdict    Packets\nNO_SERVER  12\n')
})
