/** What the kernel's schedulers choose, from what they look at: a judge for the datapath that shares nothing with it. */

/** A server as schedulers see it. */
export interface Candidate {
  readonly name: string
  weight: number
  active: number
  inactive: number
  overload: boolean
}

/** Schedulers that look at every server and keep nothing. */
export type WalkScheduler = 'lc' | 'wlc' | 'sed' | 'nq' | 'fo' | 'ovf'
export const walkSchedulers: readonly WalkScheduler[] = ['lc', 'wlc', 'sed', 'nq', 'fo', 'ovf']

function usable({ weight, overload }: Candidate): boolean {
  return weight > 0 && !overload
}

/** ip_vs_dest_conn_overhead() */
export function overhead({ active, inactive }: Candidate): number {
  return active * 256 + inactive
}

/** The first of the least costs for their weight, exactly. */
export function leastFor(servers: readonly Candidate[], cost: (server: Candidate) => number): Candidate | undefined {
  let best: Candidate | undefined
  for (const server of servers) {
    if (!usable(server)) continue
    if (best === undefined || BigInt(cost(best)) * BigInt(server.weight) > BigInt(cost(server)) * BigInt(best.weight)) {
      best = server
    }
  }
  return best
}

function heaviest(servers: readonly Candidate[]): Candidate | undefined {
  return servers.filter(usable).reduce<Candidate | undefined>((best, server) => {
    return best === undefined || server.weight > best.weight ? server : best
  }, undefined)
}

/** Chooses among servers in the order of the kernel's list; undefined: nobody. */
export function choose(scheduler: WalkScheduler, servers: readonly Candidate[]): Candidate | undefined {
  const delay = ({ active }: Candidate): number => active + 1
  switch (scheduler) {
    case 'lc':
      return servers.filter(usable).sort((one, two) => overhead(one) - overhead(two))[0]
    case 'wlc':
      return leastFor(servers, overhead)
    case 'sed':
      return leastFor(servers, delay)
    case 'nq':
      return servers.find((server) => usable(server) && server.active === 0) ?? leastFor(servers, delay)
    case 'fo':
      return heaviest(servers)
    case 'ovf':
      return heaviest(servers.filter(({ active, weight }) => active <= weight))
  }
}
