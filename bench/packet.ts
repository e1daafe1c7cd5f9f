/** What a packet costs in the kernel, in nanoseconds, beside floors of our own. See docs/benchmarks.md. */
import { setImmediate as breathe } from 'node:timers/promises'
import { type BenchRun, benchMain } from './common/main.ts'
import { type Bar, formatTable } from './common/report.ts'
import { type Case, type Floor, fullScale, listCases, quickScale, type Scale } from './packet/cases.ts'
import { foreignBar, foreignHead, foreignLine, foreignRow, measureForeign } from './packet/foreign.ts'
import { masqueradeHead, masqueradeLine, masqueradeRow, measureMasquerade } from './packet/masquerade.ts'
import { measureMethods, methodBar, methodHead, methodLine, methodRow } from './packet/methods.ts'
import { Measurement, type Sample } from './packet/measure.ts'
import { buildNetwork, describeNetwork } from './packet/network.ts'
import {
  barsOf,
  caseHead,
  caseLine,
  caseRow,
  type CaseSamples,
  type FloorSamples,
  floorHead,
  floorLine,
  floorRow,
  summarizeAll,
} from './packet/results.ts'
import { Rig } from './packet/rig.ts'
import { measureSchedulers, schedulerBar, schedulerHead, schedulerLine, schedulerRow } from './packet/schedulers.ts'

/** Rounds with one flow or none take so little time that each is made of several. */
const SHORT_SAMPLES = 4
const floors: readonly Floor[] = ['tx', 'lookup', 'nat', 'nat_fib', 'insert']

async function makeRigs({ cleanup, say }: BenchRun, scale: Scale): Promise<(one: Case) => Rig> {
  const { fewServices, manyServices, flows, families } = scale
  const common = { flows, families, stack: false }
  const plans = {
    few: { ...common, role: 'director-few', services: fewServices },
    many: { ...common, role: 'director-many', services: manyServices },
    ...(scale.hooks.includes('stack')
      ? { stack: { ...common, role: 'director-stack', services: fewServices, stack: true } }
      : {}),
  }
  const roles = Object.values(plans).map(({ role }) => role)
  const topology = describeNetwork(roles)
  cleanup.add(() => topology.close())
  await buildNetwork(topology, roles)
  const rigs = new Map<string, Rig>()
  for (const [name, plan] of Object.entries(plans)) {
    say(`${plan.role}: ${plan.services} services of each family, ${flows} flows to one and ${flows} to all`)
    const rig = new Rig(topology, plan)
    cleanup.add(() => rig.close())
    rigs.set(name, rig)
  }
  return ({ hook, services }) => {
    const rig = rigs.get(hook === 'stack' ? 'stack' : services === fewServices ? 'few' : 'many')
    if (rig === undefined) throw new RangeError(`no table for ${hook} with ${services} services`)
    return rig
  }
}

/** The cases that every floor is measured for: the few services' established ones. */
function floorCases(cases: readonly Case[], { fewServices }: Scale): Case[] {
  return cases.filter(({ name, hook, services, over }) => {
    return name === 'established' && hook !== 'stack' && services === fewServices && over === 1
  })
}

/** Goes round all measurements, so that what the machine does meanwhile meets all of them alike. */
async function measureRounds(run: BenchRun, scale: Scale, rigOf: (one: Case) => Rig) {
  const cases = listCases(scale)
  const all = cases.map((one) => ({
    measurement: new Measurement(one, rigOf(one), scale),
    samples: [] as Sample[],
  }))
  const alone = floorCases(cases, scale).map((one) => ({
    measurement: new Measurement({ ...one, name: 'established' }, rigOf(one), scale),
    samples: floors.filter((floor) => floor !== 'insert').map((floor) => ({ case: one, floor, ns: [] as number[] })),
  }))
  for (let round = 0; round < scale.rounds; round++) {
    run.say(`round ${round + 1} of ${scale.rounds}`)
    for (const { measurement, samples } of all) {
      await breathe() /* an interrupt is heard only between runs */
      const times = measurement.case.flows > 1 ? 1 : SHORT_SAMPLES
      for (let i = 0; i < times; i++) samples.push(measurement.sample(round + i))
    }
    for (const { measurement, samples } of alone) {
      const result = measurement.sampleFloors(samples.map(({ floor }) => floor))
      for (const { floor, ns } of samples) ns.push(result[floor])
    }
  }
  return {
    cases: all.map(({ measurement, samples }): CaseSamples => ({ case: measurement.case, samples })),
    floors: alone.flatMap(({ samples }): FloorSamples[] => samples),
  }
}

/** The rows that every hook, family and number of services has. */
async function measureCases(run: BenchRun): Promise<Bar[]> {
  const scale = run.options.quick ? quickScale : fullScale
  const rounds = run.options.rounds ?? scale.rounds
  const rigOf = await makeRigs(run, scale)
  const samples = await measureRounds(run, { ...scale, rounds }, rigOf)
  const results = summarizeAll(samples.cases, scale.fewServices)
  for (const result of results) run.report.add(caseLine(result))
  for (const floor of samples.floors) run.report.add(floorLine(floor))
  run.show('Nanoseconds per packet, and against the floor', formatTable(caseHead, results.map(caseRow)))
  run.show('Floors alone', formatTable(floorHead, samples.floors.map(floorRow)))
  return results.flatMap(barsOf)
}

async function measure(run: BenchRun): Promise<Bar[]> {
  const { quick } = run.options
  const bars = await measureCases(run)
  const schedulers = await measureSchedulers(run, quick)
  for (const result of schedulers) run.report.add(schedulerLine(result))
  run.show(
    'A new connection, by scheduler and servers, in nanoseconds',
    formatTable(schedulerHead, schedulers.map(schedulerRow)),
  )
  const methods = await measureMethods(run, quick)
  for (const result of methods) run.report.add(methodLine(result))
  run.show('A packet of an open connection, by forwarding method', formatTable(methodHead, methods.map(methodRow)))
  const masqueraded = await measureMasquerade(run, quick)
  for (const result of masqueraded) run.report.add(masqueradeLine(result))
  run.show(
    'A packet of a masqueraded connection, beside NAT',
    formatTable(masqueradeHead, masqueraded.map(masqueradeRow)),
  )
  const foreign = await measureForeign(run, quick)
  for (const result of foreign) run.report.add(foreignLine(result))
  run.show('A packet of no connection', formatTable(foreignHead, foreign.map(foreignRow)))
  return [...bars, ...methods.flatMap(methodBar), ...schedulers.map(schedulerBar), ...foreign.flatMap(foreignBar)]
}

await benchMain(measure)
