/**
 * Sends packets that netfilter marks for a service to a veth of our own, at whose one end the program lb_tc_marked takes
 * them (bpf/marked.h). The veth is there as long as there is such a service. All is of the calling thread's namespace, and
 * every function makes whole what it finds half done.
 */
import { LbError } from '../model/errors.ts'
import { Attachments } from './attachments.ts'
import { deleteLink, listInterfaces, type NetworkInterface } from './interfaces.ts'
import { bind, check, errno, type Signature } from './library.ts'
import { isMarkVeth, markVeth } from './mark-veth.ts'
import { changeRule, listRules, planRules, steering } from './rules.ts'

/** A mark of packets of one family. */
export interface Mark {
  readonly family: 4 | 6
  readonly mark: number
}

interface Functions {
  bpvs_veth_make(name: string, peer: string, mac: Uint8Array): number
  bpvs_route_default(family: number, table: number, ifindex: number): number
}

const c = bind<Functions>({
  bpvs_veth_make: ['int', 'str', 'str', 'void *'],
  bpvs_route_default: ['int', 'uint32', 'uint32', 'int'],
} satisfies Record<keyof Functions, Signature>)

const families = [4, 6] as const

/**
 * Makes exactly the packets with these marks go to the veth; without marks nothing of it stays. `dir` has the pinned
 * program. NATIVE, PERMISSION.
 */
export function steer(dir: string, marks: readonly Mark[]): void {
  if (marks.length === 0) {
    unsteer(dir)
    return
  }
  const device = openVeth()
  new Attachments(dir).attach(device)
  for (const family of families) {
    const wanted = new Set(marks.filter((each) => each.family === family).map(({ mark }) => mark))
    if (wanted.size > 0) openRoute(family, device)
    changeRules(family, wanted)
  }
}

/** Takes rules, routes and veth away. */
export function unsteer(dir: string): void {
  for (const family of families) changeRules(family, new Set())
  for (const device of ownVeths()) {
    if (device.name !== markVeth.name) continue
    new Attachments(dir).detach(device.ifindex)
    deleteLink(device)
  }
}

function changeRules(family: 4 | 6, marks: ReadonlySet<number>): void {
  for (const change of planRules(family, listRules(family), marks)) changeRule(change)
}

function ownVeths(): NetworkInterface[] {
  return listInterfaces().filter(isMarkVeth)
}

/** The veth, made if it is not there or not whole. */
function openVeth(): NetworkInterface {
  const there = ownVeths()
  const known = there.find(({ name }) => name === markVeth.name)
  if (known !== undefined && there.length === 2 && there.every(({ up }) => up)) return known
  if (known !== undefined) deleteLink(known)
  check(c.bpvs_veth_make(markVeth.name, markVeth.peer, markVeth.mac), 'RTM_NEWLINK', markVeth.name)
  const made = ownVeths().find(({ name }) => name === markVeth.name)
  if (made === undefined) throw new LbError('NATIVE', `${markVeth.name} was removed as it was made`)
  return made
}

/** IPv6 that is switched off (EACCES) has no packets to send there. */
function openRoute(family: 4 | 6, { ifindex, name }: NetworkInterface): void {
  const result = c.bpvs_route_default(family, steering.table, ifindex)
  if (family === 6 && result === -errno.EACCES) return
  check(result, 'RTM_NEWROUTE', name)
}
