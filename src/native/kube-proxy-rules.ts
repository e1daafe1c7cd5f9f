/**
 * What kube-proxy leaves in the kernel, in the calling thread's network namespace: its own tables of nftables, its chains of
 * iptables (as nftables has them), services of the kernel's IPVS, and the interface with their addresses.
 */
import { existsSync } from 'node:fs'
import { deleteLink, listInterfaces } from './interfaces.ts'
import {
  attribute,
  families,
  type Message,
  netlinkRequest,
  readAttributes,
  shortOf,
  textOf,
  writeAttribute,
  writeMessage,
} from './netlink.ts'

/** Chains of kube-proxy's modes; those of kubelet (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) are left alone. */
const ownChain =
  /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|POSTROUTING|MARK-MASQ|FORWARD|PROXY-FIREWALL|PROXY-CANARY|LOAD-BALANCER|NODE-PORT|IPVS-FILTER|IPVS-OUT-FILTER|SOURCE-RANGES-FIREWALL|(SVC|SVL|EXT|FW|SEP|XLB)-.+)$/
const ownTable = 'kube-proxy'
const ownInterface = 'kube-ipvs0'

/** Families of nftables: ip, ip6. */
const nftFamilies = [2, 10] as const

const NFTABLES = 10
const nft = (message: number): number => (NFTABLES << 8) | message
const type = {
  getTable: nft(1),
  delTable: nft(2),
  getChain: nft(4),
  delChain: nft(5),
  getRule: nft(7),
  delRule: nft(8),
}
const batch = { begin: 0x10, end: 0x11 } as const
const NFGENMSG = 4
const tableAttribute = { name: 1 } as const
const chainAttribute = { table: 1, name: 3 } as const
const ruleAttribute = { table: 1, chain: 2, handle: 3, expressions: 4 } as const

interface Chain {
  readonly table: string
  readonly name: string
}

/** What was removed. */
export interface Removed {
  readonly tables: number
  readonly chains: number
  readonly ipvsServices: boolean
  readonly interface: boolean
}

/** Removes all of it. NATIVE, PERMISSION. */
export function removeKubeProxyRules(): Removed {
  let [tables, chains] = [0, 0]
  for (const family of nftFamilies) {
    const changes = plan(family)
    tables += changes.tables.length
    chains += changes.chains.length
    commit(family, [...changes.rules, ...changes.chains, ...changes.tables].flat())
  }
  return { tables, chains, ipvsServices: flushIpvs(), interface: removeInterface() }
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

/** Whether there was an IPVS in the kernel. Asking for it where there is none would load it. */
function flushIpvs(): boolean {
  if (!existsSync('/proc/net/ip_vs')) return false
  const header = (command: number): Buffer => Buffer.from([command, 1, 0, 0])
  const ask = writeMessage(0x10, 'request', header(3), writeAttribute(2, 'IPVS')) /* CTRL_CMD_GETFAMILY */
  const [answer] = netlinkRequest(families.generic, 'CTRL_CMD_GETFAMILY', ask) ?? []
  if (answer === undefined) return false
  const id = shortOf(attribute(answer.body, 1, 4))
  netlinkRequest(families.generic, 'IPVS_CMD_FLUSH', writeMessage(id, 'acknowledged', header(17)))
  return true
}

function removeInterface(): boolean {
  const found = listInterfaces().find(({ name }) => name === ownInterface)
  if (found !== undefined) deleteLink(found)
  return found !== undefined
}
