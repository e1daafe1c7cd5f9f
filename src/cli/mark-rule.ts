/** Mark rules in words: what `--mark-rule` reads and `--mark-rules` prints. Pure. */
import type { Family, MarkRule, Prefix, Protocol } from '../model/types.ts'
import { formatAddress, parseIPv4, parseIPv6 } from './address.ts'
import type { MarkRuleCommand } from './command.ts'
import { usageError } from './usage-error.ts'

type Draft = { -readonly [Name in keyof MarkRule]: MarkRule[Name] }

const protocols: readonly string[] = ['tcp', 'udp', 'sctp'] satisfies readonly Protocol[]

/** What each keyword says. */
const keywords: Readonly<Record<string, (rule: Draft, value: string) => void>> = {
  from: (rule, value) => {
    rule.from = readPrefix(value)
  },
  to: (rule, value) => {
    rule.to = readPrefix(value)
  },
  proto: (rule, value) => {
    if (!protocols.includes(value)) throw usageError(`no protocol for a mark rule: ${value}`)
    rule.protocol = value as Protocol
  },
  port: (rule, value) => {
    rule.ports = readPorts(value)
  },
  dev: (rule, value) => {
    rule.interface = value
  },
}

/** `add 1 to 10.9.0.0/16 proto tcp port 80-90 dev eth0`. USAGE. */
export function parseMarkRule(words: readonly string[]): MarkRuleCommand {
  const [edit = '', mark = '', ...rest] = words
  if (edit !== 'add' && edit !== 'delete')
    throw usageError('--mark-rule add|delete MARK [from|to|proto|port|dev VALUE]...')
  const rule: Draft = { mark: readMark(mark) }
  const given = new Set<string>()
  for (let i = 0; i < rest.length; i += 2) {
    const [keyword = '', value] = [rest[i], rest[i + 1]]
    const read = keywords[keyword]
    if (read === undefined) throw usageError(`unexpected argument ${keyword}`)
    if (value === undefined) throw usageError(`${keyword}: missing argument`)
    if (given.has(keyword)) throw usageError(`${keyword}: given twice`)
    given.add(keyword)
    read(rule, value)
  }
  const families = new Set([rule.from?.family, rule.to?.family].filter((family) => family !== undefined))
  if (families.size > 1) throw usageError('a mark rule is of one address family')
  const [family] = families
  return { do: 'mark-rule', edit, rule: family === undefined ? rule : { ...rule, family } }
}

/** One rule a line, in the words that --mark-rule takes. */
export function formatMarkRules(rules: readonly MarkRule[]): string {
  return rules.map((rule) => `${formatMarkRule(rule)}\n`).join('')
}

function formatMarkRule({ mark, from, to, protocol, ports, interface: device }: MarkRule): string {
  return [
    String(mark),
    ...(from === undefined ? [] : ['from', formatPrefix(from)]),
    ...(to === undefined ? [] : ['to', formatPrefix(to)]),
    ...(protocol === undefined ? [] : ['proto', protocol]),
    ...(ports === undefined
      ? []
      : ['port', ports.first === ports.last ? `${ports.first}` : `${ports.first}-${ports.last}`]),
    ...(device === undefined ? [] : ['dev', device]),
  ].join(' ')
}

function formatPrefix({ address, length }: Prefix): string {
  return `${address}/${length}`
}

/** As `-f` takes it, but for 0. */
function readMark(text: string): number {
  const mark = /^(\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : 0
  if (mark < 1 || mark > 0xffffffff) throw usageError(`no firewall mark: ${text}`)
  return mark
}

/** An address with the bits of it that count, all of them unless said otherwise; the others become 0. */
function readPrefix(text: string): Prefix {
  const [, address = '', bits] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const family: Family = address.includes(':') ? 6 : 4
  const bytes = family === 4 ? parseIPv4(address) : parseIPv6(address)
  const length = bits === undefined ? (bytes?.length ?? 0) * 8 : Number(bits)
  if (bytes === undefined || length > bytes.length * 8) throw usageError(`no prefix: ${text}`)
  const kept = bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, length - i * 8))))
  return { address: formatAddress(kept), family, length }
}

function readPorts(text: string): { readonly first: number; readonly last: number } {
  const [, low, high] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? []
  const first = Number(low)
  const last = high === undefined ? first : Number(high)
  if (low === undefined || first > last || last > 65535) throw usageError(`no ports: ${text}`)
  return { first, last }
}
