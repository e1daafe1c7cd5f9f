/** Between what people write (src/model) and what the table holds (src/maps/records.ts); says what cannot be. Pure. */
import { LbFwd, LbPolicy, LbSched, lbSchedNames, LbServiceFlag } from '../abi/generated.ts'
import { ADDRESS_BYTES, formatAddress, writeAddress } from '../model/address.ts'
import {
  namedPort,
  serverAddress,
  serverFamily,
  serverName,
  serviceFamily,
  serviceKey,
  serviceName,
  serviceProtocol,
} from '../maps/names.ts'
import { intervalsOf, packIntervals, prefixesOf, unpackIntervals } from '../maps/intervals.ts'
import type { ServiceName } from '../maps/names.ts'
import type { ServerConfig, ServerWant, ServiceConfig, ServiceWant } from '../maps/records.ts'
import { LbError } from '../model/errors.ts'
import { isUnicast } from '../model/server-address.ts'
import { schedulers } from '../model/types.ts'
import type {
  ForwardingMethod,
  Persistence,
  Scheduler,
  ServerKey,
  ServerSpec,
  ServiceKey,
  ServicePolicy,
  ServiceSpec,
  Timeouts,
} from '../model/types.ts'

/** The greatest weight and threshold: a __s32 in the kernel. */
const MAX_WEIGHT = 0x7fffffff
/** 31 days, as ipvsadm allows for --set and -p. */
const MAX_TIMEOUT_S = 31 * 24 * 60 * 60
/** Weights up to this one have a configuration that servers share. */
const MOST_SHARED = 1000
const { SERVICE_SCHED1, SERVICE_SCHED2, SERVICE_SCHED3 } = LbServiceFlag
const schedulerFlags = [SERVICE_SCHED1, SERVICE_SCHED2, SERVICE_SCHED3] as const
const methods = { masq: LbFwd.FWD_MASQ, tunnel: LbFwd.FWD_TUNNEL, droute: LbFwd.FWD_DROUTE } as const
const tunnelTypes = ['ipip', 'gue', 'gre'] as const
const tunnelChecksums = ['none', 'csum', 'remcsum'] as const

/** NO_SCHEDULER; INVALID: an address, a port, a mark, persistence, port 0 without it, or whom a policy allows. */
export function encodeService(spec: ServiceSpec): ServiceWant {
  const name = serviceName(spec.key)
  if (spec.scheduler !== 'none' && !schedulers.includes(spec.scheduler)) {
    throw new LbError('NO_SCHEDULER', undefined, { scheduler: spec.scheduler })
  }
  if (spec.key.kind === 'address' && spec.key.port === 0 && spec.persistence === undefined) {
    throw invalid('port', 0)
  }
  let flags = spec.onePacket ? LbServiceFlag.SERVICE_ONEPACKET : 0
  for (const flag of spec.schedulerFlags) flags |= schedulerFlags[flag - 1] ?? 0
  if (spec.persistence !== undefined) flags |= LbServiceFlag.SERVICE_PERSISTENT
  const config = {
    scheduler: schedulerNumber(spec.scheduler),
    flags,
    ...encodePersistence(spec),
    ...encodePolicy(spec),
  }
  return { name, config }
}

/**
 * RANGE: weight or thresholds; INVALID: an address of no host, a port, a family that the method can't
 * reach. The port of a server that is not behind NAT is the service's (as ipvsadm; not with a mark).
 */
export function encodeServer(service: ServiceName, spec: ServerSpec): ServerWant {
  checkRange('weight', spec.weight)
  checkRange('upper threshold', spec.upper)
  checkRange('lower threshold', spec.lower)
  if (spec.lower > spec.upper) {
    throw new LbError('RANGE', undefined, { what: 'lower threshold', value: spec.lower, above: spec.upper })
  }
  const ownPort = spec.method === 'masq' || serviceProtocol(service) === 0
  const name = serverName(ownPort ? spec : { ...spec, port: namedPort(service) })
  if (!isUnicast(serverFamily(name), name.charCodeAt(0), () => serverAddress(name)))
    throw invalid('server address', spec.address)
  if (serverFamily(name) !== serviceFamily(service) && spec.method !== 'tunnel') {
    throw invalid('server family', spec.family)
  }
  return { name, config: encodeServerConfig(spec) }
}

