/** Sets of the kernel (ipset) in the calling thread's network namespace: those of a name are removed. */
import { existsSync } from 'node:fs'
import { LbError } from '../model/errors.ts'
import { attribute, families, netlinkRequest, textOf, writeAttribute, writeMessage, writeNumber } from './netlink.ts'

const ipset = (command: number): number => (6 << 8) | command /* of NFNL_SUBSYS_IPSET */
const type = { destroy: ipset(3), list: ipset(7) } as const
const at = { protocol: 1, name: 2, flags: 6 } as const
const NFGENMSG = 4
/** The oldest that every kernel speaks. */
const protocol = writeAttribute(at.protocol, Buffer.from([6]))
const NAMES_ONLY = 1 << 1
/** IPSET_ERR_BUSY: rules name it, or did until just now. */
const BUSY = 4100
const RETRY_MS = 50
const RETRIES = 40

/** Removes all whose name matches; how many. Where there is no ipset in the kernel there are none. NATIVE, PERMISSION. */
export function removeSets(name: RegExp): number {
  if (!existsSync('/sys/module/ip_set')) return 0
  const found = setNames().filter((each) => name.test(each))
  for (const each of found) destroy(each)
  return found.length
}

function setNames(): string[] {
  const flags = writeNumber(at.flags, NAMES_ONLY)
  const ask = writeMessage(type.list, 'dump', Buffer.alloc(NFGENMSG), protocol, flags)
  const answers = netlinkRequest(families.netfilter, 'IPSET_CMD_LIST', ask) ?? []
  return answers.map(({ body }) => textOf(attribute(body, at.name, NFGENMSG)))
}

/** Rules that were just removed let go of their sets a little later. */
function destroy(name: string): void {
  const message = writeMessage(
    type.destroy,
    'acknowledged',
    Buffer.alloc(NFGENMSG),
    protocol,
    writeAttribute(at.name, name),
  )
  for (let left = RETRIES; ; left--) {
    try {
      netlinkRequest(families.netfilter, 'IPSET_CMD_DESTROY', message)
      return
    } catch (error) {
      if (!(error instanceof LbError) || error.detail.errno !== BUSY || left === 0) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS)
    }
  }
}
