/** Connections that connection tracking translates, in the calling thread's network namespace. */
import { existsSync } from 'node:fs'
import { formatAddress } from '../model/address.ts'
import type { Family, Protocol, ServiceKey } from '../model/types.ts'
import { attribute, families, netlinkRequest, writeMessage, writeNumber } from './netlink.ts'

const GET = (1 << 8) | 1 /* of NFNL_SUBSYS_CTNETLINK: IPCTNL_MSG_CT_GET */
const NFGENMSG = 4
const at = { original: 1, status: 3, statusMask: 26, tuple: { ip: 1, protocol: 2 } } as const
const addressOf = { v4: 2, v6: 4 } as const
const portOf = { protocol: 1, to: 3 } as const
/** IPS_DST_NAT: its destination is another one. */
const TRANSLATED = 1 << 5

/** Where a connection was sent to before it was translated. */
export interface Destination {
  readonly family: Family
  /** IPPROTO_*. */
  readonly protocol: number
  readonly address: string
  /** 0: a protocol without ports. */
  readonly port: number
}

/** Of each connection whose destination is translated (DNAT); none where nothing is tracked. NATIVE, PERMISSION. */
export function translatedDestinations(): Destination[] {
  if (!existsSync('/proc/thread-self/net/nf_conntrack') && !existsSync('/proc/sys/net/netfilter/nf_conntrack_count')) {
    return [] /* asking would load it */
  }
  const filter = [writeNumber(at.status, TRANSLATED), writeNumber(at.statusMask, TRANSLATED)]
  const ask = writeMessage(GET, 'dump', Buffer.alloc(NFGENMSG), ...filter)
  const answers = netlinkRequest(families.netfilter, 'IPCTNL_MSG_CT_GET', ask) ?? []
  return answers.flatMap(({ body }) => {
    const status = attribute(body, at.status, NFGENMSG)
    if (status === undefined || (status.readUInt32BE() & TRANSLATED) === 0)
      return [] /* before Linux 5.18 all are told */
    return destinationOf(attribute(body, at.original, NFGENMSG)) ?? []
  })
}

const protocols: Readonly<Record<number, Protocol>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' }

/** How many of them were to something that `isOurs` says is ours. NATIVE, PERMISSION. */
export function translatedConnections(isOurs: (key: ServiceKey) => boolean): number {
  const known = new Map<string, boolean>()
  return translatedDestinations().filter(({ family, protocol: number, address, port }) => {
    const protocol = protocols[number]
    if (protocol === undefined) return false
    const name = `${protocol} ${address} ${port}`
    const ours = known.get(name) ?? isOurs({ kind: 'address', family, protocol, address, port })
    known.set(name, ours)
    return ours
  }).length
}

function destinationOf(tuple: Buffer | undefined): Destination | undefined {
  const [ip, ports] = tuple === undefined ? [] : [attribute(tuple, at.tuple.ip), attribute(tuple, at.tuple.protocol)]
  if (ip === undefined || ports === undefined) return undefined
  const four = attribute(ip, addressOf.v4)
  const address = four ?? attribute(ip, addressOf.v6)
  const protocol = attribute(ports, portOf.protocol)
  if (address === undefined || protocol === undefined) return undefined
  const family = four === undefined ? 6 : 4
  const port = attribute(ports, portOf.to)?.readUInt16BE() ?? 0
  return { family, protocol: protocol.readUInt8(), address: formatAddress(address, 0, family), port }
}
