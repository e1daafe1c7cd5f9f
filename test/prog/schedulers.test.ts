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
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

type Step = FlowStep | CloseStep | IpvsadmStep | ShellStep | SleepStep

interface Scenario {
  readonly name: string
  readonly desc: string
  readonly steps: readonly Step[]
}

/** Does a step; undefined if it is nothing that is answered, else what differs. */
async function play(replay: Replay, step: Step): Promise<readonly string[] | undefined> {
  const found = (difference: string | undefined) => (difference === undefined ? [] : [difference])
  switch (step.do) {
    case 'ipvsadm':
      return found(await replay.ipvsadm(step))
    case 'sleep':
      return void replay.host.age(step.s)
    case 'close':
      return void replay.close(step)
    case 'sh':
      return void replay.shell(step)
    default:
      return found(replay.flow(step))
  }
}

/** What a step is called in the list of differences. */
function nameOf(step: Step): string {
  if (step.do === 'ipvsadm') return step.args
  return step.do === 'connect' || step.do === 'send' ? `${step.do} ${step.src} -> ${step.dst}` : step.do
}

t.test('schedulers choose as the kernel did', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
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
    const recording = `schedulers-${scheduler}`
    const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>(recording)
    const tally = new Tally(recording)
    for (const way of ways) {
      await t.test(`${scheduler} ${way.name}`, async (t) => {
        for (const { name, desc, steps } of scenarios) {
          datapath.clear()
          datapath.maps.config.setBypass(0, way.bypass)
          const replay = new Replay(datapath, way)
          const differences: string[] = []
          for (const [i, step] of steps.entries()) {
            const found = await play(replay, step)
            if (found !== undefined) differences.push(...tally.note(name, i, nameOf(step), found))
          }
          t.same(differences, [], `${name}: ${desc}`)
        }
      })
    }
    tally.end(t)
  }
})
