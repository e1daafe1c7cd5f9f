/** Connections that connection tracking translates, in the calling thread's network namespace. */
import { existsSync } from 'node:fs'
import { formatAddress } from '../model/address.ts'
import { LbError } from '../model/errors.ts'
import type { Family, Protocol, ServiceKey } from '../model/types.ts'
import { errno } from './library.ts'
import { attribute, families, netlinkRequest, writeAttribute, writeMessage, writeNumber } from './netlink.ts'

const ctnetlink = (message: number): number => (1 << 8) | message /* of NFNL_SUBSYS_CTNETLINK */
const type = { get: ctnetlink(1), remove: ctnetlink(2) } as const
const NFGENMSG = 4
const at = { original: 1, reply: 2, status: 3, statusMask: 26, tuple: { ip: 1, protocol: 2 } } as const
const NESTED = 0x8000
const addressAt = { from: { 4: 1, 6: 3 }, to: { 4: 2, 6: 4 } } as const
const portAt = { protocol: 1, from: 2, to: 3 } as const
const protocols: Readonly<Record<number, Protocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' }
/** AF_INET, AF_INET6. */
const numbers = { 4: 2, 6: 10 } as const
/** IPS_DST_NAT: its destination is another one. */
const TRANSLATED = 1 << 5

/** An address and a port. */
export interface End {
  readonly address: string
  readonly port: number
}

interface Flow {
  readonly family: Family
  readonly protocol: Protocol
  /** Where it was sent to, and who answers. */
  readonly to: End
  readonly server: End
  /** What it is known by. */
  readonly original: Buffer
}

/** Connections of TCP, UDP and SCTP whose destination is translated (DNAT). NATIVE, PERMISSION. */
function translatedFlows(): Flow[] {
  if (!existsSync('/proc/sys/net/netfilter/nf_conntrack_count')) return [] /* asking would load it */
  const filter = [writeNumber(at.status, TRANSLATED), writeNumber(at.statusMask, TRANSLATED)]
  const ask = writeMessage(type.get, 'dump', Buffer.alloc(NFGENMSG), ...filter)
  const answers = netlinkRequest(families.netfilter, 'IPCTNL_MSG_CT_GET', ask) ?? []
  return answers.flatMap(({ body }) => {
    const status = attribute(body, at.status, NFGENMSG)
    if (status === undefined || (status.readUInt32BE() & TRANSLATED) === 0)
      return [] /* before Linux 5.18 all are told */
    return flowOf(body) ?? []
  })
}

function flowOf(body: Buffer): Flow | undefined {
  const [original, reply] = [attribute(body, at.original, NFGENMSG), attribute(body, at.reply, NFGENMSG)]
  const family = body[0] === numbers[6] ? 6 : 4
  if (original === undefined || reply === undefined) return undefined
  const number = attribute(attribute(original, at.tuple.protocol) ?? Buffer.alloc(0), portAt.protocol)?.[0] ?? 0
  const [to, server] = [endOf(original, family, 'to'), endOf(reply, family, 'from')]
  const protocol = protocols[number]
  if (protocol === undefined || to === undefined || server === undefined) return undefined
  return { family, protocol, to, server, original }
}

function endOf(tuple: Buffer, family: Family, end: 'from' | 'to'): End | undefined {
  const [ip, ports] = [attribute(tuple, at.tuple.ip), attribute(tuple, at.tuple.protocol)]
  const address = ip && attribute(ip, addressAt[end][family])
  const port = ports && attribute(ports, portAt[end])
  return address && port && { address: formatAddress(address, 0, family), port: port.readUInt16BE() }
}

/** Connections that are translated. NATIVE, PERMISSION. */
export function countTranslated(): number {
  return translatedFlows().length
}

/**
 * Connections that are translated and were sent to something that `serversOf` knows, undefined being what it does not. Flows of
 * datagrams to what is none of its servers any more are forgotten: nobody answers, and the sender would never learn it. (Of a
 * service without servers they are kept: these may not be known yet.) NATIVE, PERMISSION.
 */
export function settleTranslated(serversOf: (key: ServiceKey) => readonly End[] | undefined): number {
  const known = new Map<string, readonly End[] | undefined>()
  const lookUp = ({ family, protocol, to }: Flow): readonly End[] | undefined => {
    const name = `${protocol} ${to.address} ${to.port}`
    if (!known.has(name)) known.set(name, serversOf({ kind: 'address', family, protocol, ...to }))
    return known.get(name)
  }
  return translatedFlows().filter((flow) => {
    const servers = lookUp(flow)
    const { address, port } = flow.server
    const isServed = servers?.length === 0 || servers?.some((each) => each.address === address && each.port === port)
    if (servers === undefined || isServed === true || flow.protocol !== 'udp') return servers !== undefined
    forget(flow)
    return false
  }).length
}

/** It may have ended meanwhile. */
function forget({ family, original }: Flow): void {
  const head = Buffer.from([numbers[family], 0, 0, 0])
  const message = writeMessage(type.remove, 'acknowledged', head, writeAttribute(at.original | NESTED, original))
  try {
    netlinkRequest(families.netfilter, 'IPCTNL_MSG_CT_DELETE', message)
  } catch (error) {
    if (!(error instanceof LbError) || error.detail.errno !== errno.ENOENT) throw error
  }
}
