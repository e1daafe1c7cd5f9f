/** A witness for bpvs's counters: what a host's own packet filter counted of its traffic with virtual services. */
import type { Topology } from '../../src/lab/topology.ts'

/** Packets, and bytes of IP packets with their headers. */
export interface Traffic {
  readonly outPkts: bigint
  readonly inPkts: bigint
  readonly outBytes: bigint
  readonly inBytes: bigint
}

export interface Flow {
  readonly address: string
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
}

function rules({ address, protocol, port }: Flow, n: number): string {
  const ip = address.includes(':') ? 'ip6' : 'ip'
  return (
    `add counter inet witness out${n}; add counter inet witness in${n};` +
    `add rule inet witness output ${ip} daddr ${address} ${protocol} dport ${port} counter name out${n};` +
    `add rule inet witness input ${ip} saddr ${address} ${protocol} sport ${port} counter name in${n};`
  )
}

interface NftCounter {
  readonly name: string
  readonly packets: number
  readonly bytes: number
}

/** Counts, in the namespace of one host, what goes to each flow's address and port and comes from there. */
export class Accounting {
  readonly #topology: Topology
  readonly #role: string
  readonly #flows: readonly Flow[]

  private constructor(topology: Topology, role: string, flows: readonly Flow[]) {
    this.#topology = topology
    this.#role = role
    this.#flows = flows
  }

  static async start(topology: Topology, role: string, flows: readonly Flow[]): Promise<Accounting> {
    const chain = (hook: string) => `add chain inet witness ${hook} { type filter hook ${hook} priority 300; };`
    const head = `add table inet witness; ${chain('output')} ${chain('input')}`
    await topology.must(role, 'nft', [head + flows.map(rules).join('')])
    return new Accounting(topology, role, flows)
  }

  /** What was counted so far, in the order of the flows, as the director would see it: "in" is towards the service. */
  async read(): Promise<Traffic[]> {
    const text = await this.#topology.must(this.#role, 'nft', ['-j', 'list', 'counters'])
    const { nftables } = JSON.parse(text) as { nftables: { counter?: NftCounter }[] }
    const counters = new Map(
      nftables.flatMap(({ counter }) => (counter === undefined ? [] : [[counter.name, counter]])),
    )
    return this.#flows.map((_, n) => {
      const sent = counters.get(`out${n}`)
      const received = counters.get(`in${n}`)
      if (sent === undefined || received === undefined) throw new Error(`${this.#role} does not count flow ${n}`)
      return {
        inPkts: BigInt(sent.packets),
        outPkts: BigInt(received.packets),
        inBytes: BigInt(sent.bytes),
        outBytes: BigInt(received.bytes),
      }
    })
  }
}
