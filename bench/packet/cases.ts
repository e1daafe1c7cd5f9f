/** What the packet bench measures. Pure. */
import type { Family } from '../../src/model/types.ts'

/** What a packet is to the balancer. */
export type CaseName = 'established' | 'reply' | 'new' | 'foreign'
/** Where the program runs: `tcx` and `xdp` send straight out; `stack` is tcx in front of the host's stack. */
export type Hook = 'xdp' | 'tcx' | 'stack'
/** The programs of bpf/bench/packet.bpf.c that do the least that any balancer must. */
export type Floor = 'tx' | 'lookup' | 'nat' | 'nat_fib' | 'insert'

export const caseNames: readonly CaseName[] = ['established', 'reply', 'new', 'foreign']

/** One measurement. */
export interface Case {
  readonly name: CaseName
  readonly hook: Hook
  readonly family: Family
  /** Services of each family in the table. */
  readonly services: number
  /** Flows that the packets go round; every packet of "new" is a flow of its own. */
  readonly flows: number
  /** Services that the packets go round. */
  readonly over: number
}

/** How much there is of everything. */
export interface Scale {
  readonly hooks: readonly Hook[]
  readonly families: readonly Family[]
  readonly fewServices: number
  readonly manyServices: number
  readonly flows: number
  /** Packets of a timed run with one flow. */
  readonly repeat: number
  /** Flows of a timed run of new connections. */
  readonly fresh: number
  readonly rounds: number
}

export const fullScale: Scale = {
  hooks: ['xdp', 'tcx', 'stack'],
  families: [4, 6],
  fewServices: 10,
  manyServices: 50_000,
  flows: 100_000,
  repeat: 10_000,
  fresh: 20_000,
  rounds: 15,
}
/** IPv4, sent straight out. */
export const quickScale: Scale = {
  ...fullScale,
  hooks: ['xdp', 'tcx'],
  families: [4],
  flows: 10_000,
  fresh: 5_000,
  rounds: 3,
}

/** With what a case is compared. */
export function floorOf(name: CaseName): Floor {
  switch (name) {
    case 'new':
      return 'insert'
    case 'foreign':
      return 'lookup'
    default:
      return 'nat'
  }
}

/** How many times its floor a case may cost; undefined: the design makes no promise. */
export function limitOf(name: CaseName, hook: Hook): number | undefined {
  if (hook === 'stack') return undefined
  return { established: 1.7, reply: undefined, new: 1.6, foreign: 1.1 }[name]
}

/** How many times the cost with few services that with many may be. */
export const SERVICES_LIMIT = 1.1

/** A case with few services, in its variants. */
function variants(one: Pick<Case, 'name' | 'hook' | 'family'>, { fewServices, flows }: Scale): Case[] {
  const common = { ...one, services: fewServices }
  if (one.name === 'new') return [1, fewServices].map((over) => ({ ...common, flows: 0, over }))
  const narrow = [1, flows].map((count) => ({ ...common, flows: count, over: 1 }))
  return one.name === 'established' ? [...narrow, { ...common, flows, over: fewServices }] : narrow
}

/** The same case in a table with other services; packets that went round all of them still do. */
export function withServices(one: Case, services: number): Case {
  return { ...one, services, over: one.over === 1 ? 1 : services }
}

/** Every case; the one with many services comes right after the same with few. */
export function listCases(scale: Scale): Case[] {
  return scale.hooks.flatMap((hook) =>
    scale.families.flatMap((family) =>
      caseNames.flatMap((name) =>
        variants({ name, hook, family }, scale).flatMap((one) =>
          hook === 'stack' ? [one] : [one, withServices(one, scale.manyServices)],
        ),
      ),
    ),
  )
}

/** Identifies a case. */
export function caseKey({ name, hook, family, services, flows, over }: Case): string {
  return [name, hook, family, services, flows, over].join(' ')
}
