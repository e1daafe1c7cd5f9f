/** What balanced traffic costs, beside plain routing and nftables. See docs/benchmarks.md. */
import { cpus } from 'node:os'
import { type BenchRun, benchMain } from './common/main.ts'
import { type Bar, formatTable } from './common/report.ts'
import { Course } from './traffic/course.ts'
import { findKsoftirqd } from './traffic/cpu.ts'
import {
  baseOf,
  fullTraffic,
  host,
  isLocal,
  type Path,
  pathName,
  plain,
  quickTraffic,
  type TrafficScale,
  type Workload,
  workloads,
  workloadsOf,
} from './traffic/paths.ts'
import { buildProgram } from './traffic/program.ts'
import { listBars, type Pair, summarize, trafficHead, trafficLine, trafficRow } from './traffic/results.ts'

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
    const baseRun = await base.run(workload, amount)
    return { base: baseRun, own: await own.run(workload, amount) }
  }
  const ownRun = await own.run(workload, amount)
  return { own: ownRun, base: await base.run(workload, amount) }
}

/** Pairs by path and workload. What has no balancer is compared with itself too: that shows what the noise is. */
async function measureRounds(run: BenchRun, scale: TrafficScale, courses: readonly Course[], rounds: number) {
  const baseFor = (path: Path): Course => {
    const base = courses.find((course) => course.path === baseOf(path))
    if (base === undefined) throw new RangeError(`nothing to compare ${pathName(path)} with`)
    return base
  }
  const cells = courses.flatMap((course) =>
    workloadsOf(course.path).map((workload) => ({ course, workload, base: baseFor(course.path), pairs: [] as Pair[] })),
  )
  for (const { course, workload } of cells) await course.run(workload, Math.ceil(scale.amount[workload] / 10))
  for (let round = 0; round < rounds; round++) {
    run.say(`round ${round + 1} of ${rounds}`)
    for (const { course, base, workload, pairs } of cells) {
      pairs.push(await runPair(course, base, workload, scale.amount[workload], round))
    }
  }
  return cells
}

const titles: Readonly<Record<Workload, string>> = {
  short: 'Short TCP connections',
  kept: 'Requests on TCP connections that are kept',
  udp: 'UDP requests',
  bulk: 'Bulk TCP',
}

async function measure(run: BenchRun): Promise<Bar[]> {
  const scale = run.options.quick ? quickTraffic : fullTraffic
  const courses = await openCourses(run, [plain, host, ...scale.paths])
  const cells = await measureRounds(run, scale, courses, run.options.rounds ?? scale.rounds)
  const results = cells.map(({ course, workload, pairs }) => summarize(course.path, workload, pairs))
  for (const result of results) run.report.add(trafficLine(result))
  for (const [title, isShown] of [
    ['', (path: Path) => !isLocal(path)],
    [', of the director itself', isLocal],
  ] as const) {
    for (const workload of workloads) {
      const rows = results.filter((result) => result.workload === workload && isShown(result.path)).map(trafficRow)
      if (rows.length > 0) run.show(`${titles[workload]}${title}`, formatTable(trafficHead[workload], rows))
    }
  }
  return listBars(results)
}

await benchMain(measure)
