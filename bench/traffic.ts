/** What balanced traffic costs, beside plain routing and nftables. See docs/benchmarks.md. */
import { cpus } from 'node:os'
import { type BenchRun, benchMain } from './common/main.ts'
import { type Bar, formatTable } from './common/report.ts'
import { Course } from './traffic/course.ts'
import { findKsoftirqd } from './traffic/cpu.ts'
import {
  fullTraffic,
  type Path,
  pathName,
  plain,
  quickTraffic,
  type TrafficScale,
  type Workload,
  workloads,
} from './traffic/paths.ts'
import { buildProgram } from './traffic/program.ts'
import { barsOf, type Pair, summarize, trafficHead, trafficLine, trafficRow } from './traffic/results.ts'

async function openCourses({ cleanup, say }: BenchRun, paths: readonly Path[]): Promise<Course[]> {
  const program = await buildProgram()
  const ksoftirqd = findKsoftirqd()
  const courses = paths.map((path) => new Course(path, program, cpus().length - 1, ksoftirqd))
  for (const course of courses) {
    say(`preparing ${pathName(course.path)}`)
    cleanup.add(() => course.close())
    await course.open()
  }
  return courses
}

/** A run of each, in turn the one or the other first. */
async function runPair(own: Course, base: Course, workload: Workload, amount: number, turn: number): Promise<Pair> {
  if (turn % 2 === 0) {
    const plainRun = await base.run(workload, amount)
    return { plain: plainRun, own: await own.run(workload, amount) }
  }
  const ownRun = await own.run(workload, amount)
  return { own: ownRun, plain: await base.run(workload, amount) }
}

/** Pairs by path and workload. Plain routing is compared with itself too: that shows what the noise is. */
async function measureRounds(run: BenchRun, scale: TrafficScale, courses: readonly Course[], rounds: number) {
  const [base] = courses
  if (base === undefined) throw new RangeError('no path')
  const cells = courses.flatMap((course) => workloads.map((workload) => ({ course, workload, pairs: [] as Pair[] })))
  for (const { course, workload } of cells) await course.run(workload, Math.ceil(scale.amount[workload] / 10))
  for (let round = 0; round < rounds; round++) {
    run.say(`round ${round + 1} of ${rounds}`)
    for (const { course, workload, pairs } of cells) {
      pairs.push(await runPair(course, base, workload, scale.amount[workload], round))
    }
  }
  return cells
}

async function measure(run: BenchRun): Promise<Bar[]> {
  const scale = run.options.quick ? quickTraffic : fullTraffic
  const courses = await openCourses(run, [plain, ...scale.paths])
  const cells = await measureRounds(run, scale, courses, run.options.rounds ?? scale.rounds)
  const results = cells.map(({ course, workload, pairs }) => summarize(course.path, workload, pairs))
  const titles = { short: 'Short TCP connections', udp: 'UDP requests', bulk: 'Bulk TCP' }
  for (const result of results) run.report.add(trafficLine(result))
  for (const workload of workloads) {
    const rows = results.filter((result) => result.workload === workload).map(trafficRow)
    run.show(titles[workload], formatTable(trafficHead[workload], rows))
  }
  return results.flatMap(barsOf)
}

await benchMain(measure)
