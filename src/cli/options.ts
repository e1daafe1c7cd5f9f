/**
 * The grammar as data: every command, and every option with the rule per command. Order matters twice: an option's
 * rules are checked in the order of `kinds`, so that the first thing wrong is the one reported, as in ipvsadm.
 */
import type { ScannedOption } from './popt.ts'

/** Commands by the name they have in messages. */
export const commandNames = [
  'add-service',
  'edit-service',
  'delete-service',
  'flush',
  'list',
  'add-server',
  'delete-server',
  'edit-server',
  'set',
  'start-daemon',
  'stop-daemon',
  'restore',
  'save',
  'zero',
  'help',
  'version',
] as const
export type CommandName = (typeof commandNames)[number]

/** Must be given; may be given; may be given as the only one of its sort. Absent: illegal. */
export type Rule = 'required' | 'optional' | 'exclusive'

export interface Kind {
  readonly name: string
  readonly in: Readonly<Partial<Record<CommandName, Rule>>>
}

const serviceOptions = { 'add-service': 'optional', 'edit-service': 'optional' } as const
const serverOptions = { 'add-server': 'optional', 'edit-server': 'optional' } as const
const listOption = { list: 'optional' } as const
const exclusiveListOption = { list: 'exclusive' } as const
const daemonOption = { 'start-daemon': 'optional' } as const

/** What an option says, whatever its spelling: `-t` and `-f` are both the service's address. One of a kind per command line. */
export const kinds = [
  { name: 'numeric', in: { list: 'optional', save: 'optional' } },
  { name: 'connection', in: exclusiveListOption },
  {
    name: 'service-address',
    in: {
      'add-service': 'required',
      'edit-service': 'required',
      'delete-service': 'required',
      list: 'exclusive',
      'add-server': 'required',
      'delete-server': 'required',
      'edit-server': 'required',
      zero: 'optional',
    },
  },
  { name: 'scheduler', in: serviceOptions },
  { name: 'pe', in: serviceOptions },
  { name: 'persistent', in: serviceOptions },
  { name: 'netmask', in: serviceOptions },
  { name: 'real-server', in: { 'add-server': 'required', 'delete-server': 'required', 'edit-server': 'required' } },
  { name: 'forwarding-method', in: serverOptions },
  { name: 'weight', in: serverOptions },
  { name: 'u-threshold', in: serverOptions },
  { name: 'l-threshold', in: serverOptions },
  { name: 'mcast-interface', in: daemonOption },
  { name: 'timeout', in: exclusiveListOption },
  { name: 'daemon', in: exclusiveListOption },
  { name: 'stats', in: listOption },
  { name: 'rate', in: listOption },
  { name: 'thresholds', in: listOption },
  { name: 'persistent-conn', in: listOption },
  { name: 'nosort', in: listOption },
  { name: 'syncid', in: { list: 'optional', 'start-daemon': 'optional', 'stop-daemon': 'optional' } },
  { name: 'exact', in: listOption },
  { name: 'ops', in: serviceOptions },
  { name: 'sched-flags', in: serviceOptions },
  { name: 'tun-info', in: listOption },
  { name: 'insiders', in: listOption },
  { name: 'tun-type', in: serverOptions },
  { name: 'tun-port', in: serverOptions },
  { name: 'tun-nocsum', in: serverOptions },
  { name: 'tun-csum', in: serverOptions },
  { name: 'tun-remcsum', in: serverOptions },
  { name: 'sync-maxlen', in: daemonOption },
  { name: 'mcast-group', in: daemonOption },
  { name: 'mcast-port', in: daemonOption },
  { name: 'mcast-ttl', in: daemonOption },
] as const satisfies readonly Kind[]
export type KindName = (typeof kinds)[number]['name']

/** An option that begins a command line, or one that says more; `-6` and `--sort` are of no kind and always legal. */
export interface OptionRecord extends ScannedOption {
  readonly command?: CommandName
  readonly kind?: KindName
}

