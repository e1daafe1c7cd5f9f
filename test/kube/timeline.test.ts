/**
 * What kube-proxy's ipvs mode did while endpoints and services changed under open connections, and over restarts, again: the
 * recorded actions go to an API server and to real connections, and each has to end in the recorded table and picks.
 */
import t from 'tap'
import { wholeRecording } from '../../tools/recordings.ts'
import { type Cluster, TimelineScene as Scene } from '../helpers/kube-timeline.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Findings, Tally } from '../helpers/tally.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const settleMs = 60_000

type Trace =
  | { readonly kind: 'action'; readonly action: string }
  | { readonly kind: 'table'; readonly ipvs: readonly string[] }
  | { readonly kind: 'client'; readonly event: string; readonly backend?: string }

/** What was done, the table that it came to, and the servers that connections were given, in their order. */
interface Step {
  readonly action: string
  readonly table: readonly string[]
  readonly picks: readonly string[]
}

function stepsOf(trace: readonly Trace[]): Step[] {
  const steps: { action: string; table: readonly string[]; picks: string[] }[] = []
  let table: readonly string[] = []
  for (const each of trace) {
    const step = steps.at(-1)
    if (each.kind === 'action') steps.push({ action: each.action, table, picks: [] })
    else if (each.kind === 'table') table = each.ipvs
    else if (each.event === 'open' && each.backend !== undefined) step?.picks.push(each.backend)
    if (each.kind === 'table' && step !== undefined) step.table = table
  }
  return steps
}

/** Does it; the servers that connections reached, if it opens some. */
type Act = (scene: Scene) => Promise<readonly string[]>

const quietly =
  (work: (scene: Scene) => Promise<void>): Act =>
  async (scene) => {
    await work(scene)
    return []
  }

const change = (edit: (cluster: Cluster) => void): Act => quietly((scene) => scene.change(edit))

/** Every action of the recording. */
const acts: Readonly<Record<string, Act>> = {
  'kube-proxy started (ipvs) and settled': quietly((scene) => scene.start('')),
  'create services web 10.96.3.1:80 (endpoints l0=10.128.0.16 l1=10.128.0.17 r0=10.129.0.16 r1=10.129.0.17), udp 10.96.3.2:53/UDP (l0 r0), gone 10.96.3.3:80 (r5=10.129.0.21)':
    change((cluster) => cluster.create()),
  'client opens 8 TCP connections to web and 1 to gone': async (scene) => [
    ...(await scene.open(8, '10.96.3.1', 80)),
    ...(await scene.open(1, '10.96.3.3', 80)),
  ],
  'udp: endpoint r0 removed': change((cluster) => cluster.slice('udp', 'UDP', { l0: 'ready' })),
  'web: endpoint r1 removed from the slice (2 connections open)': change((cluster) =>
    cluster.setWeb({ r1: undefined }),
  ),
  'client opens 6 more to web': (scene) => scene.open(6, '10.96.3.1', 80),
  'web: r1 is back (while draining)': change((cluster) => cluster.setWeb({ r1: 'ready' })),
  'client opens 4 more to web': (scene) => scene.open(4, '10.96.3.1', 80),
  'web: r1 ready -> terminating, serving (others ready)': change((cluster) => cluster.setWeb({ r1: 'terminating' })),
  'web: r1 gone from the slice': change((cluster) => cluster.setWeb({ r1: undefined })),
  'web: l1 ready -> not ready': change((cluster) => cluster.setWeb({ l1: 'not ready' })),
  'web: an endpoint r2 with no connection ever is added': change((cluster) => cluster.setWeb({ r2: 'ready' })),
  'web: r2 (never used) removed': change((cluster) => cluster.setWeb({ r2: undefined })),
  'client closes all connections to r1 with RST (entries live 10 s)': quietly((scene) => scene.reset('r1')),
  'client closes all connections to l1 with FIN (TIME_WAIT 120 s)': quietly((scene) => scene.finish('l1')),
  'service gone deleted (connection open)': change((cluster) => cluster.delete('gone')),
  'service web: port 80 -> 81 (connections open)': change((cluster) => cluster.web({ port: 81 })),
  'client opens 2 to port 81': (scene) => scene.open(2, '10.96.3.1', 81),
  'service web: port back to 80': change((cluster) => cluster.web({})),
  'client opens 4 to port 80': (scene) => scene.open(4, '10.96.3.1', 80),
  'service web: sessionAffinity ClientIP': change((cluster) => cluster.web({ sessionAffinity: 'ClientIP' })),
  'service web: timeout 60': change((cluster) => {
    cluster.web({ sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } })
  }),
  'service web: sessionAffinity None': change((cluster) => cluster.web({})),
  'web: r0 removed (connections open), then kube-proxy ended 8 s later': change((cluster) => {
    cluster.setWeb({ r0: undefined })
  }),
  'kube-proxy ended (SIGTERM); r0 in drain': quietly((scene) => scene.end()),
  'kube-proxy started with scheduler wrr; r0 still in drain': quietly((scene) => scene.start('wrr')),
  settled: quietly(async () => undefined),
  'web: all endpoints removed': change((cluster) => cluster.setWeb({ l0: undefined })),
  'web: l0 r0 back': change((cluster) => cluster.setWeb({ l0: 'ready', r0: 'ready' })),
  'service udp deleted while kube-proxy is down: kube-proxy ended': quietly(async (scene) => {
    await scene.end()
    await scene.change((cluster) => cluster.delete('udp'))
  }),
  'kube-proxy started (scheduler wrr)': quietly((scene) => scene.start('wrr')),
  'kube-proxy ended': quietly((scene) => scene.end()),
  'kube-proxy --cleanup': quietly((scene) => scene.cleanUp()),
}

async function play(scene: Scene, { action, table, picks }: Step, findings: Findings): Promise<void> {
  const act = acts[action]
  if (act === undefined) throw new Error(`nobody knows how to do "${action}"`)
  findings.same(await act(scene), picks, 'the servers reached')
  const wanted = table.toSorted().join('\n')
  let now: string[] = []
  const settled = async (): Promise<boolean> => {
    now = (await scene.table()).toSorted()
    return now.join('\n') === wanted
  }
  await waitFor('the recorded table', settled, settleMs).catch(() => findings.same(now, table.toSorted(), 'the table'))
}

t.test(
  'every recorded action on a cluster under traffic comes to the recorded table',
  { skip: needsRoot },
  async (t) => {
    const { config, trace } = readJsonRecording<{ config: object; trace: readonly Trace[] }>('kube-timeline')
    const tally = new Tally('kube-timeline')
    const scene = await Scene.make(t, config)
    for (const [i, step] of stepsOf(trace).entries()) {
      const findings = new Findings()
      await play(scene, step, findings)
      t.same(tally.note(wholeRecording, i, step.action, findings.take()), [], step.action)
    }
    tally.end(t)
  },
)
