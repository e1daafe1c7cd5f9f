/** The ways from client to server that are compared. Pure. */

/** plain: routing, the client asks the server's own address. tcx, stack: bpvs. nft: DNAT as kube-proxy makes it. */
export type PathKind = 'plain' | 'tcx' | 'stack' | 'nft'

export interface Path {
  readonly kind: PathKind
  /** Services in the director; 0 with plain. */
  readonly services: number
}

export type Workload = 'short' | 'udp' | 'bulk'
export const workloads: readonly Workload[] = ['short', 'udp', 'bulk']

export const plain: Path = { kind: 'plain', services: 0 }

export interface TrafficScale {
  /** All but plain. */
  readonly paths: readonly Path[]
  readonly rounds: number
  /** Connections, datagrams and bytes of one run. */
  readonly amount: Readonly<Record<Workload, number>>
}

export const fullTraffic: TrafficScale = {
  paths: [
    { kind: 'tcx', services: 10 },
    { kind: 'tcx', services: 10_000 },
    { kind: 'stack', services: 10 },
    { kind: 'stack', services: 10_000 },
    { kind: 'nft', services: 10 },
    { kind: 'nft', services: 1_000 },
    { kind: 'nft', services: 10_000 },
  ],
  rounds: 15,
  amount: { short: 1_000, udp: 5_000, bulk: 128 << 20 },
}
export const quickTraffic: TrafficScale = {
  paths: [
    { kind: 'tcx', services: 10 },
    { kind: 'nft', services: 10 },
  ],
  rounds: 5,
  amount: { short: 500, udp: 2_000, bulk: 32 << 20 },
}

/** CPU per short connection on tcx, against plain routing. */
export const SHORT_LIMIT = 0.98

/** A path's role in names of namespaces. */
export function pathName({ kind, services }: Path): string {
  return kind === 'plain' ? kind : `${kind}-${services}`
}

/** Addresses: one server namespace has all of the servers' addresses. */
export const serverAddresses = ['10.2.0.11', '10.2.0.12', '10.2.0.13', '10.2.0.14'] as const

/** Ports of the load's server, as bench/native/traffic.c has them, and of the services in front. */
export const ports: Readonly<
  Record<Workload, { readonly server: number; readonly service: number; readonly protocol: 'tcp' | 'udp' }>
> = {
  short: { server: 8080, service: 80, protocol: 'tcp' },
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
