/** kube-proxy's flags: their grammar (pflag's), and what they set. */
import { LbError } from '../../model/errors.ts'
import { type FieldPath, type FieldSpec, type FieldValues, fieldEntries, fields } from './fields.ts'
import { valueOfFlag } from './values.ts'

/** Flags that are no fields. */
export interface KubeProxySwitches {
  readonly config?: string
  readonly master?: string
  readonly writeConfigTo?: string
  readonly cleanup: boolean
  readonly initOnly: boolean
  readonly version: boolean
  readonly help: boolean
}

export interface KubeProxyFlags {
  readonly values: FieldValues
  readonly switches: KubeProxySwitches
  /** Flags that are ports by themselves, and flags without effect, as they were given. */
  readonly others: Readonly<Record<string, string>>
  /** What is accepted and does nothing. */
  readonly warnings: readonly string[]
}

const byFlag = new Map<string, FieldPath>(
  fieldEntries.flatMap(([path, { flag }]) => (flag === undefined ? [] : [[flag, path] as const])),
)
const texts = { config: 'config', master: 'master', 'write-config-to': 'writeConfigTo' } as const
const booleans = { cleanup: 'cleanup', 'init-only': 'initOnly', version: 'version', help: 'help' } as const
/** Ports by themselves: what came before the bind addresses. */
const ports = { 'healthz-port': 'healthzBindAddress', 'metrics-port': 'metricsBindAddress' } as const
const without = ['boot-id-file', 'machine-id-file']
const shorts: Readonly<Record<string, string>> = { v: 'v', h: 'help' }

/** Whether a long flag (without dashes) is one of kube-proxy's. */
export function isKubeProxyFlag(name: string): boolean {
  return (
    [texts, booleans, ports].some((each) => Object.hasOwn(each, name)) || byFlag.has(name) || without.includes(name)
  )
}

/** Whether a flag needs no value. */
export function isSwitch(name: string): boolean {
  const path = byFlag.get(name)
  return Object.hasOwn(booleans, name) || (path !== undefined && fields[path].type === 'bool')
}

/** CONFIG, in the words of kube-proxy. */
export function parseFlags(argv: readonly string[]): KubeProxyFlags {
  const parser = new Parser()
  const words = [...argv]
  const extra: string[] = []
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === '--') extra.push(...words.splice(0))
    else if (!word.startsWith('-') || word === '-') extra.push(word)
    else parser.take(word, words)
  }
  if (extra.length > 0 && !parser.switches.help && !parser.switches.version) {
    throw new LbError(
      'CONFIG',
      `"kube-proxy" does not take any arguments, got [${extra.map((each) => JSON.stringify(each)).join(' ')}]`,
    )
  }
  return parser
}

class Parser implements KubeProxyFlags {
  readonly values: FieldValues = {}
  readonly switches: { -readonly [K in keyof KubeProxySwitches]: KubeProxySwitches[K] } = {
    cleanup: false,
    initOnly: false,
    version: false,
    help: false,
  }
  readonly warnings: string[] = []
  readonly others: Record<string, string> = {}

  /** One flag, with its value from the word itself or from the next. */
  take(word: string, words: string[]): void {
    const { name, inline } = split(word)
    if (!isKubeProxyFlag(name)) {
      throw new LbError(
        'CONFIG',
        word.startsWith('--') ? `unknown flag: --${name}` : `unknown shorthand flag: '${name}' in ${word}`,
      )
    }
    const given = inline ?? (isSwitch(name) ? 'true' : words.shift())
    if (given === undefined) throw new LbError('CONFIG', `flag needs an argument: --${name}`)
    this.#set(name, given)
  }

  #set(name: string, text: string): void {
    const path = byFlag.get(name)
    if (path !== undefined) this.#setField(name, path, text)
    else if (hasOwn(texts, name)) this.switches[texts[name]] = text
    else if (hasOwn(ports, name)) this.#setPort(name, text)
    else if (hasOwn(booleans, name)) this.#setSwitch(name, text)
    else {
      this.others[name] = text
      this.warnings.push(`--${name} has no effect: bpvsd reads no ids of the machine`)
    }
  }

  #setField(name: string, path: FieldPath, text: string): void {
    try {
      this.values[path] = valueOfFlag(fields[path] as FieldSpec, text, this.values[path] ?? null)
    } catch (error) {
      throw badArgument(name, text, error)
    }
  }

  /** 0: no such server. */
  #setPort(name: keyof typeof ports, text: string): void {
    if (!/^\d+$/.test(text) || Number(text) > 65535) {
      throw badArgument(name, text, new Error(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`))
    }
    this.others[name] = String(Number(text))
    const host = name === 'healthz-port' ? '0.0.0.0' : '127.0.0.1'
    this.values[ports[name]] ??= Number(text) === 0 ? '' : `${host}:${Number(text)}`
  }

  /** `--version=raw` and `--version=v1.2.3` ask for a version too. */
  #setSwitch(name: keyof typeof booleans, text: string): void {
    if (name === 'version' && text !== 'false') {
      this.switches.version = true
      return
    }
    try {
      this.switches[booleans[name]] = valueOfFlag({ type: 'bool', default: false }, text, null) === true
    } catch (error) {
      throw badArgument(name, text, error)
    }
  }
}

function split(word: string): { readonly name: string; readonly inline: string | undefined } {
  if (!word.startsWith('--')) {
    const [, letter = '', rest = ''] = /^-(.)=?(.*)$/s.exec(word) ?? []
    return { name: shorts[letter] ?? letter, inline: rest === '' ? undefined : rest }
  }
  const [, name = '', inline] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? []
  return { name, inline }
}

function hasOwn<T extends object>(table: T, name: string): name is Extract<keyof T, string> {
  return Object.hasOwn(table, name)
}

function badArgument(name: string, text: string, cause: unknown): LbError {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new LbError('CONFIG', `invalid argument ${JSON.stringify(text)} for "--${name}" flag: ${reason}`, {}, cause)
}
