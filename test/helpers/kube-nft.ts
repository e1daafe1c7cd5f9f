/** What kube-proxy's nftables mode does with a new connection, read from its table as `nft list` prints it. */

/** Where a client is. */
export const callers = ['pod', 'node', 'external'] as const
export type Caller = (typeof callers)[number]

/** What becomes of a client's connection. */
export interface Outcome {
  /** `address port` of those it may reach, sorted; or how it ends without one. */
  readonly end: readonly string[] | 'drop' | 'refuse'
  /** The server sees an address of the node's. */
  readonly masqueraded: boolean
}

export interface VirtualAddress {
  readonly address: string
  readonly protocol: string
  readonly port: number
  readonly nodePort: boolean
}

export class NftTable {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  /** What becomes of a connection to an address, without regard to who may use it. */
  outcome(to: VirtualAddress, caller: Caller): Outcome {
    const key = `${to.nodePort ? '' : `${to.address} . `}${to.protocol} . ${to.port}`
    const chain = this.#element(to.nodePort ? 'service-nodeports' : 'service-ips', key)?.replace('goto ', '')
    const walked = chain === undefined ? { servers: [], marked: false } : this.#walk(chain, caller)
    const masqueraded = walked.marked || this.#marksClusterIp(to.address, caller)
    if (walked.servers.length > 0) return { end: walked.servers.toSorted(), masqueraded }
    const none = this.#element(to.nodePort ? 'no-endpoint-nodeports' : 'no-endpoint-services', key)
    return { end: none === 'drop' ? 'drop' : none === 'goto reject-chain' ? 'refuse' : [], masqueraded }
  }

  /** Who may use an address, if not everybody: prefixes, a single address without its length. */
  sources({ address, protocol, port }: VirtualAddress): readonly string[] | undefined {
    const chain = this.#element('firewall-ips', `${address} . ${protocol} . ${port}`)?.replace('goto ', '')
    if (chain === undefined) return undefined
    const [, list = ''] = /saddr != (?:\{ )?([^}]*?)(?: \})?\s+drop/.exec(this.#chain(chain)) ?? []
    return list.split(',').map((each) => each.trim())
  }

  #block(kind: string, name: string): string {
    const start = this.#text.indexOf(`\t${kind} ${name} {`)
    return start === -1 ? '' : this.#text.slice(start, this.#text.indexOf('\n\t}', start))
  }

  #chain(name: string): string {
    return this.#block('chain', name)
  }

  /** The verdict of a map's element. */
  #element(map: string, key: string): string | undefined {
    for (const line of this.#block('map', map).split('\n')) {
      const [, found, verdict] =
        /(\S.*?) (?:comment "[^"]*" )?: (.*?)(?: \}|,)?$/.exec(line.replace('elements = { ', '')) ?? []
      if (found === key) return verdict
    }
    return undefined
  }

  #marksClusterIp(address: string, caller: Caller): boolean {
    const ips: readonly string[] = this.#block('set', 'cluster-ips').match(/[0-9a-f.:]+(?=,| \})/g) ?? []
    if (!ips.includes(address)) return false
    const services = this.#chain('services')
    return (
      services.includes('masquerade all clusterIP traffic') ||
      (services.includes('masquerade clusterIP traffic from outside cluster') && caller !== 'pod')
    )
  }

  #walk(chain: string, caller: Caller): { readonly servers: readonly string[]; readonly marked: boolean } {
    let marked = false
    for (const line of this.#chain(chain).split('\n')) {
      const [, target] = /goto (\S+)/.exec(line) ?? []
      if (line.includes('"masquerade"')) marked = true
      if (line.includes('"masquerade local traffic"') && caller === 'node') marked = true
      const applies = line.includes('short-circuit pod')
        ? caller === 'pod'
        : line.includes('short-circuit local')
          ? caller === 'node'
          : line.trimStart().startsWith('goto')
      if (target !== undefined && applies) return { servers: this.#walk(target, caller).servers, marked }
      const servers = this.#serversIn(line)
      if (servers.length > 0) return { servers, marked }
    }
    return { servers: [], marked }
  }

  /** Servers that a rule chooses among, named in it or by chains of their own. */
  #serversIn(line: string): string[] {
    if (!line.includes('numgen')) return []
    const direct = [...line.matchAll(/: ([0-9a-f.:]+) \. (\d+)/g)].map(([, address, port]) => `${address} ${port}`)
    const chains = [...line.matchAll(/goto (endpoint-[^\s,]+)/g)].map(([, chain = '']) => {
      const [, address, port] = /dnat to \[?([0-9a-f.:]+?)\]?:(\d+)$/m.exec(this.#chain(chain)) ?? []
      return `${address} ${port}`
    })
    return [...direct, ...chains]
  }
}
