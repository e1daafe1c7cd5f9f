/** One manifest file, from text to objects. Pure. YAML (several documents) or JSON; `List` objects are opened. */
import { type Document, isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseAllDocuments } from 'yaml'
import { type DecodedBad, decodeObject } from '../kube/decode.ts'
import { type FieldPath, formatPath, show } from '../kube/field.ts'
import { type KubeObject, objectId } from '../kube/objects.ts'
import { jsonItemOffsets, jsonOffset, lineAt } from './json-offset.ts'
import type { ManifestProblem } from './problem.ts'

export interface ParsedObject {
  readonly object: KubeObject
  readonly line: number
}

/** What a file holds. */
export interface ParsedFile {
  readonly objects: readonly ParsedObject[]
  readonly problems: readonly ManifestProblem[]
  /** Ids (see objectId) of bad objects that could be told. */
  readonly bad: ReadonlySet<string>
  /** Something is bad and which object can't be told: any object of the file may be meant. */
  readonly lost: boolean
}

/** A root value and the way from a path in it to a line of the file. */
interface Root {
  readonly value: unknown
  lineOf(path: FieldPath): number
  /** Lines of all items of a list: they are needed for every object, and one by one would be slow in JSON. */
  itemLines(path: FieldPath, count: number): readonly number[]
}

const listKinds: ReadonlySet<string> = new Set(['List', 'ServiceList', 'EndpointSliceList'])
/** YAML aliases may blow a small file up; Kubernetes objects need next to none. */
const maxAliases = 1000

/** `file` is for messages; a name that ends in .json is read as JSON. */
export function parseManifests(file: string, text: string): ParsedFile {
  const collector = new Collector(file)
  if (file.endsWith('.json')) parseJson(text, collector)
  else parseYaml(text, collector)
  return collector
}

class Collector implements ParsedFile {
  readonly objects: ParsedObject[] = []
  readonly problems: ManifestProblem[] = []
  readonly bad = new Set<string>()
  lost = false
  readonly #file: string

  constructor(file: string) {
    this.#file = file
  }

  /** The text itself is broken. */
  broken(line: number | undefined, reason: string): void {
    this.lost = true
    this.problems.push({ file: this.#file, ...(line === undefined ? {} : { line }), reason })
  }

  add(root: Root): void {
    this.#add(root, root.value, [], () => root.lineOf([]))
  }

  #add(root: Root, value: unknown, at: FieldPath, line: () => number): void {
    if (isList(value)) {
      const path = [...at, 'items']
      const lines = root.itemLines(path, value.items.length)
      for (const [i, item] of value.items.entries()) this.#add(root, item, [...path, i], () => lines[i] ?? 1)
      return
    }
    const decoded = decodeObject(value)
    if (decoded.is === 'other') return
    if (decoded.is === 'object') this.objects.push({ object: decoded.object, line: line() })
    else this.#bad(root, decoded, at)
  }

  #bad(root: Root, decoded: DecodedBad, at: FieldPath): void {
    const object = decoded.id === undefined ? undefined : objectId(decoded.id)
    if (object === undefined) this.lost = true
    else this.bad.add(object)
    for (const { path, reason } of decoded.problems) {
      const text = path.length === 0 ? reason : `${formatPath(path)}: ${reason}`
      const line = root.lineOf([...at, ...path])
      this.problems.push({ file: this.#file, line, ...(object === undefined ? {} : { object }), reason: text })
    }
  }
}

function isList(value: unknown): value is { items: unknown[] } {
  if (typeof value !== 'object' || value === null || !('kind' in value) || !('items' in value)) return false
  return typeof value.kind === 'string' && listKinds.has(value.kind) && Array.isArray(value.items)
}

function parseYaml(text: string, into: Collector): void {
  const lines = new LineCounter()
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    merge: true,
    prettyErrors: false,
    logLevel: 'silent',
  })
  for (const document of 'empty' in documents ? [] : documents) {
    const [error] = document.errors
    if (error !== undefined) into.broken(lines.linePos(error.pos[0]).line, oneLine(error.message))
    else if (document.contents !== null) addDocument(document, lines, into)
  }
}

function addDocument(document: Document.Parsed, lines: LineCounter, into: Collector): void {
  const lineOf = (path: FieldPath): number => lines.linePos(offsetOf(document, path)).line
  let value: unknown
  try {
    value = document.toJS({ maxAliasCount: maxAliases })
  } catch (error) {
    into.broken(lineOf([]), oneLine(error instanceof Error ? error.message : show(error)))
    return
  }
  if (value === null) return
  const itemLines = (path: FieldPath, count: number): number[] => {
    return Array.from({ length: count }, (_, i) => lineOf([...path, i]))
  }
  into.add({ value, lineOf, itemLines })
}

/** Where the value at a path begins, or the nearest thing around it that is there. */
function offsetOf(document: Document.Parsed, path: FieldPath): number {
  let node: unknown = document.contents
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0
  for (const step of path) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && key.value === step)
      if (pair === undefined) return offset
      if (isNode(pair.key)) offset = pair.key.range?.[0] ?? offset
      node = pair.value
    } else if (isSeq(node) && typeof step === 'number') {
      node = node.items[step]
      if (isNode(node)) offset = node.range?.[0] ?? offset
    } else return offset
  }
  return offset
}

/** JSON has its own, quicker parser; lines are looked up only when there is something to report. */
function parseJson(text: string, into: Collector): void {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    const message = error instanceof Error ? error.message : show(error)
    into.broken(jsonErrorLine(text, message), oneLine(message))
    return
  }
  const newlines: number[] = []
  into.add({
    value,
    lineOf: (path) => lineAt(text, jsonOffset(text, path), newlines),
    itemLines: (path) => jsonItemOffsets(text, path).map((offset) => lineAt(text, offset, newlines)),
  })
}

/** JSON.parse names the position of most errors; none is needed for the end of the text, and short texts get none. */
function jsonErrorLine(text: string, message: string): number | undefined {
  const position = /at position (\d+)/.exec(message)?.[1]
  if (position === undefined && !message.includes('end of JSON')) return undefined
  return text.slice(0, position === undefined ? text.length : Number(position)).split('\n').length
}

function oneLine(message: string): string {
  return message.replaceAll(/\s+/g, ' ').trim()
}
