/**
 * Pairs of tun devices, as ends of a tunnel whose packets have no Ethernet header: a thread takes what is sent into one out at the
 * other, segments of many and unfinished checksums included, as a veth would.
 */
import { Worker } from 'node:worker_threads'

/** One end: a namespace, as setns(2) reaches it, and the name of the device that is made there. */
export interface TunnelEnd {
  readonly path: string
  readonly name: string
}

/** What the thread is told; `stop`: one word, that is set to end it. */
export interface TunnelData {
  readonly ends: readonly [TunnelEnd, TunnelEnd]
  readonly stop: SharedArrayBuffer
}

/** A tunnel; its devices are there, and down. */
export class Tunnel {
  readonly #exit: Promise<unknown>
  readonly #stop: Int32Array

  private constructor(worker: Worker, stop: Int32Array) {
    this.#exit = new Promise((resolve) => worker.once('exit', resolve))
    this.#stop = stop
  }

  static async make(...ends: readonly [TunnelEnd, TunnelEnd]): Promise<Tunnel> {
    const stop = new SharedArrayBuffer(4)
    const worker = new Worker(new URL('tunnel-worker.ts', import.meta.url), { workerData: { ends, stop } })
    await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    return new Tunnel(worker, new Int32Array(stop))
  }

  /** Takes the devices away. May be called more than once. */
  async close(): Promise<void> {
    Atomics.store(this.#stop, 0, 1)
    await this.#exit
  }
}
