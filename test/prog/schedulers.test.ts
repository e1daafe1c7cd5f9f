/** Every choice that the kernel's IPVS made in recorded scenarios, made again. */
import t from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Datapath } from '../helpers/prog.ts'
import {
  type CloseStep,
  type FlowStep,
  type IpvsadmStep,
  Replay,
  type ShellStep,
  type SleepStep,
} from '../helpers/replay.ts'
import { needsRoot } from '../helpers/topology.ts'

type Step = FlowStep | CloseStep | IpvsadmStep | ShellStep | SleepStep

interface Scenario {
  readonly name: string
  readonly desc: string
  readonly steps: readonly Step[]
}

/**
 * Choices of Linux 6.1.174 that 6.1.192, and so the datapath, does not make (docs/differences.md): where an upper threshold
 * is raised a little above what a server has, the server stays closed.
 */
const since: ReadonlyMap<string, readonly string[]> = new Map([
  ['lblc/threshold_all', ['connect 10.1.0.10:20009 -> 10.9.0.1:80: to nobody, recorded 10.2.0.11:80']],
])

interface Tally {
  matched: number
  unmatched: number
}

async function play(replay: Replay, steps: readonly Step[], tally: Tally): Promise<string[]> {
  const differences: string[] = []
  for (const step of steps) {
    let difference: string | undefined
    if (step.do === 'ipvsadm') difference = await replay.ipvsadm(step)
    else if (step.do === 'sleep') replay.host.age(step.s)
    else if (step.do === 'close') replay.close(step)
    else if (step.do === 'sh') replay.shell(step)
    else {
      difference = replay.flow(step)
      if (difference === undefined) tally.matched++
      else tally.unmatched++
    }
    if (difference !== undefined) differences.push(difference)
  }
  return differences
}

t.test('schedulers choose as the kernel did', { skip: needsRoot }, async (t) => {
  t.setTimeout(300_000)
  const datapath = await Datapath.open(t)
  const ways = [
    { name: 'through XDP, past the stack', xdp: true, bypass: LbBypassMode.BYPASS_ALWAYS },
    { name: 'through tcx and the stack', xdp: false, bypass: LbBypassMode.BYPASS_NEVER, marked: 'by netfilter' },
  ] as const
  for (const scheduler of [
    'rr',
    'wrr',
    'lc',
    'wlc',
    'sed',
    'nq',
    'fo',
    'ovf',
    'lblc',
    'lblcr',
    'dh',
    'sh',
    'mh',
    'hash-random',
  ] as const) {
    const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>(`schedulers-${scheduler}`)
    for (const way of ways) {
      await t.test(`${scheduler} ${way.name}`, async (t) => {
        const tally = { matched: 0, unmatched: 0 }
        for (const { name, desc, steps } of scenarios) {
          datapath.clear()
          datapath.maps.config.setBypass(0, way.bypass)
          const differences = await play(new Replay(datapath, way), steps, tally)
          const explained = since.get(name) ?? []
          /* Listings after such a choice show it too. */
          const told = differences.filter((text) => explained.length === 0 || /^(connect|send) /.test(text))
          t.same(told, explained, `${name}: ${desc}`)
          tally.unmatched -= explained.length
        }
        t.comment(`${scheduler}: ${tally.matched} choices matched, ${tally.unmatched} unmatched`)
        t.equal(tally.unmatched, 0, 'every choice is the recorded one, or explained')
      })
    }
  }
})
