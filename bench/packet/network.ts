/**
 * The namespaces of the packet bench. Each director has a table of its own; the peers of its interfaces only have to be
 * up. Routes and neighbours are there so that the fib answers; all neighbours are permanent.
 *
 *              10.1.0.0/16 via 10.254.1.2 +-----------+ 10.2.0.0/24
 *   far  ------- a0 10.254.1.1 -----------| director* |------- b0 10.2.0.1 ------- far
 *              fd00:1::/64 via fd00:fe::2 +-----------+ fd00:2::/64
 */
import { Topology, type TopologySpec } from '../../src/lab/topology.ts'
import type { Family } from '../../src/model/types.ts'

/** Last numbers of the servers' addresses. */
export const serverNumbers = [11, 12, 13, 14] as const

/** An address of a server, by its last number. */
export function serverAddress(family: Family, number: number): string {
  return family === 4 ? `10.2.0.${number}` : `fd00:2::${number.toString(16)}`
}

/** The director's own on the servers' side. */
export function directorAddress(family: Family): string {
  return family === 4 ? '10.2.0.1' : 'fd00:2::1'
}

function topologySpec(directors: readonly string[]): TopologySpec {
  const routes = [
    { to: '10.1.0.0/16', via: '10.254.1.2' },
    { to: 'fd00:1::/64', via: 'fd00:fe::2' },
  ]
  return {
    namespaces: [{ name: 'far' }, ...directors.map((name) => ({ name, forwarding: true, routes }))],
    links: directors.flatMap((namespace, i) => [
      [
        { namespace, interface: 'a0', addresses: ['10.254.1.1/30', 'fd00:fe::1/64'] },
        { namespace: 'far', interface: `a${i + 1}` },
      ],
      [
        { namespace, interface: 'b0', addresses: [`${directorAddress(4)}/24`, `${directorAddress(6)}/64`] },
        { namespace: 'far', interface: `b${i + 1}` },
      ],
    ]),
  }
}

function neighbourLines(): string {
  const servers = serverNumbers.flatMap((number) =>
    ([4, 6] as const).map((family) => {
      return `neigh replace ${serverAddress(family, number)} lladdr 02:00:00:00:02:${number} dev b0\n`
    }),
  )
  const clients = ['10.254.1.2', 'fd00:fe::2'].map((via) => `neigh replace ${via} lladdr 02:00:00:00:01:02 dev a0\n`)
  return [...servers, ...clients].join('')
}

/** Describes the namespaces; the caller registers close() before buildNetwork(). */
export function describeNetwork(directors: readonly string[]): Topology {
  return new Topology(topologySpec(directors))
}

/** Makes them. */
export async function buildNetwork(topology: Topology, directors: readonly string[]): Promise<void> {
  await topology.create()
  for (const director of directors) await topology.must(director, 'ip', ['-batch', '-'], { input: neighbourLines() })
}
