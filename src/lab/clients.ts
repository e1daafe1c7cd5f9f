/** Clients of a host: one request at a time over HTTP, DNS (UDP and TCP) and a datagram echo. */
import { createSocket } from 'node:dgram'
import { type Agent, type IncomingMessage, request as httpRequest } from 'node:http'
import { connect as connectTcp } from 'node:net'
import { addressType, decodeDns, type DnsMessage, encodeQuery } from './dns-codec.ts'
import type { DnsAnswer, DnsLoadOptions, HttpAnswer, Mirrored, Outcome, Probe, Target } from './host-api.ts'
import { mirrorQuestion, onDnsMessage, serverHeader, serverRecord, withLength } from './servers.ts'

/** How long a request may take when nobody says otherwise. */
export const defaultTimeoutMs = 15_000

/** What kind of failure an error is: the system's code, or what was wrong with the answer. */
export function kindOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  return code ?? message
}

/** Starts something that calls `done` later, and returns what tidies up after it. */
type Start<T> = (done: (outcome: Outcome<T>) => void) => (outcome: Outcome<T>) => void

/** Settles once, within a time, and tidies up whichever way it ends. */
function attempt<T>(timeoutMs: number, start: Start<T>): Promise<Outcome<T>> {
  return new Promise<Outcome<T>>((resolve) => {
    const end = start(settle)
    const timer = setTimeout(settle, timeoutMs, { error: 'TIMEOUT' })
    let settled = false
    function settle(outcome: Outcome<T>): void {
      if (settled) return
      settled = true
      clearTimeout(timer)
      end(outcome)
      resolve(outcome)
    }
  })
}

function readAnswer(response: IncomingMessage, done: (outcome: Outcome<HttpAnswer>) => void): void {
  let body = ''
  response.setEncoding('utf8').on('data', (text: string) => {
    body += text
  })
  response.on('end', () => {
    const status = response.statusCode ?? 0
    const server = response.headers[serverHeader]
    if (status !== 200) done({ error: `HTTP ${status}` })
    else if (typeof server !== 'string') done({ error: 'NO SERVER NAME' })
    else done({ value: { status, server, body } })
  })
  response.on('error', (error) => done({ error: kindOf(error) }))
  response.on('close', () => done({ error: 'CUT SHORT' }))
}

/** One HTTP request; with an agent, on a connection that it keeps. */
export function httpGet(
  target: Target & { path?: string; timeoutMs?: number },
  agent?: Agent,
): Promise<Outcome<HttpAnswer>> {
  return attempt(target.timeoutMs ?? defaultTimeoutMs, (done) => {
    const request = httpRequest({
      host: target.address,
      port: target.port,
      path: target.path ?? '/',
      agent: agent ?? false,
    })
    request.on('response', (response) => readAnswer(response, done))
    request.on('error', (error) => done({ error: kindOf(error) }))
    request.end()
    return (outcome) => {
      if ('error' in outcome) request.destroy()
    }
  })
}

function readDns(message: DnsMessage, id: number): Outcome<DnsAnswer> {
  if (message.id !== id || !message.isResponse) return { error: 'WRONG ANSWER' }
  const server = message.additional.find((record) => record.name === serverRecord)?.data
  if (server === undefined) return { error: 'NO SERVER NAME' }
  return { value: { server, rcode: message.rcode, answers: message.answers.map((record) => record.data) } }
}

function decodeAnswer(bytes: Buffer, id: number): Outcome<DnsAnswer> {
  try {
    return readDns(decodeDns(bytes), id)
  } catch (error) {
    return { error: kindOf(error) }
  }
}

