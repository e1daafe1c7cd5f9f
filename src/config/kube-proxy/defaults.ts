/** What fields mean that are left empty: kube-proxy's defaults, which a zero stands for too. */
import {
  defaultConfiguration,
  type FieldPath,
  type FieldValues,
  fields,
  type KubeProxyConfiguration,
} from './fields.ts'

/** Fields whose zero is not a value, but asks for the default. */
const zeroMeansDefault: readonly FieldPath[] = [
  'bindAddress',
  'clientConnection.contentType',
  'clientConnection.qps',
  'clientConnection.burst',
  'configSyncPeriod',
  'iptables.syncPeriod',
  'iptables.minSyncPeriod',
  'ipvs.syncPeriod',
  'nftables.syncPeriod',
  'nftables.minSyncPeriod',
  'logging.format',
  'logging.flushFrequency',
]

/** The configuration that a file's values come to. */
export function withDefaults(values: FieldValues): KubeProxyConfiguration {
  // Values are of their fields' types: values.ts made them.
  const config = { ...defaultConfiguration(), ...values } as { -readonly [P in FieldPath]: KubeProxyConfiguration[P] }
  for (const path of zeroMeansDefault) {
    if (values[path] === 0 || values[path] === '') Object.assign(config, { [path]: fields[path].default })
  }
  const ipv6 = config.bindAddress.includes(':')
  config.healthzBindAddress = address(values.healthzBindAddress, ipv6 ? '[::]' : '0.0.0.0', 10256)
  config.metricsBindAddress = address(values.metricsBindAddress, ipv6 ? '[::1]' : '127.0.0.1', 10249)
  return withMode(config)
}

/** What kube-proxy would choose itself: modes, and where node ports are served, which differs between them. */
export function withMode(config: KubeProxyConfiguration): KubeProxyConfiguration {
  const primary = config.mode === 'nftables' ? ['primary'] : null
  return {
    ...config,
    nodePortAddresses: config.nodePortAddresses ?? primary,
    mode: config.mode === '' ? 'iptables' : config.mode,
    detectLocalMode: config.detectLocalMode === '' ? 'ClusterCIDR' : config.detectLocalMode,
  }
}

function address(given: unknown, host: string, port: number): string {
  if (typeof given !== 'string' || given === '') return `${host}:${port}`
  const bare = given.includes(':') ? /^\[[^\]]*\]$/.test(given) : given !== ''
  return bare ? `${given}:${port}` : given
}
