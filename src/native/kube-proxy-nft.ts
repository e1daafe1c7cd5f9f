/**
 * What kube-proxy has of nftables in the calling thread's network namespace: its own tables, its chains of iptables (as nftables
 * has them).
 */
import { LbError } from '../model/errors.ts'
import { errno } from './library.ts'
import {
  attribute,
  families,
  type Message,
  netlinkRequest,
  readAttributes,
  textOf,
  writeAttribute,
  writeMessage,
  writeNested,
  writeNumber,
} from './netlink.ts'

/** Chains of kube-proxy's modes; those of kubelet (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) are left alone. */
export const ownChain =
  /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY|LOAD-BALANCER|NODE-PORT|IPVS-FILTER|IPVS-OUT-FILTER|SOURCE-RANGES-FIREWALL|(SVC|SVL|EXT|FW|SEP|XLB)-.+)$/
const ownTable = 'kube-proxy'
/** Where a new connection meets kube-proxy's iptables and ipvs modes. */
export const entryChain = 'KUBE-SERVICES'
/**
 * A table of ours, whose chain of NAT has one rule that looks at connection tracking and does nothing: without such a chain, or
 * anybody who asks for connections, the kernel would translate no more, not even what it has begun.
 */
const keeper = { table: 'bpvs-handover', chain: 'nat' } as const

/** Families of nftables: ip, ip6. */
const nftFamilies = [2, 10] as const

const NFTABLES = 10
const nft = (message: number): number => (NFTABLES << 8) | message
const type = {
  newTable: nft(0),
  getTable: nft(1),
  delTable: nft(2),
  newChain: nft(3),
  getChain: nft(4),
  delChain: nft(5),
  newRule: nft(6),
  getRule: nft(7),
  delRule: nft(8),
}
const batch = { begin: 0x10, end: 0x11 } as const
const NFGENMSG = 4
const tableAttribute = { name: 1 } as const
const chainAttribute = { table: 1, name: 3, hook: 4, type: 7 } as const
const hookAttribute = { number: 1, priority: 2 } as const
const ctAttribute = { register: 1, key: 2 } as const
const PREROUTING = 0
const CT_STATE = 0
const ruleAttribute = { table: 1, chain: 2, handle: 3, expressions: 4 } as const

interface Chain {
  readonly table: string
  readonly name: string
}

/** How many of each were removed. */
export interface RemovedRules {
  readonly tables: number
  readonly chains: number
}

/** Which of its modes left something: its own tables, or the chain where connections meet iptables' ones. NATIVE, PERMISSION. */
export function findNftRules(): { readonly tables: boolean; readonly chains: boolean } {
  const tables = (name: string): boolean =>
    nftFamilies.some((family) =>
      exists(family, type.getTable, 'NFT_MSG_GETTABLE', [writeAttribute(tableAttribute.name, name)]),
    )
  const chain = [writeAttribute(chainAttribute.table, 'nat'), writeAttribute(chainAttribute.name, entryChain)]
  return {
    tables: tables(ownTable),
    chains: nftFamilies.some((family) => exists(family, type.getChain, 'NFT_MSG_GETCHAIN', chain)),
  }
}

/** Sees to it that connections which are translated go on, whatever rules go, until forgetNat(). NATIVE, PERMISSION. */
export function keepNat(): void {
  for (const family of nftFamilies) commit(family, keeperOf(family))
}

/** Removes all of it. NATIVE, PERMISSION. */
export function removeNftRules(): RemovedRules {
  let [tables, chains] = [0, 0]
  for (const family of nftFamilies) {
    const changes = plan(family)
    tables += changes.tables.length
    chains += changes.chains.length
    commit(family, [...changes.rules, ...changes.chains, ...changes.tables].flat())
  }
  return { tables, chains }
}

/** Nothing is left that the kernel has to go on translating for our sake; whether there was. NATIVE, PERMISSION. */
export function forgetNat(): boolean {
  const name = writeAttribute(tableAttribute.name, keeper.table)
  const kept = nftFamilies.filter((family) => exists(family, type.getTable, 'NFT_MSG_GETTABLE', [name]))
  for (const family of kept) commit(family, [writeMessage(type.delTable, 'request', genmsg(family), name)])
  return kept.length > 0
}

/** Anew: there may be one. */
function keeperOf(family: number): Buffer[] {
  const table = writeAttribute(tableAttribute.name, keeper.table)
  const hook = [writeNumber(hookAttribute.number, PREROUTING), writeNumber(hookAttribute.priority, 0)]
  const state = [writeNumber(ctAttribute.register, 1), writeNumber(ctAttribute.key, CT_STATE)]
  const expression = [writeAttribute(1, 'ct'), writeNested(2, ...state)]
  const make = (message: number, ...attributes: readonly Buffer[]): Buffer => {
    return writeMessage(message, 'creation', genmsg(family), ...attributes)
  }
  return [
    make(type.newTable, table),
    writeMessage(type.delTable, 'request', genmsg(family), table),
    make(type.newTable, table),
    make(
      type.newChain,
      writeAttribute(chainAttribute.table, keeper.table),
      writeAttribute(chainAttribute.name, keeper.chain),
      writeNested(chainAttribute.hook, ...hook),
      writeAttribute(chainAttribute.type, 'nat'),
    ),
    make(
      type.newRule,
      writeAttribute(ruleAttribute.table, keeper.table),
      writeAttribute(ruleAttribute.chain, keeper.chain),
      writeNested(ruleAttribute.expressions, writeNested(1, ...expression)),
    ),
  ]
}

