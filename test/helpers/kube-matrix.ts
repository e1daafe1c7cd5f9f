/** kube-proxy's matrix, played again: who reaches what through a Service, and as whom. */
import type { Mirrored, Outcome, Probe, Target } from '../../src/lab/host-api.ts'
import type { ApiObject } from './api-server.ts'
import { type Caller, callerNames, callers, type KubeNet, nodeAddresses, ownAddresses } from './kube-net.ts'
import { readJsonRecording } from './recordings-json.ts'

/** What came of the tries of a row. */
export interface Result {
  /** Kinds of host that answered. */
  readonly reached?: readonly string[]
  /** Whom they saw: `client`, `node:ADDRESS`, `other:ADDRESS`. */
  readonly source?: readonly string[]
  /** The same by kind of host, where it differs. */
  readonly source_by?: Readonly<Record<string, readonly string[]>>
  /** How tries failed: how many of each kind. */
  readonly errors?: Readonly<Record<string, number>>
}

export interface Flow {
  readonly family: '4' | '6'
  readonly proto: 'tcp' | 'udp'
  readonly caller: Caller
  readonly address: string
  readonly policy: string
  readonly endpoints: string
}

export type Row = Flow & Result

interface Recorded {
  readonly objects: Readonly<Record<'services' | 'endpointSlices' | 'nodes' | 'serviceCIDRs', readonly ApiObject[]>>
  readonly scenarios: readonly {
    readonly name: string
    readonly kubeProxyConfiguration: Readonly<Record<string, unknown>>
    readonly steps: readonly Row[]
  }[]
}

export const matrixRecording = 'kube-matrix'
const recorded = readJsonRecording<Recorded>(matrixRecording)
export const { objects } = recorded

export interface RecordedRun {
  readonly name: string
  readonly kubeProxyConfiguration: Readonly<Record<string, unknown>>
  /** In the order of the recording. */
  readonly rows: readonly Row[]
}

/** A recorded run. Netfilter tells senders of the host itself EPERM where it drops or refuses; which, TCP's row says. */
export function recordedRun(name: string): RecordedRun {
  const run = recorded.scenarios.find((each) => each.name === name)
  if (run === undefined) throw new Error(`no run ${name} was recorded`)
  const rows = new Map(run.steps.map((row) => [flowText(row), row]))
  const told = (row: Row): Row => {
    if (row.errors?.perm === undefined) return row
    return { ...row, errors: rows.get(flowText({ ...row, proto: 'tcp' }))?.errors ?? {} }
  }
  return { name, kubeProxyConfiguration: run.kubeProxyConfiguration, rows: run.steps.map(told) }
}

/** What a row is, in words. */
export function flowText({ family, proto, caller, address, policy, endpoints }: Flow): string {
  return `${caller} ${address} ${policy} ${endpoints}, ${proto} over IPv${family}`
}

/** Addresses that a service of the matrix has none of. */
const fixed: Readonly<Record<string, readonly [string, string, number]>> = {
  'unused-clusterIP': ['10.96.9.9', 'fd00:10:96::9:9', 80],
  'direct-local': ['10.128.0.16', 'fd00:128::110', 8080],
  'direct-remote': ['10.129.0.16', 'fd00:129::110', 8080],
}

/** Node ports, by the node's address that is called. */
const nodePorts: Readonly<Record<string, readonly [string, string]>> = {
  nodePort: ['192.0.2.1', 'fd00:192::1'],
  'nodePort-other-address': ['198.51.100.1', 'fd00:198::1'],
  'nodePort-loopback': ['127.0.0.1', '::1'],
}

interface ServiceSpec {
  readonly clusterIPs: readonly string[]
  readonly externalIPs: readonly string[]
  readonly ports: readonly { readonly protocol: string; readonly nodePort: number }[]
}

