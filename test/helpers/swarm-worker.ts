/**
 * A client of swarm.ts, as a thread in its namespace. It speaks as little HTTP as a server lets it, so that a hundred
 * thousand requests take seconds. No local port is used twice: a connection is named by its client and port.
 */
import { connect, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { enterNamespace } from '../../src/native/setns.ts'
import type { SwarmJob, SwarmMessage, SwarmResult } from './swarm.ts'

const { path, job } = workerData as { path: string; job: SwarmJob }
const keptRequest = Buffer.from('GET / HTTP/1.1\r\nHost: swarm\r\n\r\n')
const lastRequest = Buffer.from('GET / HTTP/1.1\r\nHost: swarm\r\nConnection: close\r\n\r\n')
const answerPattern = /^HTTP\/1\.1 200 [\s\S]*?\r\ncontent-length: (\d+)\r\nx-server: (\S+)\r\n[\s\S]*?\r\n\r\n/i

/** Requests that some connection has sent or is going to send. */
let planned = 0
let answered = 0
let reported = 0
let open = 0
let nextPort = job.firstPort
const servers: Record<string, number> = {}
const failures: SwarmResult['failures'] = []

function post(message: SwarmMessage): void {
  parentPort?.postMessage(message)
}

/** Who answered, and how long the answer is; undefined while it is not whole. */
function wholeAnswer(text: string): { readonly server: string; readonly length: number } | undefined {
  const match = answerPattern.exec(text)
  if (match === null) return undefined
  const length = match[0].length + Number(match[1])
  return text.length < length ? undefined : { server: match[2] ?? '', length }
}

function succeed(server: string): void {
  answered += 1
  servers[server] = (servers[server] ?? 0) + 1
  if (answered < reported + 100) return
  reported = answered
  post({ answered })
}

/** One connection with one or several requests, then the next. */
class Connection {
  readonly #port = nextPort++
  readonly #socket: Socket
  #left: number
  #waiting = false
  #text = ''

  constructor(requests: number) {
    this.#left = requests
    const target = job.targets[this.#port % job.targets.length]
    if (target === undefined) throw new Error('a swarm needs targets')
    this.#socket = connect({ host: target.address, port: target.port, localPort: this.#port, noDelay: true })
    this.#socket.setTimeout(job.timeoutMs, () => this.#socket.destroy(new Error('TIMEOUT')))
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', (text: string) => this.#read(text))
    this.#socket.on('error', (error: NodeJS.ErrnoException) => this.#fail(error.code ?? error.message))
    this.#socket.on('close', () => {
      this.#fail('CUT SHORT')
      next()
    })
    this.#send()
  }

  #send(): void {
    this.#left -= 1
    this.#waiting = true
    this.#socket.write(this.#left === 0 ? lastRequest : keptRequest)
  }

  #read(text: string): void {
    this.#text += text
    const answer = this.#waiting ? wholeAnswer(this.#text) : undefined
    if (answer === undefined) return
    this.#text = this.#text.slice(answer.length)
    this.#waiting = false
    succeed(answer.server)
    if (this.#left > 0) this.#send()
  }

  /** A connection that fails after its last answer has lost no request. */
  #fail(kind: string): void {
    if (!this.#waiting) return
    this.#waiting = false
    planned -= this.#left
    failures.push({ client: job.client, port: this.#port, kind })
  }
}

/** The next connection in the place of one that ended; after the last one, the report. */
function next(): void {
  open -= 1
  if (planned < job.requests) start()
  else if (open === 0) post({ result: { connections: nextPort - job.firstPort, answered, servers, failures } })
}

function start(): void {
  open += 1
  const requests = Math.min(nextPort % 5 === 0 ? job.keptRequests : 1, job.requests - planned)
  planned += requests
  new Connection(requests)
}

enterNamespace(path)
for (let i = 0; i < job.concurrency && planned < job.requests; i++) start()
