/** The process of a SocketUser (socket-user.ts): sockets that do what they are told, in its namespace and control group. */
import { createSocket, type RemoteInfo, type Socket as DatagramSocket } from 'node:dgram'
import { connect, createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import type { SocketCall, SocketReply, SocketView } from './socket-user.ts'

interface Stream {
  readonly kind: 'stream'
  readonly socket: Socket
  error: string | undefined
  received: string
}
interface Datagrams {
  readonly kind: 'datagrams'
  readonly socket: DatagramSocket
  error: string | undefined
  readonly received: { readonly text: string; readonly from: string }[]
}

const sockets = new Map<number, Stream | Datagrams>()
let lastId = 0

function keep(entry: Stream | Datagrams): number {
  lastId += 1
  sockets.set(lastId, entry)
  entry.socket.on('error', (error: NodeJS.ErrnoException) => {
    entry.error = error.code ?? error.message
  })
  return lastId
}

function get(id: number): Stream | Datagrams {
  const entry = sockets.get(id)
  if (entry === undefined) throw new RangeError(`no socket ${id}`)
  return entry
}

function datagrams(id: number): Datagrams {
  const entry = get(id)
  if (entry.kind !== 'datagrams') throw new RangeError(`${id} is no socket of datagrams`)
  return entry
}

function endpoint(address: string | undefined, port: number | undefined): string {
  return address === undefined ? '' : address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** The address that a connected socket of datagrams has at its other end; '' if it is not connected. */
function remoteOf(socket: DatagramSocket): string {
  try {
    const { address, port } = socket.remoteAddress()
    return endpoint(address, port)
  } catch {
    return ''
  }
}

function view(id: number): SocketView {
  const entry = get(id)
  const { error } = entry
  if (entry.kind === 'datagrams')
    return { id, error, remote: remoteOf(entry.socket), local: '', received: [...entry.received] }
  const { socket, received } = entry
  const open = !socket.connecting && error === undefined
  return {
    id,
    error,
    remote: open ? endpoint(socket.remoteAddress, socket.remotePort) : '',
    local: open ? endpoint(socket.localAddress, socket.localPort) : '',
    received: received === '' ? [] : [{ text: received, from: '' }],
  }
}

function openStream({ address = '', port = 0, localAddress }: SocketCall): number {
  const local = localAddress === undefined ? {} : { localAddress }
  const socket = connect({ host: address, port, ...local })
  const entry: Stream = { kind: 'stream', socket, error: undefined, received: '' }
  socket.setEncoding('utf8').on('data', (text: string) => {
    entry.received += text
  })
  return keep(entry)
}

/** An IPv6 socket takes IPv4 addresses too. */
function openDatagrams({ family = 4 }: SocketCall): Promise<number> {
  const socket = createSocket(family === 4 ? { type: 'udp4' } : { type: 'udp6', ipv6Only: false })
  const entry: Datagrams = { kind: 'datagrams', socket, error: undefined, received: [] }
  socket.on('message', (text: Buffer, from: RemoteInfo) => {
    entry.received.push({ text: text.toString(), from: endpoint(from.address, from.port) })
  })
  const id = keep(entry)
  return new Promise((resolve) => socket.bind(0, () => resolve(id)))
}

function send({ id = 0, address, port, text = '' }: SocketCall): Promise<void> {
  const entry = datagrams(id)
  return new Promise((resolve) => {
    const done = (error: NodeJS.ErrnoException | null): void => {
      entry.error = error?.code
      resolve()
    }
    if (address === undefined) entry.socket.send(text, done)
    else entry.socket.send(text, port, address, done)
  })
}

function connectDatagrams({ id = 0, address = '', port = 0 }: SocketCall): Promise<void> {
  const { socket } = datagrams(id)
  return new Promise((resolve) => {
    const entry = datagrams(id)
    if (remoteOf(socket) !== '') socket.disconnect()
    socket.connect(port, address, ((error?: NodeJS.ErrnoException) => {
      entry.error = error?.code
      resolve()
    }) as () => void)
  })
}

function close(id: number): Promise<void> {
  const entry = get(id)
  sockets.delete(id)
  return new Promise((resolve) => {
    if (entry.kind === 'datagrams') entry.socket.close(resolve)
    else if (entry.socket.destroyed) resolve()
    else entry.socket.once('close', () => resolve()).destroy()
  })
}

/** One connection: true once the server said a word, false if it failed. It is closed by then. */
function visit(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    let answered = false
    const socket = connect({ host, port })
    socket.once('data', () => {
      answered = true
      socket.destroy()
    })
    socket.on('error', () => {})
    socket.once('close', () => resolve(answered))
  })
}

const STORM_WIDTH = 16

async function storm({ address = '', port = 0, count = 0 }: SocketCall): Promise<number> {
  let left = count
  let answered = 0
  const visitor = async (): Promise<void> => {
    while (left-- > 0) if (await visit(address, port)) answered++
  }
  await Promise.all(Array.from({ length: STORM_WIDTH }, visitor))
  return answered
}

/** Binds, and lets go again. Throws the code of what went wrong. */
async function bind({ protocol = 'tcp', address = '', port = 0 }: SocketCall): Promise<void> {
  const socket = protocol === 'tcp' ? createServer() : createSocket(address.includes(':') ? 'udp6' : 'udp4')
  const bound = once(socket, 'listening')
  if ('listen' in socket) socket.listen({ host: address, port })
  else socket.bind(port, address)
  try {
    await bound
  } catch (error) {
    throw new Error((error as NodeJS.ErrnoException).code)
  }
  await new Promise<void>((resolve) => socket.close(() => resolve()))
}

async function answer(call: SocketCall): Promise<SocketView | undefined> {
  const { what, id = 0 } = call
  switch (what) {
    case 'stream':
      return view(openStream(call))
    case 'datagrams':
      return view(await openDatagrams(call))
    case 'connect':
      await connectDatagrams(call)
      return view(id)
    case 'send':
      await send(call)
      return view(id)
    case 'storm':
      return { id: await storm(call), error: undefined, remote: '', local: '', received: [] }
    case 'look':
      return view(id)
    case 'bind':
      await bind(call)
      return undefined
    case 'close':
      await close(id)
      return undefined
  }
}

process.on('message', async (call: SocketCall) => {
  let reply: SocketReply
  try {
    reply = { call: call.call, value: await answer(call) }
  } catch (error) {
    reply = { call: call.call, error: (error as Error).message }
  }
  process.send?.(reply)
})
process.once('disconnect', () => process.exit())
