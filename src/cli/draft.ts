/**
 * What the options of a command line add up to. Options take effect one after the other, and some read what came
 * before them (`-6` needs `-f`, a server without a port takes the service's), so their order matters as in ipvsadm.
 */
import type { Family, ForwardingMethod, Protocol, ServerKey, ServerSpec } from '../model/types.ts'
import { formatAddress, isMulticast, parseIPv4, parseIPv6, parseLooseIPv4 } from './address.ts'
import type { KindName, OptionName } from './options.ts'
import { usageError } from './usage-error.ts'
import { readEndpoint, readNumber, readLeadingNumber, type NameSource } from './values.ts'

export type Tunnel = NonNullable<ServerSpec['tunnel']>

/** Everything that options set, with the values of ipvsadm where none is given. */
export interface Draft {
  readonly kinds: Set<KindName>
  family: Family
  protocol: Protocol | undefined
  address: string
  port: number
  /** 0: not a firewall mark's service. */
  mark: number
  scheduler: string
  schedulerFlags: string
  engine: string
  persistenceS: number | undefined
  netmask: string | number
  onePacket: boolean
  server: ServerKey | undefined
  method: ForwardingMethod
  weight: number
  upper: number
  lower: number
  tunnelType: Tunnel['type']
  tunnelPort: number
  syncInterface: string
  syncId: number
  syncMaxLength: number | undefined
  syncGroup: string | undefined
  syncPort: number | undefined
  syncTtl: number | undefined
}

export function newDraft(): Draft {
  return {
    kinds: new Set(),
    family: 4,
    protocol: undefined,
    address: '0.0.0.0',
    port: 0,
    mark: 0,
    scheduler: '',
    schedulerFlags: '',
    engine: '',
    persistenceS: undefined,
    netmask: '255.255.255.255',
    onePacket: false,
    server: undefined,
    method: 'droute',
    weight: 1,
    upper: 0,
    lower: 0,
    tunnelType: 'ipip',
    tunnelPort: 0,
    syncInterface: '',
    syncId: 0,
    syncMaxLength: undefined,
    syncGroup: undefined,
    syncPort: undefined,
    syncTtl: undefined,
  }
}

/** What an option does to the draft. `value` is empty for an option that takes none. */
type Effect = (draft: Draft, value: string, names: NameSource) => void

const maxInt = 2147483647
const maxMark = 4294967295
/** 31 days, the longest timeout in seconds that ipvsadm takes. */
export const maxTimeoutS = 31 * 24 * 60 * 60
const defaultPersistenceS = 360
const longestSchedulerName = 15
const longestEngineName = 16
const longestInterfaceName = 15

/** Effects of the options; those that only say which output is wanted have none beyond their kind. */
export const effects: Readonly<Partial<Record<OptionName, Effect>>> = {
  'tcp-service': (draft, value, names) => setService(draft, 'tcp', value, names),
  'udp-service': (draft, value, names) => setService(draft, 'udp', value, names),
  'sctp-service': (draft, value, names) => setService(draft, 'sctp', value, names),
  'fwmark-service': setMark,
  ipv6: setIPv6,
  scheduler: (draft, value) => {
    draft.scheduler = value.slice(0, longestSchedulerName)
  },
  pe: (draft, value) => {
    draft.engine = value.slice(0, longestEngineName)
  },
  persistent: (draft, value) => {
    draft.persistenceS = readTimeout(value, 1)
  },
  netmask: setNetmask,
  ops: (draft) => {
    draft.onePacket = true
  },
  'sched-flags': (draft, value) => {
    draft.schedulerFlags = value
  },
  'real-server': setServer,
  masquerading: (draft) => {
    draft.method = 'masq'
  },
  ipip: (draft) => {
    draft.method = 'tunnel'
  },
  gatewaying: (draft) => {
    draft.method = 'droute'
  },
  weight: (draft, value) => {
    draft.weight = numberOr('illegal weight specified', value, 0, maxInt)
  },
  'u-threshold': (draft, value) => {
    draft.upper = numberOr('illegal u_threshold specified', value, 0, maxInt)
  },
  'l-threshold': (draft, value) => {
    draft.lower = numberOr('illegal l_threshold specified', value, 0, maxInt)
  },
  'tun-type': setTunnelType,
  'tun-port': (draft, value) => {
    draft.tunnelPort = numberOr('illegal tunnel port specified', value, 1, 65535)
  },
  'mcast-interface': (draft, value) => {
    draft.syncInterface = value.slice(0, longestInterfaceName)
  },
  syncid: (draft, value) => {
    draft.syncId = numberOr('illegal syncid specified', value, 0, 255)
  },
  'sync-maxlen': (draft, value) => {
    draft.syncMaxLength = numberOr('illegal sync-maxlen specified', value, 1, 65507)
  },
  'mcast-group': setGroup,
  'mcast-port': (draft, value) => {
    draft.syncPort = numberOr('illegal mcast-port specified', value, 1, 65535)
  },
  'mcast-ttl': (draft, value) => {
    draft.syncTtl = numberOr('illegal mcast-ttl specified', value, 1, 255)
  },
}

