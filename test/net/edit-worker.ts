/**
 * A child of edit-stress.test.ts: edits the table of its namespace at random until its time is over, then prints what
 * it did. Arguments: a seed, and how long in ms.
 */
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { LbError } from '../../src/model/errors.ts'
import { openExistingTable } from '../../src/native/loader.ts'
import type { ServerSpec, ServicePolicy } from '../../src/model/types.ts'
import { keyOf, policyOf, seeded, serverOf, serviceOf } from '../helpers/table-specs.ts'

const [seed = 1, ms = 1000] = process.argv.slice(2).map(Number)
const random = seeded(seed)
const handles = openExistingTable()
if (handles === undefined) throw new Error('there is no table in this namespace')
const table = new KernelTable(handles)

/** Every process edits the same few services one by one; some also apply, all as the same source. */
function edit(): void {
  const n = random(12)
  const server = serverOf(random(40), random(6))
  const scheduler = (['rr', 'wrr', 'lc', 'wlc'] as const)[random(4)] ?? 'rr'
  const edits = [
    () => table.addService(serviceOf(n, scheduler)),
    () => table.editService(serviceOf(n, scheduler)),
    () => table.zero(keyOf(n)),
    () => table.editServer(keyOf(n), server),
    () => table.deleteServer(keyOf(n), server),
    () => table.addServer(keyOf(n), server),
    () => table.addServer(keyOf(n), server),
    () => table.services(),
    applySome,
    () => random(3) === 0 && table.deleteService(keyOf(n)),
  ]
  edits[random(edits.length)]?.()
}

function applySome(): void {
  if (seed % 4 !== 0) return
  const services = Array.from({ length: 6 }, (_, i) => 100 + i).filter(() => random(2) === 0)
  table.apply(
    'manifest',
    services.map((n) => ({
      service: { ...serviceOf(n, 'wrr'), ...(random(3) === 0 ? { policy: randomPolicy() } : {}) },
      servers: someServers(30),
      ...(random(2) === 0 ? { insiders: someServers(12) } : {}),
    })),
  )
}

function someServers(count: number): ServerSpec[] {
  return Array.from({ length: count }, (_, i) => i)
    .filter(() => random(2) === 0)
    .map((i) => serverOf(i, 1 + (i % 3)))
}

function randomPolicy(): ServicePolicy {
  const sources = Array.from({ length: 1 + random(9) }, (_, i) => {
    return { family: 4, address: `192.0.${2 * i}.0`, length: 24 + random(8) } as const
  })
  return policyOf({ whenEmpty: random(2) === 0 ? 'drop' : 'refuse', sources })
}

/** On a busy machine the time is over before much was done. */
const least = 60
let done = 0
let refused = 0
for (const end = performance.now() + ms; performance.now() < end || done < least; ) {
  try {
    edit()
    done++
  } catch (error) {
    if (!(error instanceof LbError) || error.code === 'NATIVE') throw error
    refused++
  }
}
console.log(JSON.stringify({ done, refused, last: table.generation().toString() }))
table.close()
