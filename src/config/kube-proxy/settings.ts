/** What kube-proxy's configuration comes to for bpvsd. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { LocalDetection } from '../../model/local-detection.ts'
import { LbError } from '../../model/errors.ts'
import { type Scheduler, schedulers, type Timeouts } from '../../model/types.ts'
import { decodeFile } from './decode.ts'
import { withDefaults, withMode } from './defaults.ts'
import { nsPerMs, nsPerS } from './duration.ts'
import { type FieldPath, fieldEntries, fields, type KubeProxyConfiguration } from './fields.ts'
import { flagTexts } from './flagz.ts'
import type { KubeProxyFlags } from './flags.ts'
import { validate } from './validate.ts'
import { plainValue } from './values.ts'

/** kube-proxy's part of the configuration, checked. */
export interface KubeProxySettings {
  /** Every field, as it is in force. */
  readonly configuration: KubeProxyConfiguration
  /** Fields that somebody set. */
  readonly given: ReadonlySet<FieldPath>
  /** URL of the API server, in place of the kubeconfig's. */
  readonly master?: string
  /** Its file, and what that said: bpvsd ends when this changes. */
  readonly file?: { readonly path: string; readonly text: string }
  /** Every flag by its name, with its value as text; what is in force may come from the file. */
  readonly flags: Readonly<Record<string, string>>
  /** What of it has no effect, and why. */
  readonly warnings: readonly string[]
}

/** Flags that count beside a file: those of logging, and the Node's name. */
const besideFile = (path: FieldPath): boolean => path.startsWith('logging.') || path === 'hostnameOverride'

/** CONFIG, in kube-proxy's words; `readFile` throws as fs does. */
export function kubeProxySettings(
  flags: KubeProxyFlags,
  readFile: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): KubeProxySettings {
  const { values, switches } = flags
  const master = switches.master === undefined ? {} : { master: switches.master }
  const texts = flagTexts(flags)
  if (switches.config === undefined) {
    const base = withDefaults({})
    const configuration = normal(withMode({ ...base, mode: '', ...(values as Partial<KubeProxyConfiguration>) }))
    validate(configuration, new Map())
    const given = new Set(Object.keys(values) as FieldPath[])
    return { configuration, given, ...master, flags: texts, warnings: [...flags.warnings, ...ignored(configuration)] }
  }
  const text = readConfig(switches.config, readFile)
  const file = decodeFile(text)
  const kept = Object.fromEntries(Object.entries(values).filter(([path]) => besideFile(path as FieldPath)))
  const configuration = normal({ ...withDefaults(file.values), ...(kept as Partial<KubeProxyConfiguration>) })
  validate(configuration, file.lines)
  const lost = Object.keys(values).filter((path) => !besideFile(path as FieldPath)) as FieldPath[]
  const warnings = [
    ...flags.warnings,
    ...file.warnings.map((warning) => `${switches.config}: ${warning}`),
    ...lost.map((path) => `--${flagOf(path)} has no effect beside --config`),
    ...ignored(configuration),
  ]
  const given = new Set([...Object.keys(file.values), ...Object.keys(kept)] as FieldPath[])
  return { configuration, given, ...master, file: { path: switches.config, text }, flags: texts, warnings }
}

function readConfig(path: string, readFile: (path: string) => string): string {
  try {
    return readFile(path)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new LbError('CONFIG', `failed complete: ${reason}`, { file: path }, error)
  }
}

/** A Node's name is in lower case. */
function normal(configuration: KubeProxyConfiguration): KubeProxyConfiguration {
  return { ...configuration, hostnameOverride: configuration.hostnameOverride.trim().toLowerCase() }
}

function flagOf(path: FieldPath): string {
  const spec = fields[path]
  return 'flag' in spec ? spec.flag : path
}

/** Fields without effect that somebody has set to something else than a configuration has that says nothing. */
function ignored(configuration: KubeProxyConfiguration): string[] {
  const silent = withDefaults({ mode: configuration.mode })
  return fieldEntries.flatMap(([path, spec]) => {
    const value = configuration[path]
    if (spec.ignored === undefined || JSON.stringify(value) === JSON.stringify(silent[path])) return []
    const isEmpty = value === '' || value === 0 || (Array.isArray(value) && value.length === 0)
    if (isEmpty && path.endsWith('Period')) return []
    if (path === 'featureGates' && Object.keys(value ?? {}).every((gate) => knownGates.includes(gate))) return []
    return [`${path}: ${JSON.stringify(plainValue(spec, value))} has no effect: ${spec.ignored}`]
  })
}

const knownGates: readonly string[] = ['ComponentStatusz', 'ComponentFlagz', 'AllBeta']

/** Which features of kube-proxy 1.36 are on that are beta, and so on unless a gate says otherwise. */
export function featuresOf({ featureGates }: Pick<KubeProxyConfiguration, 'featureGates'>) {
  const isOn = (gate: string): boolean => featureGates?.[gate] ?? featureGates?.AllBeta ?? true
  return { ComponentStatusz: isOn('ComponentStatusz'), ComponentFlagz: isOn('ComponentFlagz') }
}

/** CONFIG for a scheduler that nobody knows. */
export function schedulerOf({ 'ipvs.scheduler': name }: KubeProxyConfiguration, otherwise: Scheduler): Scheduler {
  if (name === '') return otherwise
  const found = schedulers.find((each) => each === name)
  if (found !== undefined) return found
  throw new LbError('CONFIG', `ipvs.scheduler: ${JSON.stringify(name)} is not one of ${schedulers.join(', ')}`)
}

/** The name that our Node has. */
export function nodeName({ hostnameOverride }: Pick<KubeProxyConfiguration, 'hostnameOverride'>): string {
  return hostnameOverride === '' ? hostname().trim().toLowerCase() : hostnameOverride
}

/** Timeouts of IPVS to set; 0 leaves one as it is. */
export function timeoutsOf(configuration: KubeProxyConfiguration): Timeouts {
  const seconds = (ns: number): number => Math.ceil(ns / nsPerS)
  return {
    tcpS: seconds(configuration['ipvs.tcpTimeout']),
    tcpFinS: seconds(configuration['ipvs.tcpFinTimeout']),
    udpS: seconds(configuration['ipvs.udpTimeout']),
  }
}

/** How long changes are gathered, milliseconds: only where ipvs mode is asked to. */
export function gatherMs({ mode, 'ipvs.minSyncPeriod': ns }: KubeProxyConfiguration): number {
  return mode === 'ipvs' ? ns / nsPerMs : 0
}

/** Whether packets to cluster IPs are masqueraded, wherever they come from. */
export function masqueradesAll(configuration: KubeProxyConfiguration): boolean {
  return configuration[configuration.mode === 'nftables' ? 'nftables.masqueradeAll' : 'iptables.masqueradeAll']
}

/** How packets of pods are told from others. */
export function localDetection(configuration: KubeProxyConfiguration): LocalDetection {
  switch (configuration.detectLocalMode) {
    case 'NodeCIDR':
      return { by: 'node' }
    case 'BridgeInterface':
      return { by: 'bridge', name: configuration['detectLocal.bridgeInterface'] }
    case 'InterfaceNamePrefix':
      return { by: 'interfaces', prefix: configuration['detectLocal.interfaceNamePrefix'] }
    default:
      return { by: 'cluster', cidrs: configuration.clusterCIDR.split(',').filter((cidr) => cidr !== '') }
  }
}