/** The options of ipvsadm 1.31, and one of our own: `insiders`. */
export const options = [
  { long: 'add-service', short: 'A', command: 'add-service' },
  { long: 'edit-service', short: 'E', command: 'edit-service' },
  { long: 'delete-service', short: 'D', command: 'delete-service' },
  { long: 'clear', short: 'C', command: 'flush' },
  { long: 'list', short: 'L', command: 'list' },
  { long: 'list', short: 'l', command: 'list' },
  { long: 'zero', short: 'Z', command: 'zero' },
  { long: 'add-server', short: 'a', command: 'add-server' },
  { long: 'edit-server', short: 'e', command: 'edit-server' },
  { long: 'delete-server', short: 'd', command: 'delete-server' },
  { long: 'set', command: 'set' },
  { long: 'help', short: 'h', command: 'help' },
  { long: 'version', short: 'v', command: 'version' },
  { long: 'restore', short: 'R', command: 'restore' },
  { long: 'save', short: 'S', command: 'save' },
  { long: 'start-daemon', takes: 'value', command: 'start-daemon' },
  { long: 'stop-daemon', takes: 'value', command: 'stop-daemon' },
  { long: 'tcp-service', short: 't', takes: 'value', kind: 'service-address' },
  { long: 'udp-service', short: 'u', takes: 'value', kind: 'service-address' },
  { long: 'sctp-service', takes: 'value', kind: 'service-address' },
  { long: 'fwmark-service', short: 'f', takes: 'value', kind: 'service-address' },
  { long: 'ipv6', short: '6' },
  { long: 'scheduler', short: 's', takes: 'value', kind: 'scheduler' },
  { long: 'pe', takes: 'value', kind: 'pe' },
  { long: 'persistent', short: 'p', takes: 'optional value', kind: 'persistent' },
  { long: 'netmask', short: 'M', takes: 'value', kind: 'netmask' },
  { long: 'ops', short: 'o', kind: 'ops' },
  { long: 'sched-flags', short: 'b', takes: 'value', kind: 'sched-flags' },
  { long: 'real-server', short: 'r', takes: 'value', kind: 'real-server' },
  { long: 'masquerading', short: 'm', kind: 'forwarding-method' },
  { long: 'ipip', short: 'i', kind: 'forwarding-method' },
  { long: 'gatewaying', short: 'g', kind: 'forwarding-method' },
  { long: 'weight', short: 'w', takes: 'value', kind: 'weight' },
  { long: 'u-threshold', short: 'x', takes: 'value', kind: 'u-threshold' },
  { long: 'l-threshold', short: 'y', takes: 'value', kind: 'l-threshold' },
  { long: 'tun-type', takes: 'value', kind: 'tun-type' },
  { long: 'tun-port', takes: 'value', kind: 'tun-port' },
  { long: 'tun-nocsum', kind: 'tun-nocsum' },
  { long: 'tun-csum', kind: 'tun-csum' },
  { long: 'tun-remcsum', kind: 'tun-remcsum' },
  { long: 'numeric', short: 'n', kind: 'numeric' },
  { long: 'connection', short: 'c', kind: 'connection' },
  { long: 'timeout', kind: 'timeout' },
  { long: 'daemon', kind: 'daemon' },
  { long: 'stats', kind: 'stats' },
  { long: 'rate', kind: 'rate' },
  { long: 'thresholds', kind: 'thresholds' },
  { long: 'persistent-conn', kind: 'persistent-conn' },
  { long: 'tun-info', kind: 'tun-info' },
  { long: 'insiders', kind: 'insiders' },
  { long: 'exact', kind: 'exact' },
  { long: 'nosort', kind: 'nosort' },
  { long: 'sort' },
  { long: 'mcast-interface', takes: 'value', kind: 'mcast-interface' },
  { long: 'syncid', takes: 'value', kind: 'syncid' },
  { long: 'sync-maxlen', takes: 'value', kind: 'sync-maxlen' },
  { long: 'mcast-group', takes: 'value', kind: 'mcast-group' },
  { long: 'mcast-port', takes: 'value', kind: 'mcast-port' },
  { long: 'mcast-ttl', takes: 'value', kind: 'mcast-ttl' },
] as const satisfies readonly OptionRecord[]
export type OptionName = (typeof options)[number]['long']

/** Commands that ipvsadm does not have: the first word of a command line. `takes`: the words that may follow. */
export const ownCommands = [
  { name: 'sysctl', takes: '[NAME[=VALUE] ...]', help: 'list or set what are sysctls net.ipv4.vs.* with IPVS' },
  { name: 'bypass', takes: '[auto|never|always]', help: "show or set whether connections bypass the host's stack" },
  {
    name: 'handover',
    takes: '[none|from|to]',
    help: 'show or set whether connections are taken over from another balancer, or handed over',
  },
  { name: 'masquerade-ports', takes: '[FIRST-LAST]', help: 'show or set what masqueraded connections are sent from' },
  { name: 'proc', takes: 'FILE', help: 'show what IPVS has in /proc/net/FILE (ip_vs, ip_vs_conn, ip_vs_stats, ...)' },
  { name: 'unload', help: "remove bpvs's programs, tables and pins from this network namespace" },
  { name: 'hooks', help: 'list what is attached to which interface' },
  { name: 'verdicts', help: 'list packets refused or dropped, by reason' },
  { name: 'sync-daemons', help: 'list the sync daemons, and what they counted' },
  { name: 'check', help: 'check the table for contradictions' },
  { name: 'mark-rules', help: "list the table's own rules that mark packets for services by mark" },
  { name: 'mark-rule', help: 'add|delete MARK [from PREFIX] [to PREFIX] [proto tcp|udp|sctp] [port N[-M]] [dev NAME]' },
  { name: 'bpvs-help', help: 'display this help message' },
] as const satisfies readonly { readonly name: string; readonly takes?: string; readonly help: string }[]
export type OwnCommandName = (typeof ownCommands)[number]['name']
