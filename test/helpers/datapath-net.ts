/** What tests of real traffic ask of a director's kernel: its counters, its connection tracking, its settings. */
import { readFileSync } from 'node:fs'
import { LbBypassMode } from '../../src/abi/generated.ts'
import type { Topology } from '../../src/lab/topology.ts'
import { TableMaps } from '../../src/maps/table-maps.ts'
import { openExistingTable } from '../../src/native/loader.ts'
import type { Director } from './director.ts'

export type Bypass = 'auto' | 'never' | 'always'

const modes = {
  auto: LbBypassMode.BYPASS_AUTO,
  never: LbBypassMode.BYPASS_NEVER,
  always: LbBypassMode.BYPASS_ALWAYS,
} as const

/** Decides for new connections whether they pass by the host's stack. */
export function setBypass(director: Director, mode: Bypass): void {
  director.within(() => {
    const handles = openExistingTable()
    if (handles === undefined) throw new Error('there is no table')
    new TableMaps(handles).config.setBypass(0, modes[mode])
    handles.close()
  })
}

/** A file of /proc/net as a namespace sees it. */
export function procNet(topology: Topology, role: string, name: string): string {
  return topology.within(role, () => readFileSync(`/proc/thread-self/net/${name}`, 'utf8'))
}

/** Columns of one kind in a file of /proc/net that has a line of names and one of values for each kind. */
function columns(text: string, kind: string): ReadonlyMap<string, number> {
  const [names = [], values = []] = text
    .split('\n')
    .filter((line) => line.startsWith(`${kind}:`))
    .map((line) => line.split(' '))
  return new Map(names.map((name, i) => [name, Number(values[i])]))
}

/** SYNs that a namespace has sent again: the kernel waits a second for an answer. */
export function synsSentAgain(topology: Topology, role: string): number {
  return columns(procNet(topology, role, 'netstat'), 'TcpExt').get('TCPSynRetrans') ?? NaN
}

/** IP packets, of both families, that a namespace's stack has forwarded. */
export function forwarded(topology: Topology, role = 'director'): number {
  const four = columns(procNet(topology, role, 'snmp'), 'Ip').get('ForwDatagrams')
  const six = /^Ip6OutForwDatagrams\s+(\d+)$/m.exec(procNet(topology, role, 'snmp6'))
  return Number(four) + Number(six?.[1])
}

/** An nftables ruleset that drops and counts what connection tracking calls invalid, at every hook, and counts the new. */
const guard = ['prerouting', 'input', 'forward', 'output', 'postrouting']
  .map(
    (hook) =>
      `add chain inet guard ${hook} { type filter hook ${hook} priority 0; };` +
      `add rule inet guard ${hook} ct state invalid counter name invalid drop;` +
      (hook === 'forward' ? 'add rule inet guard forward ct state new counter name fresh;' : ''),
  )
  .join('')

export async function startGuard(topology: Topology, role = 'director'): Promise<void> {
  const counters = 'add counter inet guard invalid; add counter inet guard fresh;'
  await topology.must(role, 'nft', [`add table inet guard; ${counters} ${guard}`])
}

export async function stopGuard(topology: Topology, role = 'director'): Promise<void> {
  await topology.must(role, 'nft', ['delete table inet guard'])
}

export async function guardCounts(topology: Topology, role = 'director'): Promise<{ invalid: number; fresh: number }> {
  const text = await topology.must(role, 'nft', ['-j', 'list', 'counters'])
  const { nftables } = JSON.parse(text) as { nftables: { counter?: { name: string; packets: number } }[] }
  const packets = (name: string) => nftables.find(({ counter }) => counter?.name === name)?.counter?.packets ?? NaN
  return { invalid: packets('invalid'), fresh: packets('fresh') }
}

/** A flow of connection tracking: "tcp 10.1.0.11 -> 10.244.1.11:8080", as its first packet went, and its answers' way. */
export interface TrackedFlow {
  readonly protocol: string
  readonly from: string
  readonly to: string
  readonly answersFrom: string
  readonly answersTo: string
  readonly replied: boolean
}

/** TCP and UDP flows that a namespace tracks. */
export function trackedFlows(topology: Topology, role = 'director'): TrackedFlow[] {
  const flows: TrackedFlow[] = []
  for (const line of procNet(topology, role, 'nf_conntrack').split('\n')) {
    const protocol = /^\S+\s+\d+ (tcp|udp) /.exec(line)?.[1]
    if (protocol === undefined) continue
    const ends = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)]
    const [original, reply] = ends
    if (original === undefined || reply === undefined) throw new Error(`conntrack: ${line}`)
    flows.push({
      protocol,
      from: short(original[1]),
      to: `${short(original[2])} ${original[4]}`,
      answersFrom: `${short(reply[1])} ${reply[3]}`,
      answersTo: short(reply[2]),
      replied: !line.includes('[UNREPLIED]'),
    })
  }
  return flows
}

/** An IPv6 address in its shortest form: /proc writes all of it. */
function short(address: string | undefined): string {
  if (address === undefined || !address.includes(':')) return address ?? ''
  return new URL(`http://[${address}]`).hostname.slice(1, -1)
}
