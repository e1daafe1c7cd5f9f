/**
 * Reads a KubeProxyConfiguration (v1alpha1) as kube-proxy does: what it does not know is warned of, what has the wrong type
 * is an error, in its words, with the line.
 */
import { isMap, isScalar, LineCounter, type Node, type Pair, parseDocument, type YAMLMap } from 'yaml'
import { LbError } from '../../model/errors.ts'
import { type FieldPath, type FieldValues, fieldEntries, fields, isFieldPath } from './fields.ts'
import { valueOfYaml } from './values.ts'

export const apiVersion = 'kubeproxy.config.k8s.io/v1alpha1'
export const kind = 'KubeProxyConfiguration'

/** What a file says. */
export interface DecodedFile {
  readonly values: FieldValues
  /** Lines by field. */
  readonly lines: ReadonlyMap<FieldPath, number>
  /** What is not understood and left out: `line 7: unknown field "x"`. */
  readonly warnings: readonly string[]
}

/** Go's names of the types of sections, which its errors speak of. */
const structs: Readonly<Record<string, string>> = {
  '': kind,
  clientConnection: 'ClientConnectionConfiguration',
  logging: 'LoggingConfiguration',
  'logging.options': 'FormatOptions',
  'logging.options.text': 'TextOptions',
  'logging.options.json': 'JSONOptions',
  iptables: 'KubeProxyIPTablesConfiguration',
  ipvs: 'KubeProxyIPVSConfiguration',
  nftables: 'KubeProxyNFTablesConfiguration',
  winkernel: 'KubeProxyWinkernelConfiguration',
  detectLocal: 'DetectLocalConfiguration',
  conntrack: 'KubeProxyConntrackConfiguration',
}

/** Whether a text is meant to be a KubeProxyConfiguration, of whatever version. */
export function isKubeProxyConfiguration(text: string): boolean {
  return parseDocument(text, { version: '1.1', logLevel: 'silent' }).get?.('kind') === kind
}

/** CONFIG: `failed to decode: ...`, naming the line where there is one. */
export function decodeFile(text: string): DecodedFile {
  const lineCounter = new LineCounter()
  // Go's YAML is 1.1, where y and on are true.
  const document = parseDocument(text, { version: '1.1', uniqueKeys: false, lineCounter, logLevel: 'silent' })
  const [problem] = document.errors
  if (problem !== undefined) {
    throw undecodable(`couldn't get version/kind; json parse error: ${problem.message.split('\n')[0] ?? ''}`)
  }
  const root = document.contents
  checkKind(isMap(root) ? root : undefined, text)
  return new Decoder(lineCounter).decode(root as YAMLMap)
}

function checkKind(root: YAMLMap | undefined, text: string): void {
  const foundKind = root?.get('kind')
  const version = root?.get('apiVersion')
  if (foundKind === undefined || foundKind === '') throw undecodable(`Object 'Kind' is missing in '${text}'`)
  if (version === undefined || version === '') throw undecodable(`Object 'apiVersion' is missing in '${text}'`)
  if (version !== apiVersion || foundKind !== kind) {
    const names = [foundKind, version].map((each) => JSON.stringify(each)).join(' is registered for version ')
    throw undecodable(`no kind ${names}`)
  }
}

class Decoder {
  readonly #lineCounter: LineCounter
  readonly #values: FieldValues = {}
  readonly #lines = new Map<FieldPath, number>()
  readonly #warnings: string[] = []

  constructor(lineCounter: LineCounter) {
    this.#lineCounter = lineCounter
  }

  decode(root: YAMLMap): DecodedFile {
    this.#section(root, '')
    return { values: this.#values, lines: this.#lines, warnings: this.#warnings }
  }

  #section(map: YAMLMap, path: string): void {
    const seen = new Set<string>()
    for (const pair of map.items as Pair<Node, Node | null>[]) {
      const key = isScalar(pair.key) ? String(pair.key.value) : String(pair.key)
      const line = this.#lineOf(pair.key)
      if (seen.has(key)) this.#warnings.push(`line ${line}: key ${JSON.stringify(key)} already set in map`)
      seen.add(key)
      if (path === '' && (key === 'kind' || key === 'apiVersion')) continue
      this.#member(path === '' ? key : `${path}.${key}`, path, pair.value, line)
    }
  }

  #member(path: string, parent: string, node: Node | null, line: number): void {
    const value: unknown = node?.toJSON() ?? null
    const where = `${structs[parent] ?? kind}.${path}`
    if (isFieldPath(path)) {
      try {
        this.#values[path] = valueOfYaml(fields[path], value, where)
        this.#lines.set(path, line)
      } catch (error) {
        throw error instanceof LbError ? undecodable(error.message, line) : error
      }
    } else if (!isSection(path)) {
      this.#warnings.push(`line ${line}: unknown field ${JSON.stringify(path)}`)
    } else if (isMap(node)) {
      this.#section(node, path)
    } else if (value !== null) {
      const type = `v1alpha1.${structs[path] ?? kind}`
      throw undecodable(`json: cannot unmarshal ${kindOf(value)} into Go struct field ${where} of type ${type}`, line)
    }
  }

  #lineOf(node: Node): number {
    return this.#lineCounter.linePos(node.range?.[0] ?? 0).line
  }
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'array'
  return typeof value === 'boolean' ? 'bool' : typeof value
}

function isSection(path: string): boolean {
  return fieldEntries.some(([field]) => field.startsWith(`${path}.`))
}

function undecodable(reason: string, line?: number): LbError {
  const where = line === undefined ? '' : ` (line ${line})`
  return new LbError(
    'CONFIG',
    `failed complete: failed to decode: ${reason}${where}`,
    line === undefined ? {} : { line },
  )
}
