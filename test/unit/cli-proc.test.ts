/** /proc/net/ip_vs* as the kernel's IPVS wrote them. */
import t from 'tap'
import type { ListedConnection } from '../../src/cli/format-connections.ts'
import { formatProcConnections, formatProcCpuStats, formatProcStats } from '../../src/cli/format-proc.ts'
import type { Counters } from '../../src/model/types.ts'
import { modelOperations } from '../helpers/model-table.ts'
import { runCommand } from '../helpers/recordings.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'

interface Read {
  readonly do: 'read'
  readonly file: string
  readonly text: string
}
interface Ipvsadm {
  readonly do: 'ipvsadm'
  readonly args: string
  readonly out: string
}
interface Scenario {
  readonly name: string
  readonly steps: readonly (Read | Ipvsadm)[]
}

const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>('proc')

/** The nth text of a file, or the nth output of a command, in a scenario. */
function recorded(name: string, what: string, nth = 0): string {
  const steps = scenarios.find((each) => each.name === name)?.steps ?? []
  const texts = steps.flatMap((step) => {
    if (step.do === 'read') return step.file === what ? [step.text] : []
    return step.do === 'ipvsadm' && step.args === what ? [step.out] : []
  })
  const text = texts[nth]
  if (text === undefined) throw new Error(`${name} has no ${what} ${nth}`)
  return text
}

/** Services with their servers: the order of services is the kernel's hash. */
function blocks(text: string): string[] {
  return text.split(/\n(?=[A-Z])/).sort()
}

t.test('ip_vs shows services of every kind as the kernel does', async (t) => {
  const operations = modelOperations()
  await runCommand(['-R'], { operations, stdin: recorded('proc_services', '-S -n') })
  // Saved in another order than added, a service's servers are in another order too.
  const lines = (text: string) => blocks(text).map((block) => block.trimEnd().split('\n').sort())
  const { out } = await runCommand(['--proc', 'ip_vs'], { operations })
  t.same(lines(out), lines(recorded('proc_services', 'ip_vs')))
})

t.test('without a table the files are those of an empty one', async (t) => {
  for (const file of ['ip_vs', 'ip_vs_conn', 'ip_vs_conn_sync', 'ip_vs_stats']) {
    const outcome = await runCommand(['--proc', file], { operations: modelOperations() })
    t.same(outcome, { rc: 0, out: recorded('proc_empty', file), err: '' }, file)
  }
  const application = await runCommand(['--proc', '/proc/net/ip_vs_app'], { operations: modelOperations() })
  t.equal(application.out, `${recorded('proc_empty', 'ip_vs_app').split('\n')[0]}\n`, 'with no application')
})

t.test('a file that IPVS does not have is refused', async (t) => {
  for (const line of ['--proc', '--proc ip_vs_lblc', '--proc ip_vs more']) {
    const { rc, out, err } = await runCommand(line.split(' '), { operations: modelOperations() })
    t.same({ rc, out }, { rc: 2, out: '' })
    t.not(err, '')
  }
})

/** A line of `-Lnc`. */
function connectionOf(line: string): ListedConnection {
  const [protocol = '', expires = '', state = '', ...ends] = line.split(/\s+/)
  const [minutes = 0, seconds = 0] = expires.split(':').map(Number)
  const [client, virtual, server] = ends.map((text) => {
    const [, address = '', port] = /^\[?(.*?)\]?:(\d+)$/.exec(text) ?? []
    return { family: address.includes(':') ? 6 : 4, address, port: Number(port) } as const
  })
  if (client === undefined || virtual === undefined || server === undefined) throw new Error(`no connection: ${line}`)
  const proto = protocol.toLowerCase() as ListedConnection['protocol']
  return { family: client.family, protocol: proto, state, expiresS: minutes * 60 + seconds, client, virtual, server }
}

t.test('connections and templates are listed as the kernel lists them', async (t) => {
  for (const [name, nth] of [
    ['proc_conns', 0],
    ['proc_conns', 1],
    ['proc_nodest', 0],
  ] as const) {
    const connections = recorded(name, '-Lnc', nth).trimEnd().split('\n').slice(2).map(connectionOf)
    t.ok(connections.length > 1)
    for (const file of ['ip_vs_conn', 'ip_vs_conn_sync'] as const) {
      const text = [...formatProcConnections(connections, { origins: file === 'ip_vs_conn_sync' })].join('')
      // Read a moment before the list that it is made of: a second may have passed.
      const timeless = (lines: string) =>
        lines
          .replace(/\d+$/gm, (seconds) => '?'.repeat(seconds.length))
          .split('\n')
          .sort()
      const width = (lines: string) =>
        timeless(lines).map((line) => line.replace(/ *\?+$/, (end) => '?'.repeat(end.length)))
      t.same(width(text), width(recorded(name, file, nth)), `${name} ${file}`)
    }
  }
})

t.test('ip_vs_conn_sync tells which connections another director told of', async (t) => {
  const line = 'TCP 14:59  ESTABLISHED 10.1.0.1:4001      10.9.0.1:80        10.2.0.11:80'
  const lines = [connectionOf(line), { ...connectionOf(line), synced: true }]
  const ends = 'TCP 0A010001 0FA1 0A090001 0050 0A02000B 0050 ESTABLISHED'
  t.same([...formatProcConnections(lines, { origins: true })].slice(1), [
    `${ends} LOCAL      899\n`,
    `${ends} SYNC       899\n`,
  ])
})

/** Numbers of a line of the statistics. */
function countersOf(line: string): Counters {
  const [conns = 0n, inPkts = 0n, outPkts = 0n, inBytes = 0n, outBytes = 0n] = line
    .trim()
    .split(/ +/)
    .map((word) => BigInt(`0x${word}`))
  return { conns, inPkts, outPkts, inBytes, outBytes }
}

t.test('statistics are written as the kernel writes them', async (t) => {
  for (const nth of [0, 1]) {
    const stats = recorded('proc_conns', 'ip_vs_stats', nth)
    const [, , total = '', , , rates = ''] = stats.split('\n')
    t.equal(formatProcStats(countersOf(total), countersOf(rates)), stats)
    const cpuStats = recorded('proc_conns', 'ip_vs_stats_percpu', nth)
    const cpus = [...cpuStats.matchAll(/^ +[0-9A-F]+ (( +[0-9A-F]+){5})$/gm)].map(([, numbers = '']) => numbers)
    t.equal(cpus.length, 2)
    const text = formatProcCpuStats(cpus.map(countersOf), countersOf(total), countersOf(rates))
    t.equal(text, cpuStats)
  }
})
