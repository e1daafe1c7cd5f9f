/** The thread of a Peer (peer.ts): TCP sockets in its namespace, each direction closed only when asked. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { enterNamespace } from '../../src/native/setns.ts'
import type { PeerCall, PeerReply, PeerSocket } from './peer.ts'

interface End {
  readonly socket: Socket
  readonly port: number
  received: string
  ended: boolean
  error: string | undefined
}

const ends = new Map<number, End>()
const accepted: number[] = []
let lastId = 0

function keep(socket: Socket, port: number): number {
  const end: End = { socket, port, received: '', ended: false, error: undefined }
  lastId += 1
  ends.set(lastId, end)
  socket.setEncoding('utf8').setNoDelay(true)
  socket.on('data', (text: string) => {
    end.received += text
  })
  socket.on('end', () => {
    end.ended = true
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    end.error = error.code ?? error.message
  })
  return lastId
}

function get(id: number): End {
  const end = ends.get(id)
  if (end === undefined) throw new RangeError(`no socket ${id}`)
  return end
}

function state(id: number): PeerSocket {
  const { socket, port, received, ended, error } = get(id)
  const address = (socket.localAddress ?? '').replace(/^::ffff:(?=.*\.)/, '')
  return { id, port, address, connected: !socket.connecting, received, ended, error }
}

/** Resolves when the port is listened on. */
async function listen(port: number): Promise<undefined> {
  const server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(keep(socket, port)))
  await once(server.listen(port, '::'), 'listening')
}

async function answer(call: PeerCall): Promise<PeerSocket | undefined> {
  const { what, id = 0, port = 0, localPort = 0, address = '', text = '' } = call
  switch (what) {
    case 'listen':
      return listen(port)
    case 'accept': {
      const next = accepted.shift()
      return next === undefined ? undefined : state(next)
    }
    case 'connect':
      return state(keep(connect({ host: address, port, localPort, allowHalfOpen: true }), localPort))
    case 'look':
      return state(id)
    case 'write':
      get(id).socket.write(text)
      return state(id)
    case 'end':
      get(id).socket.end()
      return state(id)
    case 'reset':
      get(id).socket.resetAndDestroy()
      return undefined
  }
}

async function reply(call: PeerCall): Promise<PeerReply> {
  try {
    return { call: call.call, value: await answer(call) }
  } catch (error) {
    return { call: call.call, error: (error as Error).message }
  }
}

enterNamespace((workerData as { path: string }).path)
parentPort?.on('message', async (call: PeerCall) => parentPort?.postMessage(await reply(call)))
