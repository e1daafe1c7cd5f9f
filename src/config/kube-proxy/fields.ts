/**
 * Every field of KubeProxyConfiguration (v1alpha1), in its order: its type, default and flag, and what it means here. The
 * one table that decoding, flags, output and warnings are made of.
 */

/** What a value is, and of which Go type errors speak. Durations are in nanoseconds. */
export interface FieldTypes {
  readonly string: string
  readonly bool: boolean
  readonly int32: number
  readonly uint32: number
  readonly float32: number
  readonly duration: number
  readonly strings: readonly string[] | null
  readonly gates: Readonly<Record<string, boolean>> | null
  /** A size such as 0 or 64Ki, as text. */
  readonly quantity: string
}

export type FieldType = keyof FieldTypes

export interface FieldSpec {
  readonly type: FieldType
  readonly default: FieldTypes[FieldType]
  /** Long name of its flag, without the dashes. */
  readonly flag?: string
  /** Why bpvs does nothing with a value other than the default; absent: it does. */
  readonly ignored?: string
  /** A duration that may be a number, too: of nanoseconds. kubeadm writes such a 0. */
  readonly numeric?: true
  /** Left out of the output while it is empty. */
  readonly optional?: true
}

const s = 1e9
const noRules = 'there are no rules to write'
const noWindows = 'this is not Windows'
const fewRequests = 'a handful of requests needs no limit'
const ownLog = 'bpvsd logs lines of JSON on standard output, each at once'

