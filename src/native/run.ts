/** BPF_PROG_RUN: a program run on a packet of ours. */
import { bind, check, ffi, type Signature } from './library.ts'
import type { Fd } from './shim.ts'

export interface RunInput {
  /** The packet, from its Ethernet header. */
  readonly packet: Uint8Array
  /** struct __sk_buff or struct xdp_md; left out: none. */
  readonly context?: Uint8Array
  /** Times to run it on the same buffer (1). With more, the program sees what it has made of the packet. */
  readonly repeat?: number
  /** Bytes that the packet may grow by (256). */
  readonly headroom?: number
}

export interface RunResult {
  readonly result: number
  readonly packet: Uint8Array
  readonly context: Uint8Array
  /** Mean of one run, as the kernel measures it. */
  readonly durationNs: number
}

interface Functions {
  bpvs_prog_run(program: Fd, run: Uint8Array): number
}
const c = bind<Functions>({ bpvs_prog_run: ['int', 'int', 'void *'] } satisfies Record<keyof Functions, Signature>)

/** Runs a loaded program. NATIVE if the kernel refuses the input. */
export function runProgram(program: Fd, input: RunInput): RunResult {
  const packet = new Uint8Array(input.packet.length + (input.headroom ?? 256))
  const context = new Uint8Array(input.context?.length ?? 0)
  const run = new Uint8Array(64) /* struct bpvs_run */
  const wide = new BigUint64Array(run.buffer)
  const words = new Uint32Array(run.buffer)
  wide[0] = ffi().address(input.packet)
  wide[1] = ffi().address(packet)
  words.set([input.packet.length, packet.length, context.length, context.length, input.repeat ?? 1], 8)
  if (input.context !== undefined) {
    wide[2] = ffi().address(input.context)
    wide[3] = ffi().address(context)
  }
  check(c.bpvs_prog_run(program, run), 'BPF_PROG_RUN')
  const [, size = 0, , contextSize = 0, , result = 0, durationNs = 0] = words.subarray(8)
  return { result, packet: packet.subarray(0, size), context: context.subarray(0, contextSize), durationNs }
}
