/** What can be set for a table as a whole: the way of packets, and IPVS's sysctls net.ipv4.vs.* as far as they apply. */
import { LbError } from './errors.ts'
import type { PortRange } from './masquerade-ports.ts'

/** Whether connections bypass the host's stack: unless netfilter has hooks, not at all, in any case. */
export const bypassModes = ['auto', 'never', 'always'] as const
export type BypassMode = (typeof bypassModes)[number]

/**
 * Whether the host has another balancer too, whose connections are translated by connection tracking: none; connections that are
 * none of ours may be his, and stay his (`from`); new connections are his, ours stay ours (`to`).
 */
export const handoverModes = ['none', 'from', 'to'] as const
export type HandoverMode = (typeof handoverModes)[number]

/** A sysctl that has an effect here. Values are whole numbers from 0 to `most`; `initial` is the kernel's default. */
export interface Tunable {
  readonly name: string
  readonly initial: number
  readonly most: number
  readonly effect: string
}

const maxInt = 2147483647
/** 0 off, 1 and 2 automatic, 3 on. */
const maxMode = 3

/** In the order of their names, as sysctl lists them. */
export const tunables = [
  { name: 'am_droprate', initial: 10, most: maxInt, effect: '`drop_packet` 3 drops one new connection in so many' },
  {
    name: 'amemthresh',
    initial: 1024,
    most: maxInt,
    effect: 'the modes 1 and 2 below act while less is left of the connection table, in pages of 64 connections',
  },
  {
    name: 'conn_reuse_mode',
    initial: 1,
    most: maxInt,
    effect:
      'a new SYN on a connection in TIME_WAIT or CLOSE is scheduled anew, with bit 1 also in FIN_WAIT where replies are not seen; 0: goes to the same server',
  },
  {
    name: 'drop_entry',
    initial: 0,
    most: maxMode,
    effect: 'half-open and idle connections end before their time, from 1/32 of the table each second',
  },
  { name: 'drop_packet', initial: 0, most: maxMode, effect: 'packets of new connections are dropped at a rate' },
  {
    name: 'expire_nodest_conn',
    initial: 0,
    most: maxInt,
    effect: 'connections of a removed server end at once; 0: their packets are dropped until they expire',
  },
  {
    name: 'expire_quiescent_template',
    initial: 0,
    most: maxInt,
    effect: 'a persistent client whose server has weight 0 is scheduled anew',
  },
  {
    name: 'lblc_expiration',
    initial: 86400,
    most: maxInt,
    effect: 'seconds after which lblc forgets where an address was sent',
  },
  {
    name: 'lblcr_expiration',
    initial: 86400,
    most: maxInt,
    effect: 'seconds after which lblcr forgets where an address was sent',
  },
  {
    name: 'nat_icmp_send',
    initial: 0,
    most: maxInt,
    effect: "a server's packet of no connection is answered by an ICMP port unreachable, and dropped",
  },
  { name: 'run_estimation', initial: 1, most: maxInt, effect: '0: rates stand still' },
  {
    name: 'schedule_icmp',
    initial: 0,
    most: maxInt,
    effect: 'an ICMP error about no connection begins one, for three seconds, and goes to its server',
  },
  {
    name: 'secure_tcp',
    initial: 0,
    most: maxMode,
    effect: "a client's segments alone do not make a connection ESTABLISHED",
  },
  { name: 'sloppy_sctp', initial: 0, most: maxInt, effect: 'any SCTP packet but an ABORT opens a connection' },
  { name: 'sloppy_tcp', initial: 0, most: maxInt, effect: 'any TCP segment but a reset opens a connection' },
] as const satisfies readonly Tunable[]
export type TunableName = (typeof tunables)[number]['name']

const ofSync = 'the sync daemon has its own way, see docs/sync.md'

/** Sysctls of IPVS that have no effect here, and why. */
export const foreignTunables: Readonly<Record<string, string>> = {
  backup_only: 'a director with a backup balances what comes to it',
  cache_bypass: 'what finds no server is refused',
  conntrack: 'netfilter sees client and server in both directions, and tracks them by itself',
  debug_level: 'every packet that is refused or dropped is counted by reason (--verdicts)',
  est_cpulist: 'rates are estimated by a timer, not by threads',
  est_nice: 'rates are estimated by a timer, not by threads',
  ignore_tunneled: 'what comes out of a tunnel is balanced like anything else',
  pmtu_disc: 'a packet that is too big for the next hop is always answered',
  snat_reroute: 'a reply that bypasses the stack is always routed anew, from the virtual address; any other never',
  sync_persist_mode: ofSync,
  sync_ports: ofSync,
  sync_qlen_max: ofSync,
  sync_refresh_period: ofSync,
  sync_retries: ofSync,
  sync_sock_size: ofSync,
  sync_threshold: ofSync,
  sync_version: ofSync,
}

export interface Settings {
  readonly bypass: BypassMode
  readonly handover: HandoverMode
  /** What masqueraded connections are sent from; absent: none can be made. */
  readonly masqueradePorts?: PortRange
  readonly tunables: Readonly<Record<TunableName, number>>
}

/** What is to be set; the rest stays. */
export interface SettingsChange {
  readonly bypass?: BypassMode
  readonly handover?: HandoverMode
  readonly masqueradePorts?: PortRange
  readonly tunables?: Readonly<Partial<Record<TunableName, number>>>
}

/** Of a table that nobody has set anything for. */
export const initialSettings: Settings = {
  bypass: 'auto',
  handover: 'none',
  tunables: Object.fromEntries(tunables.map(({ name, initial }) => [name, initial])) as Settings['tunables'],
}

/** A tunable's new value, or, without `value`, a question for it. */
export interface TunableRequest {
  readonly name: TunableName
  readonly value?: number
}

/**
 * Reads NAME or NAME=VALUE, the name with or without `net.ipv4.vs.` (or slashes) before it. INVALID, saying why: no such
 * sysctl, one that does not apply here, a value out of its range.
 */
export function parseTunable(text: string): TunableRequest {
  const [, written = '', value] = /^([^=]*)(?:=(.*))?$/s.exec(text) ?? []
  const name = written.trim().replace(/^net[./]ipv4[./]vs[./]/, '')
  const tunable = tunables.find((each) => each.name === name)
  if (tunable === undefined) {
    const reason = Object.hasOwn(foreignTunables, name) ? foreignTunables[name] : undefined
    throw new LbError(
      'INVALID',
      `net.ipv4.vs.${name} ${reason === undefined ? 'is not known' : `does not apply: ${reason}`}`,
    )
  }
  if (value === undefined) return { name: tunable.name }
  const number = /^\d{1,10}$/.test(value.trim()) ? Number(value) : Number.NaN
  if (!(number <= tunable.most)) {
    throw new LbError('INVALID', `net.ipv4.vs.${name}: "${value}" is not a whole number from 0 to ${tunable.most}`)
  }
  return { name: tunable.name, value: number }
}
