/** Puts the configuration together: defaults, then the file, then the environment, then the flags. */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { LbError } from '../model/errors.ts'
import { parsePortRange } from '../model/masquerade-ports.ts'
import { parseTunable } from '../model/settings.ts'
import { isKubeProxyConfiguration } from './kube-proxy/decode.ts'
import { isKubeProxyFlag, isSwitch, parseFlags as parseKubeProxyFlags } from './kube-proxy/flags.ts'
import { splitHostPort } from './kube-proxy/net.ts'
import { toYaml } from './kube-proxy/render.ts'
import { type KubeProxySettings, kubeProxySettings, schedulerOf } from './kube-proxy/settings.ts'
import { type Config, type ConfigKey, configEntries, environmentName, flagName, type PropertySchema } from './schema.ts'

type Value = string | number | readonly string[]
type Values = Partial<Record<ConfigKey, Value>>

/** What a command line asks for. */
export type Invocation =
  | { readonly run: 'help' }
  | { readonly run: 'version' }
  /** Write kube-proxy's configuration, as it would be in force, to a file. */
  | { readonly run: 'write-config'; readonly path: string; readonly text: string }
  | {
      /** `init`: what needs privilege, and no more. */
      readonly run: 'daemon' | 'cleanup' | 'cleanup-kube-proxy' | 'init'
      readonly config: Config
      readonly kubeProxy: KubeProxySettings
    }

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Reads the file of --config; throws as fs does. */
  readonly readFile: (path: string) => string
  /** What we are called as: `kube-proxy` answers as that does. */
  readonly program?: string
}

const realSurroundings: Surroundings = { env: process.env, readFile: (path) => readFileSync(path, 'utf8') }

/**
 * Reads a command line (without program and script). Throws USAGE for a bad one and CONFIG for a bad file or variable,
 * saying where and what; CONFIG too for what concerns kube-proxy, in its words.
 */
export function loadConfig(argv: readonly string[], surroundings: Surroundings = realSurroundings): Invocation {
  const flags = parseFlags(argv, surroundings.program === 'kube-proxy')
  const kubeFlags = parseKubeProxyFlags(flags.kubeProxy)
  if (flags.help || kubeFlags.switches.help) return { run: 'help' }
  if (flags.version || kubeFlags.switches.version) return { run: 'version' }
  const { ownFile, kubeFile } = filesOf(flags, surroundings)
  const switches = { ...kubeFlags.switches, ...(kubeFile === undefined ? {} : { config: kubeFile }) }
  const kubeProxy = kubeProxySettings({ ...kubeFlags, switches }, surroundings.readFile)
  if (switches.writeConfigTo !== undefined) {
    return { run: 'write-config', path: switches.writeConfigTo, text: toYaml(kubeProxy.configuration) }
  }
  const values: Values = {
    ...defaults(),
    ...verbosity(kubeProxy),
    ...(ownFile === undefined ? {} : fromFile(ownFile, surroundings)),
    ...fromEnvironment(surroundings.env),
    ...flags.values,
  }
  const run = runOf(switches, flags)
  if (run === 'daemon') checkSource(values, kubeProxy, surroundings.env)
  checkTunables(values.sysctls)
  checkMasqueradePorts(values.masqueradePorts)
  checkAdmin(values)
  values.scheduler = schedulerOf(kubeProxy.configuration, values.scheduler as Config['scheduler'])
  // Every value was checked against the schema from which Config is made.
  return { run, config: Object.freeze(values) as Config, kubeProxy }
}

/** Which file is whose: --config may name either's, and says so itself. */
function filesOf(
  { file, ownFile }: Flags,
  { env, readFile, program }: Surroundings,
): { readonly ownFile: string | undefined; readonly kubeFile: string | undefined } {
  const own = ownFile ?? env[environmentName('config')]
  if (file === undefined) return { ownFile: own, kubeFile: undefined }
  if (program === 'kube-proxy') return { ownFile: own, kubeFile: file }
  let text: string
  try {
    text = readFile(file)
  } catch {
    return { ownFile: file, kubeFile: undefined }
  }
  return isKubeProxyConfiguration(text) ? { ownFile: own, kubeFile: file } : { ownFile: file, kubeFile: undefined }
}

