/** What kube-proxy has in the kernel, in the calling thread's network namespace, in any of its modes: found, and removed. */
import { existsSync, readFileSync } from 'node:fs'
import { countTranslated } from './conntrack.ts'
import { deleteLink, listInterfaces } from './interfaces.ts'
import { removeSets } from './ipsets.ts'
import {
  entryChain,
  findNftRules,
  forgetNat,
  keepNat,
  ownChain,
  type RemovedRules,
  removeNftRules,
} from './kube-proxy-nft.ts'
import { attribute, families, netlinkRequest, shortOf, writeAttribute, writeMessage } from './netlink.ts'
import { hasLegacyChain, removeLegacyChains } from './xtables.ts'

export { forgetNat } from './kube-proxy-nft.ts'

const ownInterface = 'kube-ipvs0'
const ownSet = /^KUBE-/

/** What takes connections: kube-proxy's tables of nftables, its chains of iptables (by nftables or legacy), IPVS. */
export type ProxyTrace = 'nftables' | 'iptables' | 'iptables-legacy' | 'ipvs'

/** What there is of it. NATIVE, PERMISSION. */
export function findKubeProxy(): ProxyTrace[] {
  const { tables, chains } = findNftRules()
  return [
    ...(tables ? ['nftables' as const] : []),
    ...(chains ? ['iptables' as const] : []),
    ...(hasLegacyChain(entryChain) ? ['iptables-legacy' as const] : []),
    ...(ipvsHasServices() ? ['ipvs' as const] : []),
  ]
}

/** What was removed, and what is left of its connections. */
export interface Removed extends RemovedRules {
  /** Of iptables-legacy. */
  readonly legacyChains: number
  readonly sets: number
  /** There is an IPVS in the kernel, and it is empty now. */
  readonly ipvsServices: boolean
  readonly interface: boolean
  /** Connections that ended with that: those of IPVS. */
  readonly ended: number
  /** Connections that connection tracking goes on translating. */
  readonly left: number
}

/** Removes all of it. NATIVE, PERMISSION. */
export function removeKubeProxy(): Removed {
  const left = countTranslated()
  const ended = ipvsConnections()
  if (left > 0) keepNat()
  else forgetNat()
  const rules = removeNftRules()
  const legacyChains = removeLegacyChains((chain) => ownChain.test(chain))
  const sets = removeSets(ownSet)
  return { ...rules, legacyChains, sets, ipvsServices: flushIpvs(), interface: removeInterface(), ended, left }
}

const procNet = '/proc/thread-self/net/'

/** Lines of a file of IPVS behind its head; none where there is no IPVS. */
function ipvsLines(file: string, head: number): string[] {
  if (!existsSync(`${procNet}${file}`)) return []
  return readFileSync(`${procNet}${file}`, 'utf8').split('\n').slice(head, -1)
}

function ipvsHasServices(): boolean {
  return ipvsLines('ip_vs', 3).length > 0
}

/** Connections of IPVS that have not ended, and wait for no more than their time. */
export function ipvsConnections(): number {
  return ipvsLines('ip_vs_conn', 1).filter((line) => !/ (?:NONE|TIME_WAIT|CLOSE) /.test(line)).length
}

/** Whether there was an IPVS in the kernel. Asking for it where there is none would load it. */
function flushIpvs(): boolean {
  if (!existsSync(`${procNet}ip_vs`)) return false
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
