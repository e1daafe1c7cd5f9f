/** As much of the DNS wire format (RFC 1035, 3596) as a test server and its clients need. */
import { isIPv4 } from 'node:net'
import { LbError } from '../model/errors.ts'

export const dnsTypes = { A: 1, TXT: 16, AAAA: 28 } as const
export type DnsType = keyof typeof dnsTypes

const classIn = 1
const flags = { response: 0x8000, authoritative: 0x0400, recursionDesired: 0x0100 } as const
export const rcodes = { ok: 0, formatError: 1, noName: 3, notImplemented: 4 } as const

export interface DnsRecord {
  readonly name: string
  readonly type: DnsType
  readonly ttlS: number
  /** An address, or the text of a TXT record of up to 255 bytes. */
  readonly data: string
}

export interface DnsQuestion {
  readonly name: string
  /** Number of the type: a client may ask for one that we do not know. */
  readonly type: number
}

export interface DnsMessage {
  readonly id: number
  readonly isResponse: boolean
  readonly rcode: number
  readonly question: DnsQuestion
  readonly answers: readonly DnsRecord[]
  readonly additional: readonly DnsRecord[]
}

function encodeName(name: string): Buffer {
  const labels = name
    .split('.')
    .filter((label) => label !== '')
    .map((label) => Buffer.from(label, 'latin1'))
  return Buffer.concat([...labels.flatMap((label) => [Buffer.of(label.length), label]), Buffer.of(0)])
}

/** The 16 bytes of an IPv6 address; URL brings any spelling into the compressed form first. */
function ipv6Bytes(address: string): Buffer {
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1)
  const [head = '', tail] = canonical.split('::')
  const groups = (text: string) =>
    text
      .split(':')
      .filter((group) => group !== '')
      .map((group) => parseInt(group, 16))
  const front = groups(head)
  const back = groups(tail ?? '')
  const words = [...front, ...new Array<number>(8 - front.length - back.length).fill(0), ...back]
  const bytes = Buffer.alloc(16)
  words.forEach((word, i) => bytes.writeUInt16BE(word, 2 * i))
  return bytes
}

function encodeData(record: DnsRecord): Buffer {
  if (record.type === 'AAAA') return ipv6Bytes(record.data)
  if (record.type === 'A') return Buffer.from(record.data.split('.').map(Number))
  const text = Buffer.from(record.data)
  return Buffer.concat([Buffer.of(text.length), text])
}

function encodeRecord(record: DnsRecord): Buffer {
  const data = encodeData(record)
  const fixed = Buffer.alloc(10)
  fixed.writeUInt16BE(dnsTypes[record.type], 0)
  fixed.writeUInt16BE(classIn, 2)
  fixed.writeUInt32BE(record.ttlS, 4)
  fixed.writeUInt16BE(data.length, 8)
  return Buffer.concat([encodeName(record.name), fixed, data])
}

/** Encodes a query or a response. */
export function encodeDns(message: DnsMessage): Buffer {
  const header = Buffer.alloc(12)
  const response = message.isResponse ? flags.response | flags.authoritative : 0
  header.writeUInt16BE(message.id, 0)
  header.writeUInt16BE(response | flags.recursionDesired | message.rcode, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(message.answers.length, 6)
  header.writeUInt16BE(message.additional.length, 10)
  const question = Buffer.alloc(4)
  question.writeUInt16BE(message.question.type, 0)
  question.writeUInt16BE(classIn, 2)
  const records = [...message.answers, ...message.additional].map(encodeRecord)
  return Buffer.concat([header, encodeName(message.question.name), question, ...records])
}

/** A query for one name. */
export function encodeQuery(id: number, name: string, type: DnsType): Buffer {
  const question = { name, type: dnsTypes[type] }
  return encodeDns({ id, isResponse: false, rcode: rcodes.ok, question, answers: [], additional: [] })
}

class Reader {
  readonly bytes: Buffer
  at = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  u16(): number {
    this.at += 2
    return this.bytes.readUInt16BE(this.at - 2)
  }

  name(): string {
    const labels: string[] = []
    let at = this.at
    let end: number | undefined
    for (let steps = 0; steps < 128; steps++) {
      const length = this.bytes.readUInt8(at)
      if (length >= 0xc0) {
        end ??= at + 2
        at = this.bytes.readUInt16BE(at) & 0x3fff
      } else if (length === 0) {
        this.at = end ?? at + 1
        return labels.join('.')
      } else {
        labels.push(this.bytes.toString('latin1', at + 1, at + 1 + length))
        at += 1 + length
      }
    }
    throw new RangeError('a name that does not end')
  }

  record(): DnsRecord | undefined {
    const name = this.name()
    const type = this.u16()
    this.at += 2
    const ttlS = this.bytes.readUInt32BE(this.at)
    this.at += 4
    const length = this.u16()
    const data = this.bytes.subarray(this.at, this.at + length)
    this.at += length
    if (type === dnsTypes.A) return { name, type: 'A', ttlS, data: [...data].join('.') }
    if (type === dnsTypes.TXT) return { name, type: 'TXT', ttlS, data: data.toString('utf8', 1) }
    return type === dnsTypes.AAAA ? { name, type: 'AAAA', ttlS, data: ipv6Text(data) } : undefined
  }

  records(count: number): DnsRecord[] {
    return Array.from({ length: count }, () => this.record()).filter((record) => record !== undefined)
  }
}

function ipv6Text(bytes: Buffer): string {
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16))
  return new URL(`http://[${words.join(':')}]/`).hostname.slice(1, -1)
}

/** Decodes a message with one question. INVALID when it is none. */
export function decodeDns(bytes: Buffer): DnsMessage {
  try {
    const reader = new Reader(bytes)
    const id = reader.u16()
    const word = reader.u16()
    const [questions, answers, authority, additional] = [reader.u16(), reader.u16(), reader.u16(), reader.u16()]
    if (questions !== 1) throw new RangeError(`${questions} questions`)
    const question = { name: reader.name().toLowerCase(), type: reader.u16() }
    reader.at += 2
    const answered = reader.records(answers)
    reader.records(authority)
    return {
      id,
      isResponse: (word & flags.response) !== 0,
      rcode: word & 0xf,
      question,
      answers: answered,
      additional: reader.records(additional),
    }
  } catch (cause) {
    throw new LbError('INVALID', `not a DNS message: ${(cause as Error).message}`, { length: bytes.length }, cause)
  }
}

/** The address record type of an address. */
export function addressType(address: string): 'A' | 'AAAA' {
  return isIPv4(address) ? 'A' : 'AAAA'
}
