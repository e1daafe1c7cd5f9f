/** The thread of a Tunnel (tunnel.ts). */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { ffi } from '../../src/native/library.ts'
import { withNamespace } from '../../src/native/setns.ts'
import type { TunnelData, TunnelEnd } from './tunnel.ts'

const TUNSETIFF = 0x400454ca
const TUNSETOFFLOAD = 0x400454d0
const IFF_TUN_NO_PI_VNET_HDR = 0x5001
/** Checksums, and segments of TCP over both families. */
const OFFLOADS = 7
const POLLIN = 1
const POLL_MS = 50
/** The greatest packet, and what is told of it (struct virtio_net_hdr). */
const ROOM = 65_536 + 10

type Ioctl = (fd: number, request: number, type: string, argument: Uint8Array | number) => number
type Poll = (fds: Uint8Array, count: number, milliseconds: number) => number

const libc = ffi().load(null)
const ioctl = libc.func('int ioctl(int fd, unsigned long request, ...)') as Ioctl
const poll = libc.func('int poll(void *fds, unsigned long count, int milliseconds)') as Poll

function must(result: number, call: string): void {
  if (result < 0) throw new Error(`${call}: errno ${ffi().errno()}`)
}

/** Makes a device in its namespace, which it is of from when it was opened. */
function open({ path, name }: TunnelEnd): number {
  const fd = withNamespace(path, () => openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK))
  const request = Buffer.alloc(40)
  request.write(name)
  request.writeUInt16LE(IFF_TUN_NO_PI_VNET_HDR, 16)
  must(ioctl(fd, TUNSETIFF, 'void *', request), 'TUNSETIFF')
  must(ioctl(fd, TUNSETOFFLOAD, 'unsigned long', OFFLOADS), 'TUNSETOFFLOAD')
  return fd
}

/** Moves all that waits at one end to the other. One that is down takes nothing, as a cable that is not plugged in. */
function move(from: number, to: number, room: Buffer): void {
  for (;;) {
    try {
      const length = readSync(from, room)
      writeSync(to, room, 0, length)
    } catch (error) {
      const { code, syscall } = error as NodeJS.ErrnoException
      if (code === 'EAGAIN' && syscall === 'read') return
      if (code !== 'EIO') throw error
      if (syscall === 'read') return
    }
  }
}

const { ends, stop } = workerData as TunnelData
const stopped = new Int32Array(stop)
const fds = ends.map(open)
const [first = -1, second = -1] = fds
const polled = Buffer.alloc(16)
const room = Buffer.alloc(ROOM)
fds.forEach((fd, i) => {
  polled.writeInt32LE(fd, i * 8)
  polled.writeInt16LE(POLLIN, i * 8 + 4)
})
parentPort?.postMessage('ready')
while (Atomics.load(stopped, 0) === 0) {
  poll(polled, 2, POLL_MS)
  move(first, second, room)
  move(second, first, room)
}
for (const fd of fds) closeSync(fd)
