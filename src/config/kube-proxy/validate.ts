/** What of a KubeProxyConfiguration cannot be, in the words of kube-proxy. */
import { isIP } from 'node:net'
import { LbError } from '../../model/errors.ts'
import { formatDuration } from './duration.ts'
import type { FieldPath, KubeProxyConfiguration } from './fields.ts'
import { cidrFamily, splitHostPort } from './net.ts'

interface Problem {
  readonly field: FieldPath
  readonly text: string
}

const modes = ['', 'iptables', 'ipvs', 'nftables']
const localModes = ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix', '']

/** CONFIG: `failed validate: ...`, all problems together; `lines` tell where the fields are in their file. */
export function validate(config: KubeProxyConfiguration, lines: ReadonlyMap<FieldPath, number>): void {
  const problems = [...checks(config)]
  if (problems.length === 0) return
  const texts = problems.map(({ field, text }) => {
    const line = lines.get(field)
    return line === undefined ? text : `${text} (line ${line})`
  })
  const all = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`
  throw new LbError('CONFIG', `failed validate: ${all}`, { fields: problems.map(({ field }) => field) })
}

function* checks(config: KubeProxyConfiguration): Generator<Problem> {
  yield* checkRanges(config)
  if (config.mode === 'ipvs') yield* checkIpvs(config)
  if (!modes.includes(config.mode)) {
    const known =
      'must be iptables, ipvs, nftables or blank (blank means the best-available proxy [currently iptables])'
    yield invalid('mode', 'Mode.ProxyMode', config.mode, known)
  }
  if (config['clientConnection.burst'] < 0) {
    const reason = 'must be greater than or equal to 0'
    yield invalid('clientConnection.burst', 'ClientConnection.Burst', config['clientConnection.burst'], reason)
  }
  yield* checkProcess(config)
  yield* checkAddresses(config)
  yield* checkLocal(config)
}

function* checkRanges(config: KubeProxyConfiguration): Generator<Problem> {
  const bits = [
    ['iptables.masqueradeBit', 'KubeProxyIPTablesConfiguration.MasqueradeBit'],
    ['nftables.masqueradeBit', 'KubeProxyNFTablesConfiguration.MasqueradeBit'],
  ] as const
  for (const [field, name] of bits) {
    if (config[field] < 0 || config[field] > 31)
      yield invalid(field, name, config[field], 'must be within the range [0, 31]')
  }
  const atLeastZero = [
    ['conntrack.maxPerCore', 'KubeProxyConntrackConfiguration.MaxPerCore'],
    ['conntrack.min', 'KubeProxyConntrackConfiguration.Min'],
  ] as const
  for (const [field, name] of atLeastZero) {
    if (config[field] < 0) yield invalid(field, name, config[field], 'must be greater than or equal to 0')
  }
  const timeouts = [
    ['conntrack.tcpEstablishedTimeout', 'KubeProxyConntrackConfiguration.TCPEstablishedTimeout'],
    ['conntrack.tcpCloseWaitTimeout', 'KubeProxyConntrackConfiguration.TCPCloseWaitTimeout'],
    ['conntrack.udpTimeout', 'KubeProxyConntrackConfiguration.UDPTimeout'],
    ['conntrack.udpStreamTimeout', 'KubeProxyConntrackConfiguration.UDPStreamTimeout'],
  ] as const
  for (const [field, name] of timeouts) yield* checkDuration(config, field, name)
}

function* checkProcess(config: KubeProxyConfiguration): Generator<Problem> {
  const score = config.oomScoreAdj
  if (score < -1000 || score > 1000) {
    yield invalid('oomScoreAdj', 'OOMScoreAdj', score, 'must be within the range [-1000, 1000]')
  }
  if (config.configSyncPeriod <= 0) {
    const text = formatDuration(config.configSyncPeriod)
    yield invalid('configSyncPeriod', 'ConfigSyncPeriod', text, 'must be greater than 0')
  }
}

function* checkIpvs(config: KubeProxyConfiguration): Generator<Problem> {
  const section = 'KubeProxyIPVSConfiguration'
  yield* checkDuration(config, 'ipvs.minSyncPeriod', `${section}.MinSyncPeriod`)
  yield* checkDuration(config, 'ipvs.tcpTimeout', `${section}.TCPTimeout`)
  yield* checkDuration(config, 'ipvs.tcpFinTimeout', `${section}.TCPFinTimeout`)
  yield* checkDuration(config, 'ipvs.udpTimeout', `${section}.UDPTimeout`)
  for (const [i, cidr] of (config['ipvs.excludeCIDRs'] ?? []).entries()) {
    if (cidrFamily(cidr) !== 0) continue
    yield invalid('ipvs.excludeCIDRs', `${section}.ExcludeCidrs[${i}]`, cidr, 'must be a valid CIDR')
  }
}

function* checkAddresses(config: KubeProxyConfiguration): Generator<Problem> {
  if (isIP(config.bindAddress) === 0) {
    const reason = 'not a valid textual representation of an IP address'
    yield invalid('bindAddress', 'BindAddress', config.bindAddress, reason)
  }
  yield* checkHostPort(config, 'healthzBindAddress', 'HealthzBindAddress')
  yield* checkHostPort(config, 'metricsBindAddress', 'MetricsBindAddress')
  const wanted = config.nodePortAddresses ?? []
  for (const [i, text] of wanted.entries()) {
    const name = `NodePortAddresses[${i}]`
    if (text === 'primary' && wanted.length > 1) {
      yield invalid('nodePortAddresses', name, text, "can't use both 'primary' and CIDRs")
    } else if (text !== 'primary' && cidrFamily(text) === 0) {
      yield invalid('nodePortAddresses', name, text, 'must be a valid CIDR')
    }
  }
}

/** Empty: there is no such server. */
function* checkHostPort(
  config: KubeProxyConfiguration,
  field: 'healthzBindAddress' | 'metricsBindAddress',
  name: string,
): Generator<Problem> {
  const text = config[field]
  if (text === '') return
  const parts = splitHostPort(text)
  if (parts === undefined) {
    yield invalid(field, name, text, 'must be IP:port')
    return
  }
  if (isIP(parts.host) === 0) yield invalid(field, name, parts.host, 'must be a valid IP')
  const port = Number(parts.port)
  if (!/^\d+$/.test(parts.port) || port < 1 || port > 65535) {
    yield invalid(field, name, parts.port, 'must be a valid port')
  }
}

function* checkLocal(config: KubeProxyConfiguration): Generator<Problem> {
  const section = 'DetectLocalConfiguration'
  const mode = config.detectLocalMode
  if (!localModes.includes(mode)) {
    const known = localModes.map((each) => JSON.stringify(each)).join(', ')
    const text = `KubeProxyConfiguration.DetectLocalMode: Unsupported value: ${JSON.stringify(mode)}: supported values: ${known}`
    yield { field: 'detectLocalMode', text }
  }
  if (mode === 'BridgeInterface' && config['detectLocal.bridgeInterface'] === '') {
    yield invalid('detectLocal.bridgeInterface', `${section}.InterfaceName`, '', 'must not be empty')
  }
  if (mode === 'InterfaceNamePrefix' && config['detectLocal.interfaceNamePrefix'] === '') {
    yield invalid('detectLocal.interfaceNamePrefix', `${section}.InterfacePrefix`, '', 'must not be empty')
  }
  if (config.clusterCIDR === '') return
  const cidrs = config.clusterCIDR.split(',')
  const bad = [...cidrs.entries()].filter(([, cidr]) => cidrFamily(cidr) === 0)
  for (const [i, cidr] of bad) {
    const reason = 'must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)'
    yield invalid('clusterCIDR', `${section}.ClusterCIDRs[${i}]`, cidr, reason)
  }
  if (bad.length === 0 && (cidrs.length > 2 || new Set(cidrs.map(cidrFamily)).size < cidrs.length)) {
    const reason =
      'must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]'
    yield invalid('clusterCIDR', `${section}.ClusterCIDRs`, cidrs, reason)
  }
}

function* checkDuration(config: KubeProxyConfiguration, field: FieldPath, name: string): Generator<Problem> {
  const ns = config[field]
  if (typeof ns !== 'number' || ns >= 0) return
  yield invalid(field, name, formatDuration(ns), 'must be greater than or equal to 0')
}

function invalid(field: FieldPath, name: string, value: unknown, reason: string): Problem {
  return { field, text: `KubeProxyConfiguration.${name}: Invalid value: ${JSON.stringify(value)}: ${reason}` }
}