function exists(family: number, message: number, call: string, attributes: readonly Buffer[]): boolean {
  try {
    return (
      netlinkRequest(families.netfilter, call, writeMessage(message, 'request', genmsg(family), ...attributes)) !==
      undefined
    )
  } catch (error) {
    if (error instanceof LbError && error.detail.errno === errno.ENOENT) return false
    throw error
  }
}

function genmsg(family: number, resource = 0): Buffer {
  return Buffer.from([family, 0, resource >> 8, resource & 255])
}

function dump(family: number, message: number, call: string, ...attributes: readonly Buffer[]): Message[] {
  return netlinkRequest(families.netfilter, call, writeMessage(message, 'dump', genmsg(family), ...attributes)) ?? []
}

/** The messages that remove it, in their order: rules that lead to its chains, what is in these, the chains. */
function plan(family: number): { readonly rules: Buffer[]; readonly chains: Buffer[][]; readonly tables: Buffer[] } {
  const tables = tablesOf(family)
  const others = tables.filter((name) => name !== ownTable)
  const found = others.length === 0 ? [] : chainsOf(family)
  const chains = found.filter(({ table, name }) => table !== ownTable && ownChain.test(name))
  const affected = new Set(chains.map(({ table }) => table))
  const foreign = found.filter(({ table, name }) => affected.has(table) && !ownChain.test(name))
  const jumps = foreign.flatMap((chain) => jumpsOf(family, chain))
  const flushes = chains.map((chain) => ruleMessage(family, chain))
  return {
    rules: [...jumps, ...flushes],
    chains: chains.map(({ table, name }) => [
      writeMessage(
        type.delChain,
        'request',
        genmsg(family),
        writeAttribute(chainAttribute.table, table),
        writeAttribute(chainAttribute.name, name),
      ),
    ]),
    tables: tables
      .filter((name) => name === ownTable)
      .map((name) => writeMessage(type.delTable, 'request', genmsg(family), writeAttribute(tableAttribute.name, name))),
  }
}

function tablesOf(family: number): string[] {
  return dump(family, type.getTable, 'NFT_MSG_GETTABLE').map(({ body }) =>
    textOf(attribute(body, tableAttribute.name, NFGENMSG)),
  )
}

function chainsOf(family: number): Chain[] {
  return dump(family, type.getChain, 'NFT_MSG_GETCHAIN').map(({ body }) => ({
    table: textOf(attribute(body, chainAttribute.table, NFGENMSG)),
    name: textOf(attribute(body, chainAttribute.name, NFGENMSG)),
  }))
}

/** Removal of one rule, by its handle, or of all that the chain has. */
function ruleMessage(family: number, { table, name }: Chain, handle?: Buffer): Buffer {
  return writeMessage(
    type.delRule,
    'request',
    genmsg(family),
    writeAttribute(ruleAttribute.table, table),
    writeAttribute(ruleAttribute.chain, name),
    ...(handle === undefined ? [] : [writeAttribute(ruleAttribute.handle, handle)]),
  )
}

/** Removals of the rules of somebody else's chain that lead to kube-proxy's. */
function jumpsOf(family: number, chain: Chain): Buffer[] {
  const named = [writeAttribute(ruleAttribute.table, chain.table), writeAttribute(ruleAttribute.chain, chain.name)]
  return dump(family, type.getRule, 'NFT_MSG_GETRULE', ...named).flatMap(({ body }) => {
    const target = targetOf(attribute(body, ruleAttribute.expressions, NFGENMSG))
    const handle = attribute(body, ruleAttribute.handle, NFGENMSG)
    return ownChain.test(target) && handle !== undefined ? [ruleMessage(family, chain, handle)] : []
  })
}

/** The chain that a rule leads to; '': none. Expressions hold the verdict as immediate data. */
function targetOf(expressions: Buffer | undefined): string {
  for (const { value } of expressions === undefined ? [] : readAttributes(expressions)) {
    if (textOf(attribute(value, 1)) !== 'immediate') continue
    const path = [2, 2, 2, 2] /* the expression's data, the immediate's, its verdict, the verdict's chain */
    const chain = path.reduce<Buffer | undefined>((at, step) => at && attribute(at, step), value)
    if (chain !== undefined) return textOf(chain)
  }
  return ''
}

/** All changes or none. */
function commit(family: number, changes: readonly Buffer[]): void {
  if (changes.length === 0) return
  const [begin, end] = [batch.begin, batch.end].map((each) =>
    writeMessage(each, 'request', genmsg(family, NFTABLES)),
  ) as [Buffer, Buffer]
  netlinkRequest(families.netfilter, 'NFT_MSG_DEL', begin, ...changes, end)
}
