/** The ways from client to server that are compared. Pure. */

/**
 * plain: routing, the client asks the server's own address. tcx, stack: bpvs. nft: DNAT as kube-proxy makes it.
 * Of processes on the director itself: host: they ask the server's own address; socket: bpvs translates at connect().
 */
export type PathKind = 'plain' | 'tcx' | 'stack' | 'nft' | 'host' | 'socket'

export interface Path {
  readonly kind: PathKind
  /** Services in the director; 0 with plain and host. */
  readonly services: number
  /** The server sees an address of the director's in place of the client's. */
  readonly masquerade?: boolean
}

export type Workload = 'short' | 'kept' | 'udp' | 'bulk'
export const workloads: readonly Workload[] = ['short', 'kept', 'udp', 'bulk']

/** Requests on each TCP connection of the workload `kept`, as bench/native/traffic.c has it. */
const KEPT_REQUESTS = 100

export const plain: Path = { kind: 'plain', services: 0 }
export const host: Path = { kind: 'host', services: 0 }

/** Whether the director's own processes are the clients. */
export function isLocal({ kind }: Path): boolean {
  return kind === 'host' || kind === 'socket'
}

/** The path without a balancer that a path is compared with. */
export function baseOf(path: Path): Path {
  return isLocal(path) ? host : plain
}

/** The workloads that tell something of a path: one stream of bytes sees no socket programs. */
export function workloadsOf(path: Path): readonly Workload[] {
  return isLocal(path) ? workloads.filter((workload) => workload !== 'bulk') : workloads
}

/** Connections (of UDP: flows) that a workload makes for so many requests. */
export function connectionsOf(workload: Workload, amount: number): number {
  return { short: amount, kept: Math.ceil(amount / KEPT_REQUESTS), udp: 1, bulk: 1 }[workload]
}

export interface TrafficScale {
  /** All but plain and host. */
  readonly paths: readonly Path[]
  readonly rounds: number
  /** Connections, requests, datagrams and bytes of one run. */
  readonly amount: Readonly<Record<Workload, number>>
}

const few = 10
const sizes = [few, 1_000, 10_000] as const

export const fullTraffic: TrafficScale = {
  paths: [
    ...sizes.map((services): Path => ({ kind: 'tcx', services })),
    { kind: 'stack', services: few },
    { kind: 'stack', services: 10_000 },
    ...sizes.map((services): Path => ({ kind: 'nft', services })),
    { kind: 'tcx', services: few, masquerade: true },
    { kind: 'tcx', services: 10_000, masquerade: true },
    { kind: 'stack', services: 10_000, masquerade: true },
    { kind: 'nft', services: few, masquerade: true },
    { kind: 'nft', services: 10_000, masquerade: true },
    { kind: 'socket', services: few },
    { kind: 'socket', services: 10_000 },
  ],
  rounds: 15,
  amount: { short: 1_000, kept: 5_000, udp: 5_000, bulk: 128 << 20 },
}
export const quickTraffic: TrafficScale = {
  paths: [
    { kind: 'tcx', services: few },
    { kind: 'nft', services: few },
    { kind: 'tcx', services: few, masquerade: true },
    { kind: 'nft', services: few, masquerade: true },
    { kind: 'socket', services: few },
  ],
  rounds: 5,
  amount: { short: 500, kept: 2_000, udp: 2_000, bulk: 32 << 20 },
}

/** CPU per short connection on tcx, against plain routing, and against nftables with as many services. */
export const SHORT_LIMIT = 0.98
/** The same against the same with few services. */
export const SIZE_LIMIT = 1.1
/** Requests a second through a socket's programs, against none. */
export const SOCKET_LEAST = 0.98

/** The same path with the fewest services. */
export function withFew(path: Path): Path {
  return { ...path, services: few }
}

/** The path of nftables that does what a path does. */
export function nftOf(path: Path): Path {
  return { ...path, kind: 'nft' }
}

/** A path's role in names of namespaces. */
export function pathName(path: Path): string {
  const { kind, services, masquerade = false } = path
  if (path === baseOf(path)) return kind
  return `${kind}-${services}${masquerade ? '-masq' : ''}`
}

/** Addresses: one server namespace has all of the servers' addresses. */
export const serverAddresses = ['10.2.0.11', '10.2.0.12', '10.2.0.13', '10.2.0.14'] as const

/** Ports of the load's server, as bench/native/traffic.c has them, and of the services in front. */
export const ports: Readonly<
  Record<Workload, { readonly server: number; readonly service: number; readonly protocol: 'tcp' | 'udp' }>
> = {
  short: { server: 8080, service: 80, protocol: 'tcp' },
  kept: { server: 8081, service: 8081, protocol: 'tcp' },
  udp: { server: 9000, service: 53, protocol: 'udp' },
  bulk: { server: 9001, service: 81, protocol: 'tcp' },
}

/** A virtual address and port with what stands behind it. */
export interface TrafficService {
  readonly address: string
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
  readonly serverPort: number
}

/** The service that a workload asks. */
export function serviceOf(workload: Workload): TrafficService {
  const { protocol, service, server } = ports[workload]
  return { address: serviceAddress(0), protocol, port: service, serverPort: server }
}

function serviceAddress(n: number): string {
  return `10.96.${(n + 1) >> 8}.${(n + 1) & 255}`
}

/** All services: `count` addresses; the first has one for each workload. */
export function listServices(count: number): TrafficService[] {
  const { protocol, service: port, server: serverPort } = ports.short
  const others = Array.from({ length: count - 1 }, (_, n) => ({
    address: serviceAddress(n + 1),
    protocol,
    port,
    serverPort,
  }))
  return [...workloads.map(serviceOf), ...others]
}
