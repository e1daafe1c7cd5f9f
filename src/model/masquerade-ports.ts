/** The ports that masqueraded connections are sent from: none that anybody else may come to use. Pure. */
import { LbError } from './errors.ts'

/** Both included. */
export interface PortRange {
  readonly first: number
  readonly last: number
}

/** Ports that are somebody's already, and whose. */
export interface TakenPorts extends PortRange {
  readonly what: string
}

/** Ports that the kernel gives to sockets; ports among them that it does not give. */
export const localPorts = 'net.ipv4.ip_local_port_range'
export const reservedPorts = 'net.ipv4.ip_local_reserved_ports'

/** With fewer ports than these, connections to a server that is asked much would be refused one. */
const enoughPorts = 4096
/** As many are asked of the kernel where it has too few to spare. */
const wantedPorts = 8192

const firstPort = 1024
const lastPort = 65535

/** Where kube-apiserver takes node ports from, unless it was told otherwise. */
export const usualNodePorts: TakenPorts = {
  what: "the usual range of Kubernetes' node ports",
  first: 30000,
  last: 32767,
}

/** `1024-29999`, `20000`. INVALID. */
export function parsePortRange(text: string): PortRange {
  const [, first, last = first] = /^\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*$/.exec(text) ?? []
  const range = { first: Number(first), last: Number(last) }
  if (range.first >= firstPort && range.first <= range.last && range.last <= lastPort) return range
  throw new LbError('INVALID', `"${text}" is no range of ports from ${firstPort} to ${lastPort}`)
}

export function formatPortRange({ first, last }: PortRange): string {
  return first === last ? String(first) : `${first}-${last}`
}

/** As the kernel lists them: `8080,9000-9010`; empty: none. */
export function parsePortList(text: string): PortRange[] {
  return text.split(',').flatMap((item) => {
    const [, first, last = first] = /^\s*(\d+)(?:-(\d+))?\s*$/.exec(item) ?? []
    return first === undefined ? [] : [{ first: Number(first), last: Number(last) }]
  })
}

/** The largest range that meets none of these, the lowest of several; undefined: there is none. */
export function largestGap(taken: readonly PortRange[]): PortRange | undefined {
  const sorted = taken.toSorted((a, b) => a.first - b.first)
  let best: PortRange | undefined
  let next = firstPort
  for (const { first, last } of [...sorted, { first: lastPort + 1, last: lastPort + 1 }]) {
    const gap = { first: next, last: Math.min(first - 1, lastPort) }
    if (gap.last >= gap.first && (best === undefined || gap.last - gap.first > best.last - best.first)) best = gap
    next = Math.max(next, last + 1)
  }
  return best
}

/** Are there so few ports that some should be asked of the kernel? */
export function isScarce(range: PortRange | undefined): boolean {
  return range === undefined || range.last - range.first + 1 < enoughPorts
}

/** Ports to ask of the kernel, as it gives out all others; undefined: there are none. */
export function portsToReserve(taken: readonly TakenPorts[]): PortRange | undefined {
  const gap = largestGap(taken.filter(({ what }) => what !== localPorts))
  return gap === undefined ? undefined : { first: Math.max(gap.first, gap.last - wantedPorts + 1), last: gap.last }
}

/** Were these ports asked of the kernel before? */
export function isReserved(range: PortRange, taken: readonly TakenPorts[]): boolean {
  return taken.some(({ what, first, last }) => what === reservedPorts && first <= range.first && last >= range.last)
}

/** The first of these that a range meets. */
export function metBy<T extends PortRange>(range: PortRange, taken: readonly T[]): T | undefined {
  return taken.find(({ first, last }) => first <= range.last && last >= range.first)
}

/** INVALID: the range meets one of these; says which. */
export function requireFree(range: PortRange, taken: readonly TakenPorts[]): void {
  const met = metBy(range, taken)
  if (met === undefined) return
  throw new LbError('INVALID', `ports ${formatPortRange(range)} meet ${met.what}, ${formatPortRange(met)}`)
}
