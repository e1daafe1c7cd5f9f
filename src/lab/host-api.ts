/**
 * What a host of a topology can be asked to do: the messages between the main thread and the worker thread that lives
 * in the host's namespace. All data is plain, so it can be posted.
 */
import type { DnsType } from './dns-codec.ts'
import type { Report } from './tally.ts'

/** Where a client sends to. The address is numeric: names are resolved outside of the worker's namespace. */
export interface Target {
  readonly address: string
  readonly port: number
}

export interface ServerOptions {
  /** The name it answers with. */
  readonly name: string
  /** 0: any free port. */
  readonly port: number
  /** Default: every address of both families. */
  readonly address?: string
}

export interface DnsServerOptions extends ServerOptions {
  /** Addresses of both families by lower-case name; an unknown name is answered with NXDOMAIN. */
  readonly records: Readonly<Record<string, readonly string[]>>
}

/** A server that runs. */
export interface ServerInfo {
  readonly id: number
  readonly port: number
}

/** What a server counted since it was started. */
export interface ServerCounts {
  /** TCP connections accepted. */
  readonly connections: number
  /** Requests (HTTP, DNS), or datagrams and chunks (echo). */
  readonly requests: number
  /** TCP connections open now. */
  readonly open: number
}

/** A stream of requests. */
export interface LoadOptions extends Target {
  /** Requests in flight at a time. Default: 1. */
  readonly concurrency?: number
  /** Ends by itself after so many requests. Default: goes on until stopped. */
  readonly count?: number
  /** Requests per second, evenly spaced. Default: as fast as answers come. */
  readonly ratePerSecond?: number
  /** A request without a whole answer after this time has failed as TIMEOUT. Default: 5,000. */
  readonly timeoutMs?: number
}

export interface HttpLoadOptions extends LoadOptions {
  /** Default: "/". */
  readonly path?: string
  /** Many requests on a connection. Default: a connection per request. */
  readonly keepAlive?: boolean
}

export interface DnsLoadOptions extends LoadOptions {
  readonly name: string
  readonly type: DnsType
  /** Over TCP, a connection per question. Default: over UDP, a new source port per question. */
  readonly tcp?: boolean
}

export interface HttpAnswer {
  readonly status: number
  /** The name of the server that answered. */
  readonly server: string
  readonly body: string
}

/** The body of an HTTP answer to any path but /bytes/N, as JSON. */
export interface HttpDetails {
  readonly server: string
  readonly client: Target
  readonly local: Target
  readonly method: string
  readonly path: string
}

export interface DnsAnswer {
  readonly server: string
  readonly rcode: number
  /** Addresses or texts, in the order of the answer. */
  readonly answers: readonly string[]
}

/** A question to a mirror, and for how long an answer is waited for. */
export interface Probe extends Target {
  readonly protocol: 'tcp' | 'udp'
  readonly timeoutMs: number
  /** Default: one that the kernel picks. */
  readonly localPort?: number
  /** So many bytes go each way besides: of UDP in one datagram. Default: 0. */
  readonly bytes?: number
}

/** What a mirror answers: its own name, and the address that it sees its caller at. */
export interface Mirrored {
  readonly server: string
  readonly client: string
}

/** How one attempt of a client ended: the value, or what kind of failure it was. */
export type Outcome<T> = { readonly value: T } | { readonly error: string }

/** The calls; every one is answered when it is done. */
export interface HostApi {
  /** HTTP server: answers every request with its own name and what it saw of the client. */
  serveHttp(options: ServerOptions): Promise<ServerInfo>
  /** DNS server on UDP and TCP. */
  serveDns(options: DnsServerOptions): Promise<ServerInfo>
  /** Echo server on TCP and UDP; TCP says its name in a first line, UDP in front of every datagram. */
  serveEcho(options: ServerOptions): Promise<ServerInfo>
  /** Mirror on TCP and UDP: tells callers its name and their address. UDP answers from the address it was asked at only where `address` names it. */
  serveMirror(options: ServerOptions): Promise<ServerInfo>
  serverCounts(id: number): ServerCounts
  /** Closes a server and, with reset, its connections (RST) too; without, these end when their clients end them. */
  stopServer(id: number, reset?: boolean): Promise<void>

  startHttp(options: HttpLoadOptions): number
  startDns(options: DnsLoadOptions): number
  /** What a stream of requests saw; with reset, since the last reset. */
  loadReport(id: number, reset?: boolean): Report
  /** Stops sending, waits for the requests in flight, returns the report since the last reset and forgets the stream. */
  stopLoad(id: number): Promise<Report>
  /** Waits until a stream with a count is done, returns its report and forgets the stream. */
  loadDone(id: number): Promise<Report>

  http(target: Target & { readonly path?: string; readonly timeoutMs?: number }): Promise<Outcome<HttpAnswer>>
  dns(query: DnsLoadOptions): Promise<Outcome<DnsAnswer>>
  /** One datagram to an echo server and its answer; size counts bytes of payload. */
  datagram(target: Target & { readonly size: number; readonly timeoutMs?: number }): Promise<Outcome<string>>
  /** Asks mirrors, at most `parallel` at a time; outcomes in the order of the probes. */
  probe(probes: readonly Probe[], parallel: number): Promise<Outcome<Mirrored>[]>
  /** Opens a connection to an echo server and keeps it; the value tells its id and the server's name. */
  connect(target: Target & { readonly timeoutMs?: number }): Promise<Outcome<{ id: number; server: string }>>
  /** Sends text on a kept connection and waits until it comes back; the value is the server's name. */
  ping(id: number, text: string, timeoutMs?: number): Promise<Outcome<string>>
  /** Ends a kept connection: with a FIN, or with an RST. */
  disconnect(id: number, reset?: boolean): Promise<void>
}

export type HostMethod = keyof HostApi
export type HostArguments<M extends HostMethod> = Parameters<HostApi[M]>
export type HostResult<M extends HostMethod> = Awaited<ReturnType<HostApi[M]>>

/** Main thread to worker. */
export interface HostCall {
  readonly id: number
  readonly method: HostMethod
  readonly args: readonly unknown[]
}

/** Worker to main thread; the first one, with id 0, says that the worker is in its namespace. */
export type HostReply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string }