/** The spec of a service, from its name and configuration. */
export function decodeService(name: ServiceName, config: ServiceConfig): ServiceSpec {
  const flags = schedulerFlags.flatMap((bit, i) => ((config.flags & bit) !== 0 ? [(i + 1) as 1 | 2 | 3] : []))
  const persistent = (config.flags & LbServiceFlag.SERVICE_PERSISTENT) !== 0
  return {
    key: serviceKey(name),
    scheduler: schedulerName(config.scheduler),
    schedulerFlags: flags,
    onePacket: (config.flags & LbServiceFlag.SERVICE_ONEPACKET) !== 0,
    ...(persistent ? { persistence: decodePersistence(name, config) } : {}),
    ...(config.policy === 0 && config.allowed === '' ? {} : { policy: decodePolicy(name, config) }),
  }
}

/** The spec of a server, from its key and configuration. */
export function decodeServer(key: ServerKey, config: ServerConfig): ServerSpec {
  const method = methodName(config.method)
  const { weight, upper, lower } = config
  const { family, address, port } = key
  const spec = { family, address, port, weight, method, upper, lower }
  if (method !== 'tunnel') return spec
  const tunnel = {
    type: tunnelTypes[config.tunnelType] ?? 'ipip',
    port: config.tunnelPort,
    checksum: tunnelChecksums[config.tunnelFlags] ?? 'none',
  } as const
  return { ...spec, tunnel }
}

/** INVALID unless each is a whole number of seconds up to 31 days. */
export function checkTimeouts(timeouts: Timeouts): void {
  for (const [what, value] of Object.entries(timeouts)) {
    if (!Number.isInteger(value) || value < 0 || value > MAX_TIMEOUT_S) throw invalid(what, value)
  }
}

/** "TCP 10.0.0.1:80", "FWM 7": for messages. */
export function describeKey(key: ServiceKey): string {
  if (key.kind === 'fwmark') return `FWM ${key.mark} IPv${key.family}`
  const address = key.family === 6 ? `[${key.address}]` : key.address
  return `${key.protocol.toUpperCase()} ${address}:${key.port}`
}

/** enum lb_sched of a name. */
function schedulerNumber(name: Scheduler): number {
  return LbSched[`SCHED_${name.toUpperCase()}` as keyof typeof LbSched]
}

function schedulerName(number: number): Scheduler {
  const text = lbSchedNames[number]?.replace('SCHED_', '').toLowerCase()
  return schedulers.find((name) => name === text) ?? 'none'
}

function methodName(number: number): ForwardingMethod {
  if (number === LbFwd.FWD_TUNNEL) return 'tunnel'
  return number === LbFwd.FWD_DROUTE ? 'droute' : 'masq'
}

/** Servers that are not in tunnels and have no thresholds, by weight if that is small: nearly all are alike, and share it. */
const plainConfigs: ServerConfig[] = []

function encodeServerConfig(spec: ServerSpec): ServerConfig {
  const { method, weight, upper, lower } = spec
  if (method !== 'masq' || upper !== 0 || lower !== 0 || weight > MOST_SHARED) return makeServerConfig(spec)
  return (plainConfigs[weight] ??= Object.freeze(makeServerConfig(spec)))
}

function makeServerConfig(spec: ServerSpec): ServerConfig {
  const tunnel = spec.method === 'tunnel' ? spec.tunnel : undefined
  if (tunnel !== undefined && !(Number.isInteger(tunnel.port) && tunnel.port >= 0 && tunnel.port <= 65535)) {
    throw invalid('tunnel port', tunnel.port)
  }
  return {
    method: methods[spec.method],
    weight: spec.weight,
    upper: spec.upper,
    lower: spec.lower,
    tunnelType: tunnel === undefined ? 0 : tunnelTypes.indexOf(tunnel.type),
    tunnelFlags: tunnel === undefined ? 0 : tunnelChecksums.indexOf(tunnel.checksum),
    tunnelPort: tunnel?.port ?? 0,
  }
}