export const fields = {
  featureGates: {
    type: 'gates',
    default: null,
    flag: 'feature-gates',
    ignored: 'bpvs has no gates but ComponentStatusz and ComponentFlagz',
    optional: true,
  },
  'clientConnection.kubeconfig': { type: 'string', default: '', flag: 'kubeconfig' },
  'clientConnection.acceptContentTypes': { type: 'string', default: '', ignored: 'bpvsd asks for JSON' },
  'clientConnection.contentType': {
    type: 'string',
    default: 'application/vnd.kubernetes.protobuf',
    flag: 'kube-api-content-type',
    ignored: 'bpvsd asks for JSON',
  },
  'clientConnection.qps': { type: 'float32', default: 5, flag: 'kube-api-qps', ignored: fewRequests },
  'clientConnection.burst': { type: 'int32', default: 10, flag: 'kube-api-burst', ignored: fewRequests },
  'logging.format': { type: 'string', default: 'text', flag: 'logging-format', ignored: ownLog },
  'logging.flushFrequency': {
    type: 'duration',
    default: 5 * s,
    flag: 'log-flush-frequency',
    ignored: ownLog,
    numeric: true,
  },
  'logging.verbosity': { type: 'uint32', default: 0, flag: 'v' },
  'logging.vmodule': { type: 'strings', default: null, flag: 'vmodule', ignored: ownLog, optional: true },
  'logging.options.text.splitStream': {
    type: 'bool',
    default: false,
    flag: 'log-text-split-stream',
    ignored: ownLog,
    optional: true,
  },
  'logging.options.text.infoBufferSize': {
    type: 'quantity',
    default: '0',
    flag: 'log-text-info-buffer-size',
    ignored: ownLog,
  },
  'logging.options.json.splitStream': {
    type: 'bool',
    default: false,
    flag: 'log-json-split-stream',
    ignored: ownLog,
    optional: true,
  },
  'logging.options.json.infoBufferSize': {
    type: 'quantity',
    default: '0',
    flag: 'log-json-info-buffer-size',
    ignored: ownLog,
  },
  hostnameOverride: { type: 'string', default: '', flag: 'hostname-override' },
  bindAddress: { type: 'string', default: '0.0.0.0', flag: 'bind-address' },
  healthzBindAddress: { type: 'string', default: '0.0.0.0:10256', flag: 'healthz-bind-address' },
  metricsBindAddress: { type: 'string', default: '127.0.0.1:10249', flag: 'metrics-bind-address' },
  bindAddressHardFail: { type: 'bool', default: false, flag: 'bind-address-hard-fail' },
  enableProfiling: { type: 'bool', default: false, flag: 'profiling', ignored: 'profiles of Go have no meaning here' },
  showHiddenMetricsForVersion: {
    type: 'string',
    default: '',
    flag: 'show-hidden-metrics-for-version',
    ignored: 'no metric is hidden',
  },
  mode: { type: 'string', default: '', flag: 'proxy-mode' },
  'iptables.masqueradeBit': {
    type: 'int32',
    default: 14,
    flag: 'iptables-masquerade-bit',
    ignored: 'bpvs marks no packets for it',
  },
  'iptables.masqueradeAll': { type: 'bool', default: false, flag: 'masquerade-all' },
  'iptables.localhostNodePorts': {
    type: 'bool',
    default: true,
    flag: 'iptables-localhost-nodeports',
    ignored:
      'with `socket` node ports are served on loopback addresses, to processes of the node alone; without, they are not',
  },
  'iptables.syncPeriod': { type: 'duration', default: 30 * s, flag: 'iptables-sync-period', ignored: noRules },
  'iptables.minSyncPeriod': { type: 'duration', default: s, flag: 'iptables-min-sync-period', ignored: noRules },
  'ipvs.syncPeriod': {
    type: 'duration',
    default: 30 * s,
    flag: 'ipvs-sync-period',
    ignored: 'repairIntervalMs says it',
  },
  'ipvs.minSyncPeriod': { type: 'duration', default: 0, flag: 'ipvs-min-sync-period' },
  'ipvs.scheduler': { type: 'string', default: '', flag: 'ipvs-scheduler' },
  'ipvs.excludeCIDRs': {
    type: 'strings',
    default: null,
    flag: 'ipvs-exclude-cidrs',
    ignored: 'services that others made are never touched',
  },
  'ipvs.strictARP': {
    type: 'bool',
    default: false,
    flag: 'ipvs-strict-arp',
    ignored: 'no virtual address is on a device',
  },
  'ipvs.tcpTimeout': { type: 'duration', default: 0, flag: 'ipvs-tcp-timeout' },
  'ipvs.tcpFinTimeout': { type: 'duration', default: 0, flag: 'ipvs-tcpfin-timeout' },
  'ipvs.udpTimeout': { type: 'duration', default: 0, flag: 'ipvs-udp-timeout' },
  'nftables.masqueradeBit': { type: 'int32', default: 14, ignored: 'bpvs marks no packets for it' },
  'nftables.masqueradeAll': { type: 'bool', default: false },
  'nftables.syncPeriod': { type: 'duration', default: 30 * s, ignored: noRules },
  'nftables.minSyncPeriod': { type: 'duration', default: s, ignored: noRules },
  'winkernel.networkName': { type: 'string', default: '', ignored: noWindows },
  'winkernel.sourceVip': { type: 'string', default: '', ignored: noWindows },
  'winkernel.enableDSR': { type: 'bool', default: false, ignored: noWindows },
  'winkernel.rootHnsEndpointName': { type: 'string', default: '', ignored: noWindows },
  'winkernel.forwardHealthCheckVip': { type: 'bool', default: false, ignored: noWindows },
  detectLocalMode: { type: 'string', default: '', flag: 'detect-local-mode' },
  'detectLocal.bridgeInterface': { type: 'string', default: '', flag: 'pod-bridge-interface' },
  'detectLocal.interfaceNamePrefix': {
    type: 'string',
    default: '',
    flag: 'pod-interface-name-prefix',
  },
  clusterCIDR: { type: 'string', default: '', flag: 'cluster-cidr' },
  nodePortAddresses: { type: 'strings', default: null, flag: 'nodeport-addresses' },
  oomScoreAdj: { type: 'int32', default: -999, flag: 'oom-score-adj' },
  'conntrack.maxPerCore': { type: 'int32', default: 32768, flag: 'conntrack-max-per-core' },
  'conntrack.min': { type: 'int32', default: 131072, flag: 'conntrack-min' },
  'conntrack.tcpEstablishedTimeout': {
    type: 'duration',
    default: 24 * 3600 * s,
    flag: 'conntrack-tcp-timeout-established',
  },
  'conntrack.tcpCloseWaitTimeout': {
    type: 'duration',
    default: 3600 * s,
    flag: 'conntrack-tcp-timeout-close-wait',
  },
  'conntrack.tcpBeLiberal': { type: 'bool', default: false, flag: 'conntrack-tcp-be-liberal' },
  'conntrack.udpTimeout': { type: 'duration', default: 0, flag: 'conntrack-udp-timeout' },
  'conntrack.udpStreamTimeout': { type: 'duration', default: 0, flag: 'conntrack-udp-timeout-stream' },
  configSyncPeriod: {
    type: 'duration',
    default: 15 * 60 * s,
    flag: 'config-sync-period',
    ignored: 'watches bring every change',
  },
  portRange: { type: 'string', default: '', ignored: 'nothing uses it' },
  windowsRunAsService: { type: 'bool', default: false, ignored: noWindows, optional: true },
} as const satisfies Readonly<Record<string, FieldSpec>>

export type FieldPath = keyof typeof fields

/** A KubeProxyConfiguration: the value of every field, by path. */
export type KubeProxyConfiguration = {
  readonly [P in FieldPath]: FieldTypes[(typeof fields)[P]['type']]
}

/** Values of some fields. */
export type FieldValues = Partial<Record<FieldPath, FieldTypes[FieldType]>>

export const fieldEntries = Object.entries(fields) as readonly (readonly [FieldPath, FieldSpec])[]

export function isFieldPath(path: string): path is FieldPath {
  return Object.hasOwn(fields, path)
}

/** What a configuration holds that says nothing. */
export function defaultConfiguration(): KubeProxyConfiguration {
  // The table gives each path a default of its type.
  return Object.fromEntries(fieldEntries.map(([path, spec]) => [path, spec.default])) as KubeProxyConfiguration
}
