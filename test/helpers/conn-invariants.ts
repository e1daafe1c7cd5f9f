/** What must hold of the connection table whatever happened: an independent reading of lb_conns and lb_conn_index. */
import { LbConnFlag, LbFwd, LbLimit, LbState, LbTemplate } from '../../src/abi/generated.ts'
import type { Datapath } from './prog.ts'

const mask64 = (1n << 64n) - 1n

interface Spot {
  readonly first: number
  readonly second: number
  readonly tag: number
}

interface Ends {
  readonly client: bigint
  readonly service: bigint
  readonly server: bigint
}

/** The index as bpf/hash.h and bpf/conn.h describe it. */
class Model {
  readonly #datapath: Datapath

  constructor(datapath: Datapath) {
    this.#datapath = datapath
  }

  #key(n: number): bigint {
    return this.#datapath.handles.rodata.hashKey[n] ?? 0n
  }

  endpoint(address: Uint8Array, port: number, protocol: number, family: number): bigint {
    const view = new DataView(address.buffer, address.byteOffset, 16)
    const word = (n: number) => BigInt(view.getUint32(n * 4, true))
    const portInMemory = ((port & 0xff) << 8) | (port >> 8)
    const rest = ((BigInt(portInMemory) << 16n) | BigInt((protocol << 8) | family)) & 0xffffffffn
    let hash = this.#key(0) + this.#key(1) * word(0) + this.#key(5) * rest
    if (family === 6) hash += this.#key(2) * word(1) + this.#key(3) * word(2) + this.#key(4) * word(3)
    return hash & mask64
  }

  pair(from: bigint, to: bigint): bigint {
    return (this.#key(6) * (from >> 32n) + this.#key(7) * (to >> 32n)) & mask64
  }

  spot(hash: bigint): Spot {
    const lines = BigInt(this.#datapath.handles.rodata.connLineMask)
    const mixed = hash ^ (hash >> 15n)
    const first = (mixed >> 32n) & lines
    const tag = ((mixed >> 20n) & 0xffffffffn) | 1n
    const step = (((tag * 0x9e3779b1n) & 0xffffffffn) >> 8n) | 1n
    return { first: Number(first), second: Number((first + step) & lines), tag: Number(tag) }
  }

  ends(i: number): Ends {
    const { conns, servers } = this.#datapath.maps
    const [protocol, family] = [conns.proto(i), conns.af(i)]
    return {
      client: this.endpoint(conns.caddr(i), conns.cport(i), protocol, family),
      service: this.endpoint(conns.vaddr(i), conns.vport(i), protocol, family),
      server: this.endpoint(servers.addr(conns.server(i)), conns.dport(i), protocol, family),
    }
  }
}

export interface TableShape {
  /** Contradictions, a sentence each. */
  readonly problems: readonly string[]
  readonly connections: number
  readonly templates: number
  readonly spilled: number
  /** Connections that are masqueraded and have their second entry, which is in `connections` too. */
  readonly masqueraded: number
  /** References that are in the second of their two lines. */
  readonly inSecond: number
}

/** Takes the references out of `references` that a connection must have; returns how many were in a second line. */
function takeReferences(
  model: Model,
  datapath: Datapath,
  i: number,
  references: Set<string>,
  problems: string[],
): number {
  const ends = model.ends(i)
  const flags = datapath.maps.conns.flags(i)
  const take = (line: number, tag: number) => references.delete(`${line} ${tag} ${i + 1}`)
  const home = model.spot(ends.client)
  if ((flags & LbConnFlag.CONN_SPILLED) === 0) {
    if (!take(home.first, home.tag)) problems.push(`connection ${i} is not in its client's line`)
    return 0
  }
  let inSecond = 0
  const pairs: (readonly [bigint, bigint])[] = [[ends.client, ends.service]]
  if ((flags & LbConnFlag.CONN_NOOUTPUT) === 0) pairs.push([ends.server, ends.client])
  for (const [from, to] of pairs) {
    const spot = model.spot(model.pair(from, to))
    if (take(spot.first, spot.tag)) continue
    if (take(spot.second, spot.tag)) inSecond++
    else problems.push(`spilled connection ${i} is in neither of two lines`)
  }
  return inSecond
}

/** Every reference of the index, as "line tag entry+1". */
function allReferences({ lines }: Datapath): Set<string> {
  const references = new Set<string>()
  for (let line = 0; line < lines.length; line++) {
    for (let n = 0; n < LbLimit.LINE_WAYS; n++) {
      const slot = lines.slot(line, n)
      if (slot !== 0n) references.add(`${line} ${slot >> 32n} ${slot & 0xffffffffn}`)
    }
  }
  return references
}

/** Entries that are free, by following the pools' stacks. */
function freeEntries({ maps }: Datapath, problems: string[]): Set<number> {
  const { connPools, conns } = maps
  const free = new Set<number>()
  for (let lane = 0; lane < connPools.length; lane++) {
    let next = Number(connPools.head(lane) & 0xffffffffn)
    while (next !== 0) {
      if (free.has(next - 1)) {
        problems.push(`free entry ${next - 1} is on a stack twice`)
        break
      }
      free.add(next - 1)
      next = conns.server(next - 1)
    }
  }
  return free
}

/** What the servers' counts should be, by what their connections say of themselves. */
function checkCounts(datapath: Datapath, entries: readonly number[], problems: string[]): void {
  const { conns, serverStates, serverMax } = datapath.maps
  const counts = new Map<number, { active: number; inactive: number; persistent: number }>()
  const none = { active: 0, inactive: 0, persistent: 0 }
  for (const i of entries) {
    if (isReturn(datapath, i)) continue
    const count = counts.get(conns.server(i)) ?? { ...none }
    if (isTemplate(datapath, i)) count.persistent++
    else count[(conns.flags(i) & LbConnFlag.CONN_INACTIVE) === 0 ? 'active' : 'inactive']++
    counts.set(conns.server(i), count)
  }
  const text = (of: typeof none) => `${of.active}/${of.inactive}/${of.persistent}`
  for (let server = 1; server < Math.min(serverMax, serverStates.length); server++) {
    const want = text(counts.get(server) ?? none)
    const is = text({
      active: serverStates.active(server),
      inactive: serverStates.inactive(server),
      persistent: serverStates.persistent(server),
    })
    if (is !== want) problems.push(`server ${server} counts ${is}, has ${want}`)
  }
}

function isTemplate({ maps }: Datapath, i: number): boolean {
  return (maps.conns.proto(i) & LbTemplate.TEMPLATE) !== 0
}

/** The second entry of a masqueraded connection. */
function isReturn({ maps }: Datapath, i: number): boolean {
  return maps.conns.fwd(i) === LbFwd.FWD_RETURN
}

/** A masqueraded connection has its second entry, and one that has no connection is over, or waits with its server; how many have. */
function checkReturns(datapath: Datapath, entries: readonly number[], problems: string[]): number {
  const { conns } = datapath.maps
  const belongs = (i: number, second: number) => conns.hop(i) === second + 1 && conns.control(second) === i + 1
  let masqueraded = 0
  for (const i of entries) {
    if (isReturn(datapath, i)) {
      const main = conns.control(i) - 1
      const lives = main >= 0 && conns.af(main) !== 0 && !isReturn(datapath, main) && belongs(main, i)
      const waits = conns.state(i) === LbState.TCP_TIME_WAIT
      if (!lives && !waits && ((conns.expires(i) - datapath.tick()) | 0) > 0)
        problems.push(`second entry ${i} is nobody's`)
    } else if (conns.fwd(i) === LbFwd.FWD_FULLNAT || conns.fwd(i) === LbFwd.FWD_HOST) {
      const second = conns.hop(i) - 1
      if (!isReturn(datapath, second) || !belongs(i, second) || conns.server(i) !== conns.server(second))
        problems.push(`masqueraded connection ${i} has no second entry`)
      masqueraded += 1
    }
  }
  return masqueraded
}

/** Each connection's template is one, and counts it. */
function checkControls(datapath: Datapath, entries: readonly number[], problems: string[]): void {
  const { conns } = datapath.maps
  const controlled = new Map<number, number>()
  for (const i of entries) {
    if (isTemplate(datapath, i) || isReturn(datapath, i) || conns.control(i) === 0) continue
    const template = conns.control(i) - 1
    controlled.set(template, (controlled.get(template) ?? 0) + 1)
    if (conns.af(template) === 0 || !isTemplate(datapath, template)) {
      problems.push(`connection ${i} has entry ${template} for its template`)
    } else if (addressOf(datapath, template) !== addressOf(datapath, i)) {
      problems.push(`connection ${i} is not at the server of its template ${template}`)
    }
  }
  for (const i of entries) {
    const due = controlled.get(i) ?? 0
    if (isTemplate(datapath, i) && conns.control(i) !== due) {
      problems.push(`template ${i} counts ${conns.control(i)} connections, has ${due}`)
    }
  }
}

/** Looks at the whole connection table. */
export function tableShape(datapath: Datapath): TableShape {
  const { maps, lines } = datapath
  const problems: string[] = []
  const model = new Model(datapath)
  const references = allReferences(datapath)
  const entries = datapath.entries()
  const spilled = entries.filter((i) => (maps.conns.flags(i) & LbConnFlag.CONN_SPILLED) !== 0)
  let inSecond = 0
  for (const i of entries) inSecond += takeReferences(model, datapath, i, references, problems)
  for (const reference of references) problems.push(`the index has a reference to nothing: ${reference}`)
  let counted = 0
  for (let line = 0; line < lines.length; line++) {
    counted += lines.spilled(line)
    if (lines.lock(line) !== 0) problems.push(`line ${line} is locked`)
  }
  if (counted !== spilled.length)
    problems.push(`lines count ${counted} spilled connections, there are ${spilled.length}`)
  const free = freeEntries(datapath, problems)
  const used = Math.min(maps.connPools.high(0), maps.conns.length)
  if (free.size + entries.length !== used) {
    problems.push(`${entries.length} entries in use and ${free.size} free do not make the ${used} ever used`)
  }
  for (const i of entries) if (free.has(i)) problems.push(`entry ${i} is in use and free`)
  checkCounts(datapath, entries, problems)
  checkControls(datapath, entries, problems)
  const masqueraded = checkReturns(datapath, entries, problems)
  const templates = entries.filter((i) => isTemplate(datapath, i)).length
  const connections = entries.length - templates
  return { problems, connections, templates, spilled: spilled.length, masqueraded, inSecond }
}

/** Of an entry's server. A template of one service leads to that server itself; one that services share, to its address. */
function addressOf(datapath: Datapath, i: number): string {
  const { conns, servers, services } = datapath.maps
  const server = conns.server(i)
  const shares = services.affinity(servers.service(server)) !== 0
  return shares ? servers.addr(server).join() : String(server)
}