function encodePersistence(
  spec: ServiceSpec,
): Pick<ServiceConfig, 'timeoutS' | 'netmask' | 'affinity' | 'affinityPort'> {
  if (spec.persistence === undefined) return { timeoutS: 0, netmask: 0, affinity: 0, affinityPort: 0 }
  const { timeoutS, mask, group = { id: 0, port: 0 } } = spec.persistence
  if (spec.persistence.group !== undefined && !(isWhole(group.id, 1, 0xffffffff) && isWhole(group.port, 0, 65535))) {
    throw invalid('persistence group', `${group.id}, port ${group.port}`)
  }
  const affinity = { affinity: group.id, affinityPort: group.port }
  if (!Number.isInteger(timeoutS) || timeoutS < 1 || timeoutS > MAX_TIMEOUT_S) {
    throw invalid('persistence timeout', timeoutS)
  }
  if (spec.key.family === 4) {
    const bytes = new Uint8Array(ADDRESS_BYTES)
    if (typeof mask !== 'string' || !writeAddress(bytes, 0, mask, 4)) throw invalid('persistence mask', mask)
    return { timeoutS, netmask: new DataView(bytes.buffer).getUint32(0), ...affinity }
  }
  if (typeof mask !== 'number' || !Number.isInteger(mask) || mask < 1 || mask > 128) {
    throw invalid('persistence mask', mask)
  }
  return { timeoutS, netmask: mask, ...affinity }
}

function isWhole(value: number, least: number, most: number): boolean {
  return Number.isInteger(value) && value >= least && value <= most
}

function decodePersistence(name: ServiceName, config: ServiceConfig): Persistence {
  const { timeoutS, netmask, affinity: id, affinityPort: port } = config
  const group = id === 0 ? {} : { group: { id, port } }
  if (serviceFamily(name) === 6) return { timeoutS, mask: netmask, ...group }
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, netmask)
  return { timeoutS, mask: formatAddress(bytes, 0, 4), ...group }
}

function encodePolicy({ key, policy }: ServiceSpec): Pick<ServiceConfig, 'policy' | 'allowed'> {
  if (policy === undefined) return { policy: 0, allowed: '' }
  const { masquerade, whenEmpty, nodePort, foreign, tunnelled = false, sources } = policy
  if (sources?.length === 0) throw invalid('source addresses', 'none')
  const bits = [
    [masquerade.pods, LbPolicy.POLICY_MASQ_PODS],
    [masquerade.node, LbPolicy.POLICY_MASQ_NODE],
    [masquerade.others, LbPolicy.POLICY_MASQ_OTHERS],
    [whenEmpty === 'drop', LbPolicy.POLICY_DROP_EMPTY],
    [nodePort, LbPolicy.POLICY_NODE_PORT],
    [foreign, LbPolicy.POLICY_FOREIGN],
    [tunnelled, LbPolicy.POLICY_TUNNELLED],
  ] as const
  return {
    policy: bits.reduce((sum, [is, bit]) => (is ? sum | bit : sum), 0),
    allowed: sources === undefined ? '' : packIntervals(intervalsOf(sources, key.family), key.family),
  }
}

function decodePolicy(name: ServiceName, { policy, allowed }: ServiceConfig): ServicePolicy {
  const has = (bit: number): boolean => (policy & bit) !== 0
  const family = serviceFamily(name)
  return {
    masquerade: {
      pods: has(LbPolicy.POLICY_MASQ_PODS),
      node: has(LbPolicy.POLICY_MASQ_NODE),
      others: has(LbPolicy.POLICY_MASQ_OTHERS),
    },
    whenEmpty: has(LbPolicy.POLICY_DROP_EMPTY) ? 'drop' : 'refuse',
    nodePort: has(LbPolicy.POLICY_NODE_PORT),
    foreign: has(LbPolicy.POLICY_FOREIGN),
    ...(has(LbPolicy.POLICY_TUNNELLED) ? { tunnelled: true } : {}),
    ...(allowed === '' ? {} : { sources: prefixesOf(unpackIntervals(allowed, family), family) }),
  }
}

function checkRange(what: string, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > MAX_WEIGHT) {
    throw new LbError('RANGE', undefined, { what, value })
  }
}

function invalid(what: string, value: unknown): LbError {
  return new LbError('INVALID', undefined, { what, value })
}
