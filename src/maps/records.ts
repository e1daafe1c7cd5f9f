/** What is configured of a service and a server, in the numbers of bpf/abi.h: easy to compare and to write. */
import { LbPolicy, LbServiceArray, LbServiceFlag } from '../abi/generated.ts'
import { readAllowed } from './audience.ts'
import type { PackedIntervals } from './intervals.ts'
import { serviceFamily } from './names.ts'
import type { ServerName, ServiceName } from './names.ts'
import type { TableMaps } from './table-maps.ts'

export interface ServiceConfig {
  /** enum lb_sched */
  readonly scheduler: number
  /** enum lb_service_flag */
  readonly flags: number
  /** Of persistence; 0 without. */
  readonly timeoutS: number
  /** Of persistence: an IPv4 mask as a number in host order, or an IPv6 prefix length; 0 without. */
  readonly netmask: number
  /** Of persistence: what services that share templates have in common; 0: it shares none. */
  readonly affinity: number
  readonly affinityPort: number
  /** enum lb_policy, without LB_POLICY_AUDIENCE */
  readonly policy: number
  /** Who may use it (see intervals.ts); empty: everybody. */
  readonly allowed: PackedIntervals
}

export interface ServerConfig {
  /** enum lb_fwd */
  readonly method: number
  readonly weight: number
  readonly upper: number
  readonly lower: number
  /** IP_VS_CONN_F_TUNNEL_TYPE_*, IP_VS_TUNNEL_ENCAP_FLAG_*; 0 without a tunnel. */
  readonly tunnelType: number
  readonly tunnelFlags: number
  readonly tunnelPort: number
}

/** A server as it shall be. */
export interface ServerWant {
  readonly name: ServerName
  readonly config: ServerConfig
}

/** A service as it shall be. */
export interface ServiceWant {
  readonly name: ServiceName
  readonly config: ServiceConfig
}

export function sameServiceConfig(a: ServiceConfig, b: ServiceConfig): boolean {
  return (
    a.scheduler === b.scheduler &&
    a.flags === b.flags &&
    a.timeoutS === b.timeoutS &&
    a.netmask === b.netmask &&
    a.affinity === b.affinity &&
    a.affinityPort === b.affinityPort &&
    a.policy === b.policy &&
    a.allowed === b.allowed
  )
}

export function sameServerConfig(a: ServerConfig, b: ServerConfig): boolean {
  return (
    a.weight === b.weight &&
    a.method === b.method &&
    a.upper === b.upper &&
    a.lower === b.lower &&
    a.tunnelType === b.tunnelType &&
    a.tunnelFlags === b.tunnelFlags &&
    a.tunnelPort === b.tunnelPort
  )
}

/** Of a service that has a list. */
export function readServiceConfig(maps: TableMaps, id: number): ServiceConfig {
  const { services, cells } = maps
  const list = services.list(id)
  return {
    scheduler: cells.listSched(list),
    flags: services.flags(id) & ~LbServiceFlag.SERVICE_INSIDERS,
    timeoutS: services.timeout(id),
    netmask: services.af(id) === 6 ? (services.u32[netmaskWord(id)] ?? 0) : services.netmask(id),
    affinity: services.affinity(id),
    affinityPort: services.affinityPort(id),
    policy: cells.listPolicy(list) & ~LbPolicy.POLICY_AUDIENCE,
    allowed: readAllowed(cells, list),
  }
}

/** The configuration of a service's insiders, which follows it: who may come is asked before. */
export function insidersConfig(config: ServiceConfig): ServiceConfig {
  return { ...config, allowed: '' }
}

/**
 * All but what is in the list: scheduler, policy, who may come. A packet that finds the flag of persistence finds a timeout
 * and mask too.
 */
export function writeServiceConfig(maps: TableMaps, id: number, config: ServiceConfig): void {
  const { services } = maps
  const kept = services.flags(id) & LbServiceFlag.SERVICE_INSIDERS
  services.setFlags(id, (config.flags & services.flags(id)) | kept)
  services.setTimeout(id, config.timeoutS)
  if (serviceFamily(maps.serviceName(id)) === 6) services.u32[netmaskWord(id)] = config.netmask
  else services.setNetmask(id, config.netmask)
  services.setAffinity(id, config.affinity)
  services.setAffinityPort(id, config.affinityPort)
  services.setFlags(id, config.flags | kept)
}

export function readServerConfig(maps: TableMaps, id: number): ServerConfig {
  const { servers } = maps
  return {
    method: servers.fwd(id),
    weight: servers.weight(id),
    upper: servers.upper(id),
    lower: servers.lower(id),
    tunnelType: servers.tunType(id),
    tunnelFlags: servers.tunFlags(id),
    tunnelPort: servers.tunPort(id),
  }
}

/** All but the last weight. */
export function writeServerConfig(maps: TableMaps, id: number, config: ServerConfig): void {
  const { servers } = maps
  servers.setFwd(id, config.method)
  servers.setWeight(id, config.weight)
  servers.setUpper(id, config.upper)
  servers.setLower(id, config.lower)
  servers.setTunType(id, config.tunnelType)
  servers.setTunFlags(id, config.tunnelFlags)
  servers.setTunPort(id, config.tunnelPort)
}

function netmaskWord(id: number): number {
  return (id * LbServiceArray.size + LbServiceArray.at.netmask) / 4
}
