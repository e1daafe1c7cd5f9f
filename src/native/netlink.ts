/** Netlink messages: how they are written and read, and the call that sends them. */
import { littleEndian } from '../abi/codec.ts'
import { LbError } from '../model/errors.ts'
import { bind, check, errno, type Signature } from './library.ts'

export const families = { netfilter: 12, generic: 16 } as const

const REQUEST = 1
const ACK = 4
const DUMP = 0x300
const CREATE = 0x400
const flagsOf = {
  request: REQUEST,
  acknowledged: REQUEST | ACK,
  dump: REQUEST | DUMP,
  creation: REQUEST | CREATE,
} as const
const HEADER = 16
const ERROR = 2
const DONE = 3
const NESTED = 0x8000
const TYPE_MASK = 0x3fff /* without NLA_F_NESTED and NLA_F_NET_BYTEORDER */

export interface Message {
  readonly type: number
  readonly body: Buffer
}

interface Functions {
  bpvs_netlink(protocol: number, request: Uint8Array, length: number, out: Uint8Array, room: number): number
}

const c = bind<Functions>({
  bpvs_netlink: ['int', 'int', 'void *', 'uint32', 'void *', 'uint32'],
} satisfies Record<keyof Functions, Signature>)

function padded(length: number): number {
  return (length + 3) & ~3
}

function view(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** A message. `request`: errors alone are answered; `acknowledged`: success too; `dump`: all that there are; `creation`: as `request`. */
export function writeMessage(type: number, how: keyof typeof flagsOf, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const message = Buffer.alloc(HEADER + padded(body.length))
  const at = view(message)
  at.setUint32(0, HEADER + body.length, littleEndian)
  at.setUint16(4, type, littleEndian)
  at.setUint16(6, flagsOf[how], littleEndian)
  body.copy(message, HEADER)
  return message
}

/** An attribute; a text ends with a 0. */
export function writeAttribute(type: number, value: string | Buffer): Buffer {
  const data = typeof value === 'string' ? Buffer.from(`${value}\0`) : value
  const bytes = Buffer.alloc(4 + padded(data.length))
  view(bytes).setUint16(0, 4 + data.length, littleEndian)
  view(bytes).setUint16(2, type, littleEndian)
  data.copy(bytes, 4)
  return bytes
}

/** An attribute of attributes. */
export function writeNested(type: number, ...attributes: readonly Buffer[]): Buffer {
  return writeAttribute(type | NESTED, Buffer.concat(attributes))
}

/** A number of 32 bits in network order, as netfilter's families have them. */
export function writeNumber(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return writeAttribute(type, bytes)
}

/** The messages that answers hold. NATIVE, PERMISSION: one of them is an error; `call` names what was asked. */
export function readMessages(bytes: Buffer, call: string): Message[] {
  const messages: Message[] = []
  let at = 0
  while (at + HEADER <= bytes.length) {
    const length = view(bytes).getUint32(at, littleEndian)
    const type = view(bytes).getUint16(at + 4, littleEndian)
    const body = bytes.subarray(at + HEADER, at + length)
    if (type === ERROR) check(view(body).getInt32(0, littleEndian), call)
    else if (type !== DONE) messages.push({ type, body })
    at += padded(Math.max(length, HEADER))
  }
  return messages
}

/** Attributes in their order, from `start` on. */
export function readAttributes(body: Buffer, start = 0): { readonly type: number; readonly value: Buffer }[] {
  const attributes: { type: number; value: Buffer }[] = []
  let at = start
  while (at + 4 <= body.length) {
    const length = Math.max(view(body).getUint16(at, littleEndian), 4)
    const type = view(body).getUint16(at + 2, littleEndian) & TYPE_MASK
    attributes.push({ type, value: body.subarray(at + 4, at + length) })
    at += padded(length)
  }
  return attributes
}

/** The first attribute of a type; undefined: there is none. */
export function attribute(body: Buffer, type: number, start = 0): Buffer | undefined {
  return readAttributes(body, start).find((each) => each.type === type)?.value
}

/** Of an attribute that is a text. */
export function textOf(value: Buffer | undefined): string {
  return value === undefined ? '' : value.toString('utf8').replace(/\0.*$/s, '')
}

/** Of an attribute that is a number of 16 bits in host order. */
export function shortOf(value: Buffer | undefined): number {
  return value === undefined ? 0 : view(value).getUint16(0, littleEndian)
}

/** Sends messages in the calling thread's namespace; undefined where the kernel has no such family. NATIVE, PERMISSION. */
export function netlinkRequest(family: number, call: string, ...messages: readonly Buffer[]): Message[] | undefined {
  const request = Buffer.concat(messages)
  for (let room = 1 << 18; room <= 1 << 28; room *= 4) {
    const out = Buffer.allocUnsafe(room)
    const result = c.bpvs_netlink(family, request, request.length, out, room)
    if (result === -errno.EMSGSIZE) continue
    if (result === -errno.EPROTONOSUPPORT) return undefined
    return readMessages(out.subarray(0, check(result, call)), call)
  }
  throw new LbError('NATIVE', `${call}: the answer is too long`)
}
