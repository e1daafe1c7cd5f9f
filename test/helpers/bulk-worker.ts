/** A thread in a host's namespace that sends and receives a lot of bytes over TCP, and knows what they should be. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { enterNamespace } from '../../src/native/setns.ts'

/** What the main thread asks for; `id` comes back with the answer. */
export type BulkCall =
  | { readonly id: number; readonly serve: { readonly port: number } }
  | {
      readonly id: number
      readonly transfer: {
        readonly address: string
        readonly port: number
        readonly bytes: number
        readonly timeoutMs: number
      }
    }

/** `value`: hashes of what the two sides got, in hex. */
export type BulkReply =
  | { readonly id: number; readonly value: { readonly up: string; readonly down: string } | undefined }
  | { readonly id: number; readonly error: string }

const block = 64 * 1024
const header = 8
const digest = 32

/** Bytes that depend on where they are, so that nothing lost, doubled or swapped goes unnoticed. */
export function pattern(from: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let i = 0; i < length; i++) {
    const at = from + i
    bytes[i] = (at * 31 + (at >>> 8) * 7 + (at >>> 16)) & 0xff
  }
  return bytes
}

/** The hash that a whole transfer should have. */
export function patternHash(bytes: number): string {
  const hash = createHash('sha256')
  for (let at = 0; at < bytes; at += block) hash.update(pattern(at, Math.min(block, bytes - at)))
  return hash.digest('hex')
}

async function sendPattern(socket: Socket, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += block) {
    if (!socket.write(pattern(at, Math.min(block, bytes - at)))) await once(socket, 'drain')
  }
}

/** Takes bytes from a socket in the portions one wants. */
class Reader {
  readonly #chunks: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(socket: Socket) {
    this.#chunks = socket[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** Some bytes, at least one and at most `most`. */
  async some(most: number): Promise<Buffer> {
    while (this.#rest.length === 0) {
      const { value, done } = await this.#chunks.next()
      if (done === true) throw new Error('CUT SHORT')
      this.#rest = value
    }
    const taken = this.#rest.subarray(0, most)
    this.#rest = this.#rest.subarray(taken.length)
    return taken
  }

  async exactly(length: number): Promise<Buffer> {
    const chunks: Buffer[] = []
    for (let left = length; left > 0; left -= chunks.at(-1)?.length ?? 0) chunks.push(await this.some(left))
    return Buffer.concat(chunks)
  }

  /** The hash of the next so many bytes. */
  async hash(length: number): Promise<string> {
    const hash = createHash('sha256')
    for (let left = length; left > 0; ) {
      const chunk = await this.some(left)
      hash.update(chunk)
      left -= chunk.length
    }
    return hash.digest('hex')
  }
}

/** A length, so many bytes up, their hash back, so many bytes down. */
async function answer(socket: Socket): Promise<void> {
  const reader = new Reader(socket)
  const bytes = Number((await reader.exactly(header)).readBigUInt64BE())
  const hash = await reader.hash(bytes)
  socket.write(Buffer.from(hash, 'hex'))
  await sendPattern(socket, bytes)
  socket.end()
}

async function transfer(address: string, port: number, bytes: number): Promise<{ up: string; down: string }> {
  const socket = connect({ host: address, port })
  try {
    await once(socket, 'connect')
    const reader = new Reader(socket)
    const length = Buffer.alloc(header)
    length.writeBigUInt64BE(BigInt(bytes))
    socket.write(length)
    await sendPattern(socket, bytes)
    const up = (await reader.exactly(digest)).toString('hex')
    return { up, down: await reader.hash(bytes) }
  } finally {
    socket.destroy()
  }
}

async function serve(port: number): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    answer(socket).catch(() => socket.destroy())
  })
  server.listen({ port, host: '::' })
  await once(server, 'listening')
}

async function within<T>(work: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('TIMEOUT')), timeoutMs)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

async function handle(call: BulkCall): Promise<BulkReply> {
  try {
    if ('serve' in call) {
      await serve(call.serve.port)
      return { id: call.id, value: undefined }
    }
    const { address, port, bytes, timeoutMs } = call.transfer
    return { id: call.id, value: await within(transfer(address, port, bytes), timeoutMs) }
  } catch (error) {
    return { id: call.id, error: (error as NodeJS.ErrnoException).code ?? (error as Error).message }
  }
}

if (parentPort !== null) {
  enterNamespace((workerData as { path: string }).path)
  parentPort.on('message', async (call: BulkCall) => parentPort?.postMessage(await handle(call)))
}
