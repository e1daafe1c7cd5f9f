/** How fast bpvsd follows a cluster, and what that takes. See docs/benchmarks.md. */
import { setTimeout as delay } from 'node:timers/promises'
import { type BenchRun, benchMain, Cleanup } from './common/main.ts'
import { type Bar, formatTable } from './common/report.ts'
import { median, quantile } from './common/stats.ts'
import { type ClusterSize, sizeName } from './control/cluster.ts'
import { barsOf, controlHead, controlLine, controlRow, type ControlResult } from './control/results.ts'
import { Rig } from './control/rig.ts'

const quickSizes: readonly ClusterSize[] = [{ services: 1000, endpoints: 10_000 }]
const sizes: readonly ClusterSize[] = [
  ...quickSizes,
  { services: 10_000, endpoints: 100_000 },
  { services: 50_000, endpoints: 500_000 },
]
/** How often each size is started, from nothing; all else is measured after the last start. */
const STARTS = 3
const LISTINGS = 5
const CHANGES_PER_SECOND = 20

/** `count` times, one after the other. */
async function times<T>(count: number, measure: (n: number) => Promise<T>): Promise<T[]> {
  const results: T[] = []
  for (let n = 0; n < count; n++) results.push(await measure(n))
  return results
}

/** Everything but the start, of a bpvsd that has just been started. */
async function measureRunning(rig: Rig, quick: boolean) {
  await delay(2000)
  const restMib = rig.memoryMib()
  const events = await times(quick ? 100 : 500, async (n) => {
    await delay(5)
    return rig.changeAndWait(n * 13, 1)
  })
  await rig.reach()
  const packets = await times(quick ? 20 : 100, async () => {
    await delay(20)
    return rig.moveAndReach()
  })
  const churnCpu = await rig.churn(CHANGES_PER_SECOND, quick ? 5 : 20)
  const churnMib = rig.memoryMib()
  const lists = await times(LISTINGS, () => rig.list())
  return {
    restMib,
    eventP50Ms: median(events),
    eventP99Ms: quantile(events, 0.99),
    packetP50Ms: median(packets),
    packetP99Ms: quantile(packets, 0.99),
    churnCpu,
    churnMib,
    listFirstMs: median(lists.map(({ firstMs }) => firstMs)),
    listMs: median(lists.map(({ wholeMs }) => wholeMs)),
  }
}

async function measureSize(size: ClusterSize, starts: number, run: BenchRun): Promise<ControlResult> {
  const begun: { readonly seconds: number; readonly cpuSeconds: number }[] = []
  for (let n = 1; ; n++) {
    run.say(`${sizeName(size)} services and endpoints: start ${n} of ${starts}`)
    const own = new Cleanup()
    run.cleanup.add(() => own.run())
    const rig = await Rig.make(size, own)
    const small = n === starts ? await times(LISTINGS, () => rig.listSmall()) : []
    begun.push(await rig.start())
    if (n === starts) {
      const rest = await measureRunning(rig, run.options.quick)
      await own.run()
      const startS = median(begun.map(({ seconds }) => seconds))
      const startCpuS = median(begun.map(({ cpuSeconds }) => cpuSeconds))
      return { size, startS, startCpuS, smallListMs: median(small.map(({ wholeMs }) => wholeMs)), ...rest }
    }
    await own.run()
  }
}

async function measure(run: BenchRun): Promise<Bar[]> {
  const { options, report, show } = run
  const results: ControlResult[] = []
  for (const size of options.quick ? quickSizes : sizes) {
    const result = await measureSize(size, options.rounds ?? (options.quick ? 1 : STARTS), run)
    report.add(controlLine(result))
    results.push(result)
  }
  show('bpvsd behind an API server', formatTable(controlHead, results.map(controlRow)))
  return results.flatMap(barsOf)
}

await benchMain(measure)