function numberOr(message: string, text: string, min: number, max: number): number {
  const number = readNumber(text, min, max)
  if (number === undefined) throw usageError(message)
  return number
}

/** Seconds, at least `min`; no text: the default of persistence. */
export function readTimeout(text: string | undefined, min: number): number {
  if (text === undefined) return defaultPersistenceS
  return numberOr(`invalid timeout value \`${text}' specified`, text, min, maxTimeoutS)
}

function setService(draft: Draft, protocol: Protocol, text: string, names: NameSource): void {
  draft.protocol = protocol
  const endpoint = readEndpoint(text, protocol, names)
  if (endpoint === undefined) throw usageError('illegal virtual server address[:port] specified')
  draft.family = endpoint.family
  draft.address = endpoint.address
  draft.port = endpoint.port ?? 0
  if (endpoint.family === 6) draft.netmask = 128
}

function setMark(draft: Draft, text: string): void {
  draft.family = 4
  draft.protocol = 'tcp'
  draft.mark = numberOr(`invalid fwmark value \`${text}' specified`, text, 1, maxMark)
}

function setIPv6(draft: Draft): void {
  if (draft.mark === 0) throw usageError('-6 used before -f\n')
  draft.family = 6
  draft.netmask = 128
}

function setNetmask(draft: Draft, text: string, names: NameSource): void {
  if (draft.family === 6) {
    const length = readLeadingNumber(text)
    if (length < 1 || length > 128) throw usageError('illegal ipv6 netmask specified')
    draft.netmask = length
    return
  }
  const mask = parseLooseIPv4(text) ?? names.address(text)
  if (mask === undefined) throw usageError('illegal virtual server persistent mask specified')
  draft.netmask = mask
}

function setServer(draft: Draft, text: string, names: NameSource): void {
  const endpoint = readEndpoint(text, draft.protocol, names)
  if (endpoint === undefined) throw usageError('illegal real server address[:port] specified')
  draft.server = { ...endpoint, port: endpoint.port ?? draft.port }
}

function setTunnelType(draft: Draft, text: string): void {
  if (text !== 'ipip' && text !== 'gue' && text !== 'gre') throw usageError('illegal tunnel type specified')
  draft.tunnelType = text
}

function setGroup(draft: Draft, text: string): void {
  const family = text.includes(':') ? 6 : 4
  const group = family === 6 ? parseIPv6(text) : parseIPv4(text)
  const address = group === undefined ? undefined : formatAddress(group)
  if (address === undefined || !isMulticast({ family, address })) {
    throw usageError(`invalid IPv${family} mcast-group \`${text}'`)
  }
  draft.syncGroup = address
}