/** Where a row's caller calls. */
function targetOf({ family, proto, address, policy, endpoints }: Flow): Target {
  const at = family === '4' ? 0 : 1
  const service = objects.services.find(({ metadata }) => metadata.name === `${policy}-${endpoints}`)
  if (service === undefined) throw new Error(`no service ${policy}-${endpoints}`)
  const spec = service.spec as ServiceSpec
  const status = service.status as { loadBalancer: { ingress: readonly { ip: string }[] } }
  const nodePort = spec.ports.find(({ protocol }) => protocol.toLowerCase() === proto)?.nodePort ?? 0
  const [kind = '', otherPort] = address.split(/-(?=other-port)/)
  const port = otherPort === undefined ? 80 : 81
  if (kind === 'clusterIP') return { address: spec.clusterIPs[at] ?? '', port }
  if (kind === 'lbIP') return { address: status.loadBalancer.ingress[at]?.ip ?? '', port }
  if (kind === 'externalIP') return { address: spec.externalIPs[at] ?? '', port }
  const ofNode = nodePorts[kind]
  if (ofNode !== undefined) return { address: ofNode[at] ?? '', port: nodePort }
  const known = fixed[kind]
  if (known === undefined) throw new Error(`no address ${address}`)
  return { address: known[at] ?? '', port: known[2] }
}

/** As whom a server saw its caller. */
function sourceOf(seen: string, caller: Caller): string {
  if (ownAddresses[caller].includes(seen)) return 'client'
  return `${nodeAddresses.includes(seen) ? 'node' : 'other'}:${seen}`
}

/** Errors of sockets in the recording's words. */
const errorNames: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'refused',
  TIMEOUT: 'timeout',
  EPERM: 'perm',
  ENETUNREACH: 'netunreach',
  EHOSTUNREACH: 'hostunreach',
}

const sorted = (values: Iterable<string>): string[] => [...new Set(values)].sort()

/** What tries came to, as the recording has it. */
export function summarize(outcomes: readonly Outcome<Mirrored>[], caller: Caller): Result {
  const answers = outcomes.flatMap((each) => ('value' in each ? [each.value] : []))
  const failures = outcomes.flatMap((each) => ('error' in each ? [errorNames[each.error] ?? each.error] : []))
  const reached = sorted(answers.map(({ server }) => server))
  const by = reached.map((name) => {
    const seen = answers.filter(({ server }) => server === name).map(({ client }) => sourceOf(client, caller))
    return [name, sorted(seen)] as const
  })
  const source = sorted(by.flatMap(([, sources]) => sources))
  const differs = new Set(by.map(([, sources]) => String(sources))).size > 1
  const errors = Object.fromEntries(sorted(failures).map((name) => [name, failures.filter((x) => x === name).length]))
  return {
    ...(reached.length > 0 && { reached, source }),
    ...(differs && { source_by: Object.fromEntries(by) }),
    ...(failures.length > 0 && { errors }),
  }
}

/** A result in a few words, without how often what failed. */
export function resultText({ reached = [], source = [], source_by: by, errors = {} }: Result): string {
  const seen =
    by === undefined
      ? source.join(' ')
      : Object.entries(by)
          .map(([name, from]) => `${name} ${from.join(' ')}`)
          .join(', ')
  const answered = reached.length === 0 ? [] : [`${reached.join('+')} as ${seen}`]
  return [...answered, ...Object.keys(errors).sort()].join(' or ')
}

/** How long a try may take that is to be answered, and one that is not. */
const patienceMs = 20_000
const silenceMs = 1_200

/** Round robin shows each of four servers in as many tries. */
const triesOf = ({ reached }: Result): number => (reached === undefined ? 2 : 4)

/** The first of the ports that tries are made from: neither the kernel nor masquerading picks one of these. */
const firstPort = 61_000

/** Tries at a time. */
const parallel = 2_048

/**
 * Plays the rows of one caller after the other's, and tells what each came to. Every try of a caller is made from a port of
 * its own: of two connections from one port through two addresses to one server, without masquerading, only one can be. `bytes`: so many
 * go each way over a connection of TCP.
 */
export async function play(net: KubeNet, rows: readonly Row[], bytes = 0): Promise<Map<Row, Result>> {
  const results = new Map<Row, Result>()
  for (const caller of callerNames) {
    const mine = rows.filter((row) => row.caller === caller)
    const rounds = [0, 1, 2, 3].flatMap((round) => mine.filter((row) => round < triesOf(row)))
    const probes = rounds.map((row, i): Probe => {
      const timeoutMs = isSilent(row) ? silenceMs : patienceMs
      return { ...targetOf(row), protocol: row.proto, timeoutMs, localPort: firstPort + i, bytes }
    })
    const outcomes = await net.host(callers[caller]).call('probe', probes, parallel)
    for (const row of mine) {
      const own = outcomes.filter((_, i) => rounds[i] === row)
      results.set(row, summarize(own, caller))
    }
  }
  return results
}

function isSilent({ errors = {} }: Result): boolean {
  return 'timeout' in errors
}
