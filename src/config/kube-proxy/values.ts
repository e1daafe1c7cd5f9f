/** Values of fields: from what YAML or a flag has, with Go's words for what is wrong; and back. */
import { LbError } from '../../model/errors.ts'
import { formatDuration, parseDuration } from './duration.ts'
import type { FieldSpec, FieldType, FieldTypes } from './fields.ts'

type Value = FieldTypes[FieldType]

/** Of what Go's decoder speaks when it meets a value that a field cannot take. */
const goTypes: Readonly<Record<FieldType, string>> = {
  string: 'string',
  bool: 'bool',
  int32: 'int32',
  uint32: 'uint32',
  float32: 'float32',
  duration: 'string',
  strings: '[]string',
  gates: 'map[string]bool',
  quantity: 'string',
}

/** A YAML value as a field's. CONFIG: `json: cannot unmarshal ...`; `where` is the Go field. */
export function valueOfYaml(spec: FieldSpec, value: unknown, where: string): Value {
  const wrong = (found = kindOf(value), type = goTypes[spec.type]): LbError => {
    const target = spec.type === 'duration' ? `Go value of type ${type}` : `Go struct field ${where} of type ${type}`
    return new LbError('CONFIG', `json: cannot unmarshal ${found} into ${target}`)
  }
  if (value === null || value === undefined) return spec.default
  switch (spec.type) {
    case 'string':
    case 'quantity':
      if (typeof value === 'string') return value
      if (spec.type === 'quantity' && typeof value === 'number') return String(value)
      throw wrong()
    case 'duration':
      if (typeof value === 'string') return parseDuration(value)
      if (spec.numeric === true && typeof value === 'number') return value
      throw wrong()
    case 'bool':
      if (typeof value === 'boolean') return value
      throw wrong()
    case 'int32':
    case 'uint32':
      if (typeof value !== 'number') throw wrong()
      if (!fits(spec.type, value)) throw wrong(`number ${value}`)
      return value
    case 'float32':
      if (typeof value === 'number') return value
      throw wrong()
    case 'strings':
      if (!Array.isArray(value)) throw wrong()
      return value.map((item) => {
        if (typeof item !== 'string') throw wrong(kindOf(item), 'string')
        return item
      })
    case 'gates':
      return gatesOf(value, wrong)
  }
}

function gatesOf(value: unknown, wrong: (found?: string, type?: string) => LbError): Record<string, boolean> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong()
  return Object.fromEntries(
    Object.entries(value).map(([gate, on]) => {
      if (typeof on !== 'boolean') throw wrong(kindOf(on), 'bool')
      return [gate, on]
    }),
  )
}

function fits(type: 'int32' | 'uint32', value: number): boolean {
  const [least, most] = type === 'int32' ? [-(2 ** 31), 2 ** 31 - 1] : [0, 2 ** 32 - 1]
  return Number.isInteger(value) && value >= least && value <= most
}

/** As Go's decoder names what it found. */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'array'
  if (typeof value === 'boolean') return 'bool'
  return typeof value
}

/** The text of a flag as a field's value; a list may come in several. CONFIG in the words of Go's flags. */
export function valueOfFlag(spec: FieldSpec, text: string, before: Value): Value {
  switch (spec.type) {
    case 'string':
    case 'quantity':
      return text
    case 'duration':
      return parseDuration(text)
    case 'bool':
      return parseBool(text)
    case 'int32':
    case 'uint32':
      return parseInteger(text, spec.type)
    case 'float32': {
      const number = Number(text)
      if (text.trim() === '' || Number.isNaN(number)) throw syntax('ParseFloat', text)
      return number
    }
    case 'strings':
      return [...(Array.isArray(before) ? (before as readonly string[]) : []), ...(text === '' ? [] : text.split(','))]
    case 'gates':
      return { ...(before as Record<string, boolean> | null), ...parseGates(text) }
  }
}

function parseBool(text: string): boolean {
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(text)) return true
  if (['0', 'f', 'F', 'false', 'FALSE', 'False'].includes(text)) return false
  throw syntax('ParseBool', text)
}

function parseInteger(text: string, type: 'int32' | 'uint32'): number {
  const call = type === 'int32' ? 'ParseInt' : 'ParseUint'
  if (!/^[-+]?\d+$/.test(text)) throw syntax(call, text)
  if (!fits(type, Number(text)))
    throw new LbError('CONFIG', `strconv.${call}: parsing ${JSON.stringify(text)}: value out of range`)
  return Number(text)
}

function parseGates(text: string): Record<string, boolean> {
  const pairs = text.split(',').filter((each) => each.trim() !== '')
  return Object.fromEntries(
    pairs.map((pair) => {
      const [gate = '', on] = pair.trim().split('=')
      if (on === undefined) throw new LbError('CONFIG', `missing bool value for ${gate}`)
      return [gate, parseBool(on.trim())]
    }),
  )
}

function syntax(call: string, text: string): LbError {
  return new LbError('CONFIG', `strconv.${call}: parsing ${JSON.stringify(text)}: invalid syntax`)
}

/** A field's value as JSON and YAML have it: durations as text. */
export function plainValue(spec: FieldSpec, value: Value): unknown {
  return spec.type === 'duration' ? formatDuration(value as number) : value
}