/** kube-proxy's verbosity as a level of ours: 4 and more are debugging. */
function verbosity({ configuration }: KubeProxySettings): Values {
  const level = configuration['logging.verbosity']
  return level < 4 ? {} : { logLevel: level < 6 ? 'debug' : 'trace' }
}

/** There is exactly one source, as far as the configuration tells. */
function checkSource(
  { manifests }: Values,
  { configuration, master }: KubeProxySettings,
  env: Surroundings['env'],
): void {
  const kubeconfig = configuration['clientConnection.kubeconfig']
  const other = kubeconfig === '' ? (master === undefined ? undefined : '--master') : '--kubeconfig'
  if (manifests !== undefined && other !== undefined) {
    throw new LbError('USAGE', `--manifests and ${other} exclude each other`)
  }
  if (manifests === undefined && other === undefined && env.KUBERNETES_SERVICE_HOST === undefined) {
    throw new LbError('USAGE', 'no source of services: give --kubeconfig FILE or --manifests DIR, or run in a pod')
  }
}

/** The admin API is not served over TCP without TLS, nor to everybody. */
function checkAdmin({ adminListen, adminCert, adminKey, adminTokenFile, adminClientCa }: Values): void {
  if (adminListen === undefined) return
  const parts = splitHostPort(String(adminListen))
  const port = /^\d{1,5}$/.test(parts?.port ?? '') ? Number(parts?.port) : 65536
  if (port > 65535) throw new LbError('CONFIG', `adminListen: "${adminListen}" is not HOST:PORT`)
  if (adminCert === undefined || adminKey === undefined) {
    throw new LbError('CONFIG', 'adminListen: adminCert and adminKey are needed')
  }
  if (adminTokenFile === undefined && adminClientCa === undefined) {
    throw new LbError('CONFIG', 'adminListen: adminTokenFile or adminClientCa is needed')
  }
}

/** Each must be NAME=VALUE of a tunable that applies. */
function checkTunables(texts: Value | undefined): void {
  if (!Array.isArray(texts)) return
  for (const text of texts as readonly string[]) {
    try {
      if (parseTunable(text).value === undefined) throw new LbError('INVALID', `${text}: a value is missing`)
    } catch (error) {
      throw new LbError('CONFIG', `sysctls: ${error instanceof Error ? error.message : String(error)}`, { text }, error)
    }
  }
}

function checkMasqueradePorts(text: Value | undefined): void {
  if (typeof text !== 'string') return
  try {
    parsePortRange(text)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new LbError('CONFIG', `masqueradePorts: ${reason}`, { text }, error)
  }
}

/** What a command line asks for, that needs the configuration. */
function runOf(
  { cleanup, initOnly }: { readonly cleanup: boolean; readonly initOnly: boolean },
  { cleanupKubeProxy }: Flags,
): 'daemon' | 'cleanup' | 'cleanup-kube-proxy' | 'init' {
  if (cleanupKubeProxy) return 'cleanup-kube-proxy'
  if (cleanup) return 'cleanup'
  return initOnly ? 'init' : 'daemon'
}

interface Flags {
  help: boolean
  version: boolean
  cleanupKubeProxy: boolean
  /** Of --config and of --bpvs-config. */
  file: string | undefined
  ownFile: string | undefined
  readonly values: Values
  /** Words that are kube-proxy's flags. */
  readonly kubeProxy: string[]
}

/** `asKubeProxy`: what is not known is for kube-proxy's flags to answer. */
function parseFlags(argv: readonly string[], asKubeProxy: boolean): Flags {
  const flags: Flags = {
    help: false,
    version: false,
    cleanupKubeProxy: false,
    file: undefined,
    ownFile: undefined,
    values: {},
    kubeProxy: [],
  }
  const rest = [...argv]
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) takeFlag(flags, word, rest, asKubeProxy)
  return flags
}

