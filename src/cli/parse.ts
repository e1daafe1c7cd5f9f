/** Command lines to commands, with ipvsadm's messages and exit statuses for what is wrong. Pure but for the names asked for. */
import type { LbError } from '../model/errors.ts'
import { parsePortRange } from '../model/masquerade-ports.ts'
import { bypassModes, handoverModes, parseTunable } from '../model/settings.ts'
import type { Family, Protocol, ServerKey, ServerSpec, ServiceKey, Timeouts } from '../model/types.ts'
import type { SyncDaemonRequest } from '../sync/options.ts'
import type { Command, ListCommand, ServiceRequest } from './command.ts'
import { effects, newDraft, readTimeout, type Draft } from './draft.ts'
import { listingColumns } from './format-listing.ts'
import { parseMarkRule } from './mark-rule.ts'
import { procFiles } from './format-proc.ts'
import {
  kinds,
  options,
  ownCommands,
  type OwnCommandName,
  type CommandName,
  type Kind,
  type KindName,
  type OptionRecord,
} from './options.ts'
import { Scanner, type ScanError } from './popt.ts'
import { readSchedulerFlags } from './scheduler-flags.ts'
import { readTunnel } from './tunnel.ts'
import { usageError } from './usage-error.ts'
import type { NameSource } from './values.ts'

const optionRecords: readonly OptionRecord[] = options
const statusOfScanError = 255

/**
 * Reads one command line (without the program's name; `program` is what it was called as, for messages).
 *
 * Throws LbError USAGE: `message` is the text for standard error (a newline is to follow), `detail.exit` the exit
 * status, `detail.final` whether a restore ends there. Whatever `names` throws passes through.
 */
export function parse(words: readonly string[], program: string, names: NameSource): Command {
  const [, ownName = words[0], inline] = /^(--[a-z-]+)=(.*)$/s.exec(words[0] ?? '') ?? []
  const own = ownCommands.find((command) => `--${command.name}` === ownName)
  if (own !== undefined) return parseOwn(own.name, inline === undefined ? words.slice(1) : [inline, ...words.slice(1)])
  if (words.length === 0) return listEverything
  const scanner = new Scanner(words, optionRecords)
  const first = scanner.next()
  if (first === undefined || 'error' in first || first.option.command === undefined) throw tryHelp(program)
  const name = first.option.command
  if (name === 'help' || name === 'version') return { do: name }
  const role = roleOf(name, first.value)
  const draft = newDraft()
  readOptions(scanner, draft, names)
  const timeouts = name === 'set' ? takeTimeouts(scanner.leftovers) : noTimeouts
  const extra = scanner.leftovers[0]
  if (extra !== undefined) throw usageError(`unexpected argument ${extra}`)
  const schedulerFlags = readSchedulerFlags(draft.scheduler, draft.schedulerFlags)
  checkKinds(name, draft.kinds)
  return build(name, { ...draft, role, timeouts, schedulerFlags })
}

/** What is said where not even the command is understood. */
export function tryHelp(program: string): LbError {
  return usageError(`Try \`${program} -h' or '${program} --help' for more information.`, statusOfScanError)
}

function parseOwn(name: OwnCommandName, rest: readonly string[]): Command {
  if (name === 'mark-rule') return parseMarkRule(rest)
  if (name === 'sysctl') return { do: name, requests: rest.map(parseTunable) }
  const [word, extra] = rest
  if (name === 'proc') return parseProc(word, extra)
  if (name === 'masquerade-ports') return parseMasqueradePorts(word, extra)
  if (name === 'bypass') return { do: name, ...parseMode(bypassModes, word, extra) }
  if (name === 'handover') return { do: name, ...parseMode(handoverModes, word, extra) }
  if (word !== undefined) throw usageError(`unexpected argument ${word}`)
  return { do: name }
}

/** One of the modes, or none: what is in force is shown. */
function parseMode<T extends string>(modes: readonly T[], word: string | undefined, extra: string | undefined) {
  const mode = modes.find((each) => each === word)
  const unexpected = mode === undefined ? word : extra
  if (unexpected !== undefined) throw usageError(`unexpected argument ${unexpected}`)
  return mode === undefined ? {} : { mode }
}

