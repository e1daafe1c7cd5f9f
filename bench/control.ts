/** How fast bpvsd follows a cluster, and what that takes. See docs/benchmarks.md. */
import { setTimeout as delay } from 'node:timers/promises'
import { type BenchRun, benchMain, Cleanup } from './common/main.ts'
import { type Bar, formatTable } from './common/report.ts'
import { quantile } from './common/stats.ts'
import { type ClusterSize, sizeName } from './control/cluster.ts'
import { Rig } from './control/rig.ts'

const quickSizes: readonly ClusterSize[] = [{ services: 1000, endpoints: 10_000 }]
const sizes: readonly ClusterSize[] = [
  ...quickSizes,
  { services: 10_000, endpoints: 100_000 },
  { services: 50_000, endpoints: 500_000 },
]

interface Result {
  readonly size: ClusterSize
  /** From the start of the process to everything in the table. */
  readonly startS: number
  readonly eventP50Ms: number
  readonly eventP99Ms: number
  readonly restMib: number
  readonly churnMib: number
  /** Of one CPU, with 20 changes a second. */
  readonly churnCpu: number
}

async function measureSize(size: ClusterSize, quick: boolean, cleanup: Cleanup): Promise<Result> {
  const rig = await Rig.make(size, cleanup)
  const startS = await rig.start()
  await delay(2000)
  const restMib = rig.memoryMib()
  const times: number[] = []
  for (let n = 0; n < (quick ? 100 : 500); n++) {
    times.push(await rig.changeAndWait(n * 13, 1))
    await delay(5)
  }
  const churnCpu = await rig.churn(20, quick ? 5 : 20)
  const churnMib = rig.memoryMib()
  const [eventP50Ms, eventP99Ms] = [quantile(times, 0.5), quantile(times, 0.99)]
  return { size, startS, eventP50Ms, eventP99Ms, restMib, churnMib, churnCpu }
}

/** The promises are of 10,000 services; of 50,000 only that they are there soon. */
function barsOf({ size, startS, eventP50Ms, restMib, churnMib, churnCpu }: Result): Bar[] {
  const name = sizeName(size)
  const start = size.services > 10_000 ? 15 : 2
  const bars = [{ what: `${name}: seconds to start, of ${start}`, ratio: startS / start, limit: 1 }]
  if (size.services > 10_000) return bars
  return [
    ...bars,
    { what: `${name}: milliseconds from an event to the table, of 5`, ratio: eventP50Ms / 5, limit: 1 },
    { what: `${name}: MiB at rest, of 200`, ratio: restMib / 200, limit: 1 },
    { what: `${name}: MiB under churn, of 200`, ratio: churnMib / 200, limit: 1 },
    { what: `${name}: share of a CPU with 20 changes a second, of 0.05`, ratio: churnCpu / 0.05, limit: 1 },
  ]
}

async function measure({ options, report, cleanup, say, show }: BenchRun): Promise<Bar[]> {
  const results: Result[] = []
  for (const size of options.quick ? quickSizes : sizes) {
    say(`${sizeName(size)} services and endpoints`)
    const own = new Cleanup()
    cleanup.add(() => own.run())
    results.push(await measureSize(size, options.quick, own))
    await own.run()
  }
  for (const { size, ...rest } of results) report.add({ bench: 'control', ...size, ...rest })
  const head = ['services/endpoints', 'start s', 'event p50 ms', 'p99 ms', 'MiB at rest', 'under churn', 'CPU, 20/s']
  const rows = results.map(({ size, startS, eventP50Ms, eventP99Ms, restMib, churnMib, churnCpu }) => [
    sizeName(size),
    startS.toFixed(2),
    eventP50Ms.toFixed(2),
    eventP99Ms.toFixed(2),
    restMib.toFixed(0),
    churnMib.toFixed(0),
    `${(churnCpu * 100).toFixed(1)}%`,
  ])
  show('bpvsd behind an API server', formatTable(head, rows))
  return results.flatMap(barsOf)
}

await benchMain(measure)