function takeFlag(flags: Flags, word: string, rest: string[], asKubeProxy: boolean): void {
  const [, name = word, inline] = /^(--[^=]+)=(.*)$/s.exec(word) ?? []
  const value = (): string => {
    const given = inline ?? rest.shift()
    if (given === undefined) throw new LbError('USAGE', `${name}: a value is missing`)
    return given
  }
  const entry = configEntries.find(([key]) => flagName(key) === name)
  if (entry !== undefined) flags.values[entry[0]] = fromText(entry[1], value(), name, 'USAGE')
  else if (name === '--config') flags.file = value()
  else if (name === '--bpvs-config') flags.ownFile = value()
  else if (inline === undefined && Object.hasOwn(switches, name)) flags[switches[name as keyof typeof switches]] = true
  else if (/^-v(=?\d+)?$/.test(word)) flags.kubeProxy.push(word, ...(word === '-v' ? [value()] : []))
  else if (name !== '--help' && name.startsWith('--') && isKubeProxyFlag(name.slice(2))) {
    flags.kubeProxy.push(word)
    if (inline === undefined && !isSwitch(name.slice(2))) flags.kubeProxy.push(value())
  } else if (asKubeProxy) flags.kubeProxy.push(word)
  else throw new LbError('USAGE', `unknown option ${word}`)
}

const switches = {
  '--help': 'help',
  '-h': 'help',
  '--version': 'version',
  '-V': 'version',
  '--cleanup-kube-proxy': 'cleanupKubeProxy',
} as const

function defaults(): Values {
  const values: Values = {}
  for (const [key, schema] of configEntries) {
    const value = schema.default
    if (value !== undefined) values[key] = typeof value === 'object' ? Object.freeze([...value]) : value
  }
  return values
}

function fromFile(file: string, { readFile }: Surroundings): Values {
  let content: unknown
  try {
    content = parse(readFile(file), { logLevel: 'error' })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new LbError('CONFIG', `${file}: ${reason.trim()}`, { file }, error)
  }
  const values: Values = {}
  if (content === null || content === undefined) return values
  if (typeof content !== 'object' || Array.isArray(content))
    throw new LbError('CONFIG', `${file}: not an object`, { file })
  for (const [key, value] of Object.entries(content)) {
    const entry = configEntries.find(([known]) => known === key)
    if (entry === undefined) throw new LbError('CONFIG', `${file}: unknown option ${key}`, { file, key })
    values[entry[0]] = check(entry[1], value, `${file}: ${key}`, 'CONFIG')
  }
  return values
}

function fromEnvironment(env: Surroundings['env']): Values {
  const values: Values = {}
  for (const [key, schema] of configEntries) {
    const text = env[environmentName(key)]
    if (text !== undefined) values[key] = fromText(schema, text, environmentName(key), 'CONFIG')
  }
  return values
}

/** A flag or variable: numbers in decimal, lists separated by commas. */
function fromText(schema: PropertySchema, text: string, where: string, code: 'USAGE' | 'CONFIG'): Value {
  if (schema.type === 'array') {
    return check(
      schema,
      text
        .split(',')
        .map((item) => item.trim())
        .filter((item) => item !== ''),
      where,
      code,
    )
  }
  if (schema.type === 'integer') return check(schema, /^\d+$/.test(text) ? Number(text) : text, where, code)
  return check(schema, text, where, code)
}

function check(schema: PropertySchema, value: unknown, where: string, code: 'USAGE' | 'CONFIG'): Value {
  const refuse = (wanted: string): LbError => {
    const shown = typeof value === 'string' ? JSON.stringify(value) : (JSON.stringify(value) ?? String(value))
    return new LbError(code, `${where}: ${shown} is not ${wanted}`, { where, value })
  }
  const { minimum = Number.MIN_SAFE_INTEGER, maximum = Number.MAX_SAFE_INTEGER } = schema
  if (schema.type === 'integer') {
    if (typeof value === 'number' && Number.isInteger(value) && value >= minimum && value <= maximum) return value
    throw refuse(`a whole number from ${minimum} to ${maximum}`)
  }
  if (schema.type === 'array') {
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return Object.freeze([...value])
    throw refuse('a list of strings')
  }
  if (typeof value !== 'string' || value.length < (schema.minLength ?? 0)) throw refuse('a text')
  if (schema.enum !== undefined && !schema.enum.includes(value)) throw refuse(`one of ${schema.enum.join(', ')}`)
  return value
}
