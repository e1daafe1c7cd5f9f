/**
 * Slow start: a new server of a Service that asks for it gets its share in ten steps. Weights of such a virtual service are in
 * tenths: a server that is not new has ten times its weight. Pure but for its own state; time is told.
 */
import type { ServerSpec, ServiceKey } from '../model/types.ts'
import { serviceText } from './service-text.ts'
import type { Translation } from './translator.ts'
import type { KubeVirtualService } from './virtual-services.ts'

const steps = 10

/** Weight of a server in tenths, so many milliseconds after it came; never 0 where it has one. */
export function rampedWeight(weight: number, sinceMs: number, slowStartS: number): number {
  const step = 1 + Math.floor((steps * sinceMs) / (slowStartS * 1000))
  return weight * Math.min(Math.max(step, 1), steps)
}

/** In how many milliseconds a server gets more; undefined: it has all. */
export function nextStepMs(sinceMs: number, slowStartS: number): number | undefined {
  const length = (slowStartS * 1000) / steps
  const step = 1 + Math.floor(sinceMs / length)
  return step >= steps ? undefined : step * length - sinceMs
}

/** For how long a server has been there at least that has this weight, as an earlier bpvsd left it; milliseconds. */
function sinceOf(given: number, weight: number, slowStartS: number): number {
  const step = weight === 0 ? steps : Math.floor(given / weight)
  return ((Math.max(step, 1) - 1) * slowStartS * 1000) / steps
}

/** What of a translation slow start bears on. */
type Wanted = Pick<Translation, 'desired' | 'changes'>

/** A virtual service with slow start: as it is wanted, when its servers came, and what was given for it. */
interface Ramp {
  readonly want: KubeVirtualService
  readonly slowStartS: number
  /** By server: when it came. */
  readonly began: ReadonlyMap<string, number>
  given: KubeVirtualService
}

export class SlowStart {
  readonly #inForce: (key: ServiceKey) => readonly ServerSpec[]
  readonly #ramps = new Map<string, Ramp>()

  /** `inForce`: the servers that the table has of a virtual service, for one that is new here: it may be from before. */
  constructor(inForce: (key: ServiceKey) => readonly ServerSpec[]) {
    this.#inForce = inForce
  }

  /** A translation, with the weights of this moment. */
  apply({ desired, changes }: Wanted, nowMs: number): Wanted {
    const before = new Map(this.#ramps)
    const dropped = changes.dropped.map((want) => this.#drop(want))
    const added = changes.added.map((want) => this.#add(want, before.get(serviceText(want.service.key)), nowMs))
    const steps = this.#step(nowMs)
    return {
      desired: this.#ramps.size === 0 ? desired : desired.map((want) => this.#givenFor(want)),
      changes: { added: [...added, ...steps.added], dropped: [...dropped, ...steps.dropped] },
    }
  }

  /** In how many milliseconds weights change next; undefined: they don't. */
  dueMs(nowMs: number): number | undefined {
    const waits = [...this.#ramps.values()].flatMap(({ slowStartS, began }) =>
      [...began.values()].flatMap((at) => nextStepMs(nowMs - at, slowStartS) ?? []),
    )
    return waits.length === 0 ? undefined : waits.reduce((least, each) => Math.min(least, each))
  }

  #givenFor(want: KubeVirtualService): KubeVirtualService {
    if (want.slowStartS === undefined) return want
    return this.#ramps.get(serviceText(want.service.key))?.given ?? want
  }

  #drop(want: KubeVirtualService): KubeVirtualService {
    if (want.slowStartS === undefined) return want
    const text = serviceText(want.service.key)
    const ramp = this.#ramps.get(text)
    this.#ramps.delete(text)
    return ramp?.given ?? want
  }

  #add(want: KubeVirtualService, before: Ramp | undefined, nowMs: number): KubeVirtualService {
    const { slowStartS } = want
    if (slowStartS === undefined) return want
    const began = before === undefined ? this.#recall(want, slowStartS, nowMs) : before.began
    const all = new Map(serversOf(want).map((server) => [serverText(server), began.get(serverText(server)) ?? nowMs]))
    const given = weighed(want, slowStartS, all, nowMs)
    this.#ramps.set(serviceText(want.service.key), { want, slowStartS, began: all, given })
    return given
  }

  /** When servers came that an earlier bpvsd knew, from the weights that it left. */
  #recall(want: KubeVirtualService, slowStartS: number, nowMs: number): Map<string, number> {
    const weights = new Map(this.#inForce(want.service.key).map((server) => [serverText(server), server.weight]))
    return new Map(
      serversOf(want).flatMap((server) => {
        const text = serverText(server)
        const given = weights.get(text)
        return given === undefined ? [] : [[text, nowMs - sinceOf(given, server.weight, slowStartS)] as const]
      }),
    )
  }

  /** Gives those that are due their next weights. */
  #step(nowMs: number): Wanted['changes'] {
    const added: KubeVirtualService[] = []
    const dropped: KubeVirtualService[] = []
    for (const ramp of this.#ramps.values()) {
      const given = weighed(ramp.want, ramp.slowStartS, ramp.began, nowMs)
      if (sameWeights(given, ramp.given)) continue
      dropped.push(ramp.given)
      added.push(given)
      ramp.given = given
    }
    return { added, dropped }
  }
}

function serverText({ address, port }: ServerSpec): string {
  return `${address} ${port}`
}

/** Its own, and those for clients in the cluster. */
function serversOf({ servers, insiders = [] }: KubeVirtualService): readonly ServerSpec[] {
  return [...servers, ...insiders]
}

function sameWeights(one: KubeVirtualService, two: KubeVirtualService): boolean {
  const others = serversOf(two)
  return serversOf(one).every(({ weight }, i) => weight === others[i]?.weight)
}

function weighed(
  want: KubeVirtualService,
  slowStartS: number,
  began: ReadonlyMap<string, number>,
  nowMs: number,
): KubeVirtualService {
  const weigh = (server: ServerSpec): ServerSpec => {
    const since = nowMs - (began.get(serverText(server)) ?? nowMs)
    return { ...server, weight: rampedWeight(server.weight, since, slowStartS) }
  }
  const { servers, insiders } = want
  return { ...want, servers: servers.map(weigh), ...(insiders === undefined ? {} : { insiders: insiders.map(weigh) }) }
}
