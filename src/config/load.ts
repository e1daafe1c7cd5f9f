/** Puts the configuration together: defaults, then the file, then the environment, then the flags. */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { LbError } from '../model/errors.ts'
import { parseTunable } from '../model/settings.ts'
import { type Config, type ConfigKey, configEntries, environmentName, flagName, type PropertySchema } from './schema.ts'

type Value = string | number | readonly string[]
type Values = Partial<Record<ConfigKey, Value>>

/** What a command line asks for. */
export type Invocation =
  | { readonly run: 'help' }
  | { readonly run: 'version' }
  | { readonly run: 'daemon' | 'cleanup'; readonly config: Config }

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Reads the file of --config; throws as fs does. */
  readonly readFile: (path: string) => string
}

const realSurroundings: Surroundings = { env: process.env, readFile: (path) => readFileSync(path, 'utf8') }

/**
 * Reads a command line (without program and script). Throws USAGE for a bad one and CONFIG for a bad file or variable,
 * saying where and what.
 */
export function loadConfig(argv: readonly string[], surroundings: Surroundings = realSurroundings): Invocation {
  const flags = parseFlags(argv)
  if (flags.help) return { run: 'help' }
  if (flags.version) return { run: 'version' }
  const file = flags.file ?? surroundings.env[environmentName('config')]
  const values: Values = {
    ...defaults(),
    ...(file === undefined ? {} : fromFile(file, surroundings)),
    ...fromEnvironment(surroundings.env),
    ...flags.values,
  }
  if (!flags.cleanup) checkSource(values, surroundings.env)
  checkTunables(values.sysctls)
  // Every value was checked against the schema from which Config is made.
  return { run: flags.cleanup ? 'cleanup' : 'daemon', config: Object.freeze(values) as Config }
}

/** There is exactly one source, as far as the configuration tells. */
function checkSource({ manifests, kubeconfig, master }: Values, env: Surroundings['env']): void {
  if (manifests !== undefined) {
    const other = kubeconfig === undefined ? (master === undefined ? undefined : '--master') : '--kubeconfig'
    if (other !== undefined) throw new LbError('USAGE', `--manifests and ${other} exclude each other`)
  } else if (kubeconfig === undefined && master === undefined && env.KUBERNETES_SERVICE_HOST === undefined) {
    throw new LbError('USAGE', 'no source of services: give --kubeconfig FILE or --manifests DIR, or run in a pod')
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

interface Flags {
  help: boolean
  version: boolean
  cleanup: boolean
  file: string | undefined
  readonly values: Values
}

function parseFlags(argv: readonly string[]): Flags {
  const flags: Flags = { help: false, version: false, cleanup: false, file: undefined, values: {} }
  const rest = [...argv]
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [, name = word, inline] = /^(--[^=]+)=(.*)$/s.exec(word) ?? []
    const value = (): string => {
      const given = inline ?? rest.shift()
      if (given === undefined) throw new LbError('USAGE', `${name}: a value is missing`)
      return given
    }
    const entry = configEntries.find(([key]) => flagName(key) === name)
    if (entry !== undefined) flags.values[entry[0]] = fromText(entry[1], value(), name, 'USAGE')
    else if (name === '--config') flags.file = value()
    else if (inline === undefined && isSwitch(name)) flags[switches[name]] = true
    else throw new LbError('USAGE', `unknown option ${word}`)
  }
  return flags
}

const switches = {
  '--help': 'help',
  '-h': 'help',
  '--version': 'version',
  '-V': 'version',
  '--cleanup': 'cleanup',
} as const

function isSwitch(name: string): name is keyof typeof switches {
  return Object.hasOwn(switches, name)
}

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
