/** Servers of a host: HTTP, DNS and echo. Each answers with its own name, so clients can count who served them. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { LbError } from '../model/errors.ts'
import { addressType, decodeDns, type DnsMessage, type DnsRecord, dnsTypes, encodeDns, rcodes } from './dns-codec.ts'
import type { DnsServerOptions, ServerCounts, ServerOptions, Target } from './host-api.ts'

/** Header that names the server which answered. */
export const serverHeader = 'x-server'
/** Name of the TXT record that names the server which answered. */
export const serverRecord = 'id.server'

const backlog = 4096

/** An address as its own family writes it: an IPv4 client of a dual-stack socket is no ::ffff: address. */
function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '')
}

/** One server with its sockets, and what it counted. */
export class LabServer {
  readonly name: string
  port = 0
  requests = 0
  #connections = 0
  #tcp: Server | undefined
  #udp: UdpSocket | undefined
  readonly #open = new Set<Socket>()

  constructor(name: string) {
    this.name = name
  }

  counts(): ServerCounts {
    return { connections: this.#connections, requests: this.requests, open: this.#open.size }
  }

  /** Listens on TCP and sets the port. Rejects with NATIVE when it cannot. */
  listenTcp(server: Server, options: ServerOptions): Promise<void> {
    this.#tcp = server
    server.on('connection', (socket: Socket) => {
      this.#connections += 1
      this.#open.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => this.#open.delete(socket))
    })
    return new Promise((resolve, reject) => {
      server.once('error', (cause) => reject(this.#failure('listen', options, cause)))
      server.listen({ host: options.address ?? '::', port: options.port, backlog }, () => {
        this.port = (server.address() as AddressInfo).port
        resolve()
      })
    })
  }

  /** Receives on UDP, on the port that TCP got. Rejects with NATIVE when it cannot. */
  listenUdp(socket: UdpSocket, options: ServerOptions): Promise<void> {
    this.#udp = socket
    return new Promise((resolve, reject) => {
      socket.once('error', (cause) => reject(this.#failure('bind', options, cause)))
      socket.bind({ address: options.address ?? '::', port: this.port }, () => {
        socket.removeAllListeners('error').on('error', () => {})
        resolve()
      })
    })
  }

  /** Stops listening. With reset, open connections are reset; without, they end when their clients end them. */
  async stop(reset: boolean): Promise<void> {
    this.#udp?.close()
    this.#udp = undefined
    this.#tcp?.close()
    this.#tcp = undefined
    if (reset) for (const socket of this.#open) socket.resetAndDestroy()
  }

  #failure(call: string, options: ServerOptions, cause: Error): LbError {
    const where = `${options.address ?? '[::]'} port ${options.port}`
    return new LbError('NATIVE', `server ${this.name}: cannot ${call} on ${where}: ${cause.message}`, { call }, cause)
  }
}

function udpSocketFor(options: ServerOptions): UdpSocket {
  return createSocket(addressType(options.address ?? '::') === 'A' ? 'udp4' : 'udp6')
}

function answerHttp(name: string, request: IncomingMessage, response: ServerResponse): void {
  const { socket, method = '', url: path = '' } = request
  const bytes = /^\/bytes\/(\d+)$/.exec(path)
  const client: Target = { address: plainAddress(socket.remoteAddress), port: socket.remotePort ?? 0 }
  const local: Target = { address: plainAddress(socket.localAddress), port: socket.localPort ?? 0 }
  const body =
    bytes === null
      ? Buffer.from(`${JSON.stringify({ server: name, client, local, method, path })}\n`)
      : Buffer.alloc(Number(bytes[1]), 0x62)
  request.resume()
  response.writeHead(200, { 'content-length': body.length, [serverHeader]: name })
  response.end(body)
}

/** Starts an HTTP server. Connections stay open as long as the client likes. */
export async function serveHttp(options: ServerOptions): Promise<LabServer> {
  const lab = new LabServer(options.name)
  const settings = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0, connectionsCheckingInterval: 60_000 }
  const server = createHttpServer(settings, (request, response) => {
    lab.requests += 1
    answerHttp(options.name, request, response)
  })
  await lab.listenTcp(server, options)
  return lab
}

/** The answer of a DNS server to a query; undefined for what is none. */
function answerDns(options: DnsServerOptions, bytes: Buffer): Buffer | undefined {
  let query: DnsMessage
  try {
    query = decodeDns(bytes)
  } catch {
    return undefined
  }
  if (query.isResponse) return undefined
  const { name, type } = query.question
  const known = options.records[name]
  const answers = (known ?? [])
    .map((data): DnsRecord => ({ name, type: addressType(data), ttlS: 5, data }))
    .filter((record) => dnsTypes[record.type] === type)
  const self: DnsRecord = { name: serverRecord, type: 'TXT', ttlS: 0, data: options.name }
  const rcode = known === undefined ? rcodes.noName : rcodes.ok
  return encodeDns({ ...query, isResponse: true, rcode, answers, additional: [self] })
}

/** Calls back with every length-prefixed message of a TCP stream (RFC 1035, 4.2.2). */
export function onDnsMessage(socket: Socket, handle: (message: Buffer) => void): void {
  let buffered = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    buffered = Buffer.concat([buffered, chunk])
    while (buffered.length >= 2 && buffered.length >= 2 + buffered.readUInt16BE(0)) {
      const end = 2 + buffered.readUInt16BE(0)
      handle(buffered.subarray(2, end))
      buffered = buffered.subarray(end)
    }
  })
}

/** A message with its length in front, for TCP. */
export function withLength(message: Buffer): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(message.length)
  return Buffer.concat([length, message])
}

/** Starts a DNS server on UDP and TCP. */
export async function serveDns(options: DnsServerOptions): Promise<LabServer> {
  const lab = new LabServer(options.name)
  const handle = (bytes: Buffer, reply: (answer: Buffer) => void) => {
    const answer = answerDns(options, bytes)
    if (answer === undefined) return
    lab.requests += 1
    reply(answer)
  }
  const server = createServer((socket) => {
    onDnsMessage(socket, (message) => handle(message, (answer) => socket.write(withLength(answer))))
  })
  await lab.listenTcp(server, options)
  const udp = udpSocketFor(options)
  udp.on('message', (bytes, from) => handle(bytes, (answer) => udp.send(answer, from.port, from.address)))
  await lab.listenUdp(udp, options)
  return lab
}

/** Starts an echo server on TCP and UDP. */
export async function serveEcho(options: ServerOptions): Promise<LabServer> {
  const lab = new LabServer(options.name)
  const server = createServer((socket) => {
    socket.write(`${options.name}\n`)
    socket.on('data', (chunk) => {
      lab.requests += 1
      socket.write(chunk)
    })
  })
  await lab.listenTcp(server, options)
  const udp = udpSocketFor(options)
  const label = Buffer.from(`${options.name}\n`)
  udp.on('message', (bytes, from) => {
    lab.requests += 1
    udp.send([label, bytes], from.port, from.address)
  })
  await lab.listenUdp(udp, options)
  return lab
}

/** The question of a mirror's caller, who sends so many bytes after it and wants as many after the answer. */
export function mirrorQuestion(bytes: number): string {
  return `who ${bytes}\n`
}

/** What a caller has said so far, if it is the whole of a question and its bytes: how many these are. */
function askedBytes(said: Buffer): number | undefined {
  const end = said.indexOf(0x0a)
  const bytes = Number(said.toString('utf8', 'who '.length, end))
  return end >= 0 && said.length > end + bytes ? bytes : undefined
}

/** Starts a server that answers a mirrorQuestion(), on TCP and UDP, with a line: its name and the caller's address. */
export async function serveMirror(options: ServerOptions): Promise<LabServer> {
  const lab = new LabServer(options.name)
  const answerTo = (address: string | undefined, bytes = 0): Buffer => {
    lab.requests += 1
    return Buffer.concat([Buffer.from(`${options.name} ${plainAddress(address)}\n`), Buffer.alloc(bytes, 0x62)])
  }
  const server = createServer((socket) => {
    const said: Buffer[] = []
    socket.on('data', (chunk: Buffer) => {
      said.push(chunk)
      const bytes = askedBytes(Buffer.concat(said))
      if (bytes === undefined) return
      said.length = 0
      socket.write(answerTo(socket.remoteAddress, bytes))
    })
  })
  await lab.listenTcp(server, options)
  const udp = udpSocketFor(options)
  udp.on('message', (said, from) => udp.send(answerTo(from.address, askedBytes(said)), from.port, from.address))
  await lab.listenUdp(udp, options)
  return lab
}