function parseMasqueradePorts(word: string | undefined, extra: string | undefined): Command {
  if (extra !== undefined) throw usageError(`unexpected argument ${extra}`)
  return word === undefined ? { do: 'masquerade-ports' } : { do: 'masquerade-ports', ports: parsePortRange(word) }
}

function parseProc(word: string | undefined, extra: string | undefined): Command {
  const file = procFiles.find((each) => each === word?.replace(/^\/proc\/net\//, ''))
  if (file === undefined) throw usageError(`--proc: one of ${procFiles.join(', ')} is needed`)
  if (extra !== undefined) throw usageError(`unexpected argument ${extra}`)
  return { do: 'proc', file }
}

const noTimeouts: Timeouts = { tcpS: 0, tcpFinS: 0, udpS: 0 }

const listEverything: ListCommand = {
  do: 'list',
  what: 'table',
  columns: 'plain',
  engines: false,
  numeric: false,
  exact: false,
  sorted: true,
  insiders: false,
}

/** The argument of the commands that have one. */
function roleOf(name: CommandName, value: string | undefined): SyncDaemonRequest['role'] {
  if (value === 'master' || value === 'backup') return value
  if (name === 'start-daemon') throw usageError('illegal start-daemon parameter specified')
  if (name === 'stop-daemon') throw usageError('illegal start_daemon specified')
  return 'master'
}

function readOptions(scanner: Scanner<OptionRecord>, draft: Draft, names: NameSource): void {
  for (let found = scanner.next(); found !== undefined; found = scanner.next()) {
    if ('error' in found) throw scanError(found)
    const { option, value, word } = found
    if (option.command !== undefined) throw usageError(`invalid option \`${word}'`)
    if (option.kind !== undefined) noteKind(draft.kinds, option.kind)
    applyOption(option, draft, value, names)
  }
}

/** An error that popt finds does not end a restore. */
function scanError(found: ScanError): LbError {
  return usageError(`${found.word}: ${found.error}`, statusOfScanError, false)
}

function noteKind(given: Set<KindName>, kind: KindName): void {
  if (given.has(kind)) throw usageError(`multiple '${kind}' options specified`)
  given.add(kind)
}

function applyOption(option: OptionRecord, draft: Draft, value: string | undefined, names: NameSource): void {
  if (option.long === 'persistent') draft.persistenceS = readTimeout(value, 1)
  else effects[option.long as keyof typeof effects]?.(draft, value ?? '', names)
}

function takeTimeouts(leftovers: string[]): Timeouts {
  const [tcp, tcpFin, udp] = leftovers.splice(0, 3)
  if (tcp === undefined || tcpFin === undefined || udp === undefined) {
    throw usageError('--set option requires 3 timeout values')
  }
  return { tcpS: readTimeout(tcp, 0), tcpFinS: readTimeout(tcpFin, 0), udpS: readTimeout(udp, 0) }
}

function checkKinds(command: CommandName, given: ReadonlySet<KindName>): void {
  let exclusive: string | undefined
  for (const { name, in: rules } of kinds as readonly (Kind & { name: KindName })[]) {
    const rule = rules[command]
    if (!given.has(name)) {
      if (rule === 'required') throw usageError(`You need to supply the '${name}' option for the '${command}' command`)
      continue
    }
    if (rule === undefined) throw usageError(`Illegal '${name}' option with the '${command}' command`)
    if (rule !== 'exclusive') continue
    if (exclusive !== undefined) {
      throw usageError(`The option '${name}' conflicts with the '${exclusive}' option in the '${command}' command`)
    }
    exclusive = name
  }
}

/** The options, and what else the command line said. */
interface Gathered extends Omit<Draft, 'schedulerFlags'> {
  readonly schedulerFlags: ServiceRequest['schedulerFlags']
  readonly role: SyncDaemonRequest['role']
  readonly timeouts: Timeouts
}

function build(name: CommandName, draft: Gathered): Command {
  switch (name) {
    case 'add-service':
    case 'edit-service':
      return { do: name, service: buildService(draft) }
    case 'delete-service':
      return { do: name, service: serviceKey(draft) }
    case 'add-server':
    case 'edit-server':
      return { do: name, service: serviceKey(draft), server: buildServer(draft) }
    case 'delete-server':
      return { do: name, service: serviceKey(draft), server: serverOf(draft) }
    case 'list':
      return buildList(draft)
    case 'save':
      return { do: name, numeric: draft.kinds.has('numeric') }
    case 'zero':
      return draft.kinds.has('service-address') ? { do: name, service: serviceKey(draft) } : { do: name }
    case 'set':
      return { do: name, timeouts: draft.timeouts }
    case 'start-daemon':
      return { do: name, daemon: buildDaemon(draft) }
    case 'stop-daemon':
      return { do: name, role: draft.role }
    case 'flush':
    case 'restore':
    case 'help':
    case 'version':
      return { do: name }
  }
}

function serviceKey(draft: Gathered): ServiceKey {
  if (draft.mark !== 0) return { kind: 'fwmark', family: draft.family, mark: draft.mark }
  const protocol: Protocol = draft.protocol ?? 'tcp'
  return { kind: 'address', family: draft.family, protocol, address: draft.address, port: draft.port }
}

function buildService(draft: Gathered): ServiceRequest {
  const { mark, port, protocol, persistenceS, onePacket, netmask } = draft
  if (mark === 0 && port === 0 && persistenceS === undefined) {
    throw usageError('Zero port specified for non-persistent service')
  }
  if (onePacket && mark === 0 && protocol !== 'udp') {
    throw usageError('One-Packet Scheduling is only for UDP virtual services')
  }
  const scheduler = draft.scheduler === '' ? 'wlc' : draft.scheduler
  return {
    key: serviceKey(draft),
    scheduler,
    schedulerFlags: draft.schedulerFlags,
    ...(persistenceS === undefined ? {} : { persistence: { timeoutS: persistenceS, mask: netmask } }),
    onePacket,
    ...(draft.engine === '' ? {} : { engine: draft.engine }),
  }
}

function serverOf(draft: Gathered): ServerKey {
  return draft.server ?? { family: draft.family, address: '0.0.0.0', port: 0 }
}

/** A server that is not reached by NAT is reached at the service's port. */
function buildServer(draft: Gathered): ServerSpec {
  const { weight, method, upper, lower } = draft
  const server = serverOf(draft)
  const port = draft.mark === 0 && method !== 'masq' ? draft.port : server.port
  checkFamilies(draft.family, server.family, method)
  const tunnel = readTunnel(draft)
  return { ...server, port, weight, method, upper, lower, ...(tunnel === undefined ? {} : { tunnel }) }
}

function checkFamilies(service: Family, server: Family, method: ServerSpec['method']): void {
  if (service !== server && method !== 'tunnel') {
    throw usageError('Different address family is allowed only for tunneling servers')
  }
}

function buildList(draft: Gathered): ListCommand {
  const given = draft.kinds
  const columns = listingColumns.find((column) => given.has(column)) ?? 'plain'
  const what = given.has('connection')
    ? 'connections'
    : given.has('service-address')
      ? 'service'
      : given.has('timeout')
        ? 'timeouts'
        : given.has('daemon')
          ? 'daemons'
          : 'table'
  if (!listable(what, given)) throw usageError('options conflicts in the list command')
  return {
    do: 'list',
    what,
    ...(what === 'service' ? { service: serviceKey(draft) } : {}),
    columns,
    engines: given.has('persistent-conn'),
    numeric: given.has('numeric'),
    exact: given.has('exact'),
    sorted: !given.has('nosort'),
    insiders: given.has('insiders'),
  }
}

/** Whether the columns asked for are columns of what is listed; some that are not are let pass, as in ipvsadm. */
function listable(what: ListCommand['what'], given: ReadonlySet<KindName>): boolean {
  if (what === 'table' || what === 'service') return true
  if (given.has('stats') || given.has('rate') || given.has('thresholds') || given.has('insiders')) return false
  return what === 'connections' || !given.has('persistent-conn')
}

function buildDaemon(draft: Gathered): SyncDaemonRequest {
  return {
    role: draft.role,
    syncId: draft.syncId,
    interface: draft.syncInterface === '' ? 'eth0' : draft.syncInterface,
    ...(draft.syncMaxLength === undefined ? {} : { maxLength: draft.syncMaxLength }),
    ...(draft.syncGroup === undefined ? {} : { group: draft.syncGroup }),
    ...(draft.syncPort === undefined ? {} : { port: draft.syncPort }),
    ...(draft.syncTtl === undefined ? {} : { ttl: draft.syncTtl }),
  }
}