/** Sends one datagram from a new port, or a given one, and waits for one back from the very address that it was sent to. */
function exchange<T>(
  target: Target,
  timeoutMs: number,
  payload: Buffer,
  read: (answer: Buffer) => Outcome<T>,
  localPort = 0,
): Promise<Outcome<T>> {
  return attempt(timeoutMs, (done) => {
    const socket = createSocket(addressType(target.address) === 'A' ? 'udp4' : 'udp6')
    socket.on('error', (error) => done({ error: kindOf(error) }))
    socket.on('message', (answer) => done(read(answer)))
    if (localPort !== 0) socket.bind(localPort)
    // A connected socket takes answers from nobody else, and learns of ICMP errors.
    socket.connect(target.port, target.address, (error?: Error) => {
      if (error !== undefined) return done({ error: kindOf(error) })
      socket.send(payload, (failure) => {
        if (failure) done({ error: kindOf(failure) })
      })
    })
    return () => socket.close()
  })
}

let lastQueryId = 0

/** One DNS question, over UDP from a new port or over a TCP connection of its own. */
export function dnsQuery(query: DnsLoadOptions): Promise<Outcome<DnsAnswer>> {
  lastQueryId = (lastQueryId + 1) & 0xffff
  const id = lastQueryId
  const payload = encodeQuery(id, query.name, query.type)
  const timeoutMs = query.timeoutMs ?? defaultTimeoutMs
  if (query.tcp !== true) return exchange(query, timeoutMs, payload, (answer) => decodeAnswer(answer, id))
  return attempt(timeoutMs, (done) => {
    const socket = connectTcp({ host: query.address, port: query.port })
    socket.on('error', (error) => done({ error: kindOf(error) }))
    socket.on('close', () => done({ error: 'CUT SHORT' }))
    onDnsMessage(socket, (message) => {
      socket.end()
      done(decodeAnswer(message, id))
    })
    socket.write(withLength(payload))
    return (outcome) => {
      if ('error' in outcome) socket.destroy()
    }
  })
}

/** One datagram of `size` bytes to an echo server; the value is the server's name. */
export function datagramEcho(target: Target & { size: number; timeoutMs?: number }): Promise<Outcome<string>> {
  const payload = Buffer.alloc(target.size, 0x75)
  return exchange(target, target.timeoutMs ?? defaultTimeoutMs, payload, (answer) => {
    const split = answer.indexOf(0x0a)
    if (split < 0 || !answer.subarray(split + 1).equals(payload)) return { error: 'WRONG ANSWER' }
    return { value: answer.toString('utf8', 0, split) }
  })
}

function readMirror(answer: Buffer): Outcome<Mirrored> {
  const [server, client] = answer.toString('utf8', 0, answer.indexOf(0x0a)).split(' ')
  if (server === undefined || client === undefined) return { error: 'WRONG ANSWER' }
  return { value: { server, client } }
}

/** Asks a mirror who it is and whom it sees: over a TCP connection of its own, or with a datagram. */
function askMirror(probe: Probe): Promise<Outcome<Mirrored>> {
  const { timeoutMs, localPort = 0, bytes = 0 } = probe
  const question = Buffer.concat([Buffer.from(mirrorQuestion(bytes)), Buffer.alloc(bytes, 0x61)])
  if (probe.protocol === 'udp') return exchange(probe, timeoutMs, question, readMirror, localPort)
  return attempt(timeoutMs, (done) => {
    const socket = connectTcp({ host: probe.address, port: probe.port, localPort })
    const answered: Buffer[] = []
    socket.on('error', (error) => done({ error: kindOf(error) }))
    socket.on('close', () => done({ error: 'CUT SHORT' }))
    socket.on('data', (chunk: Buffer) => {
      answered.push(chunk)
      const answer = Buffer.concat(answered)
      if (answer.includes(0x0a) && answer.length > bytes + answer.indexOf(0x0a)) done(readMirror(answer))
    })
    socket.write(question)
    return () => socket.destroy()
  })
}

/** Asks mirrors, at most `parallel` at a time; the outcomes are in the order of the probes. */
export async function askMirrors(probes: readonly Probe[], parallel: number): Promise<Outcome<Mirrored>[]> {
  const outcomes: Outcome<Mirrored>[] = []
  const rest = probes.entries()
  const asker = async (): Promise<void> => {
    for (const [i, probe] of rest) outcomes[i] = await askMirror(probe)
  }
  await Promise.all(Array.from({ length: parallel }, asker))
  return outcomes
}
