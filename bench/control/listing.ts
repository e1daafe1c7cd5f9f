/** How long `bpvsadm -Ln` takes, from the start of the process to its end. */
import { once } from 'node:events'
import { LbError } from '../../src/model/errors.ts'
import { projectFile } from '../../src/lab/project.ts'
import type { Topology } from '../../src/lab/topology.ts'

export interface ListingTime {
  /** To the first bytes of the output. */
  readonly firstMs: number
  readonly wholeMs: number
  readonly bytes: number
}

/** Runs it once in the director. NATIVE if it fails. */
export async function timeListing(topology: Topology): Promise<ListingTime> {
  const began = performance.now()
  const stdio = ['ignore', 'pipe', 'inherit'] as const
  const child = topology.spawn('director', projectFile('bin/bpvsadm'), ['-Ln'], { stdio: [...stdio] })
  let firstMs = 0
  let bytes = 0
  child.stdout?.on('data', (chunk: Buffer) => {
    if (bytes === 0) firstMs = performance.now() - began
    bytes += chunk.length
  })
  const [status] = (await once(child, 'close')) as [number | null]
  if (status !== 0) throw new LbError('NATIVE', `bpvsadm -Ln ended with status ${status}`, { status })
  return { firstMs, wholeMs: performance.now() - began, bytes }
}

/** What a director of a few services has. */
export const smallTable = Array.from({ length: 5 }, (_, n) => {
  const service = `-t 10.90.0.${n + 1}:80`
  return [`-A ${service} -s rr`, ...[1, 2, 3].map((server) => `-a ${service} -r 10.91.${n}.${server}:8080 -m`)]
})
  .flat()
  .map((line) => `${line}\n`)
  .join('')
