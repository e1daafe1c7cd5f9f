/** The daemon's host: the kernel of this machine, in the network namespace of this process. */
import { statSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { openKernelTable } from '../engine/open.ts'
import type { ReconcilingTable } from '../engine/table.ts'
import { type IpAddress, parseIp } from '../kube/address.ts'
import { LbError } from '../model/errors.ts'
import { findTablesDir, tableName } from '../native/bpffs.ts'
import { settleTranslated } from '../native/conntrack.ts'
import { listInterfaces, watchInterfaces } from '../native/interfaces.ts'
import { findKubeProxy, forgetNat } from '../native/kube-proxy.ts'
import { kernelPorts, reservePorts } from '../native/local-ports.ts'
import { markVeth } from '../native/mark-veth.ts'
import { syncSockets, tableAttachments, unloadTable, upgradePrograms } from '../native/loader.ts'
import { defaultSizes } from '../native/sizes.ts'
import { endStuckSockets } from '../native/stuck-sockets.ts'
import type { Host } from './ports.ts'

/** The kernel as a Host, which others may ask for the table too. */
export interface KernelHost extends Host {
  /** The table opened last, as long as it is the namespace's. */
  currentTable(): ReconcilingTable | undefined
}

/** Nothing happens before its first call. */
export function kernelHost(): KernelHost {
  let opened: string | undefined
  let current: ReconcilingTable | undefined
  const tableIsCurrent = (): boolean => opened !== undefined && tableIdentity() === opened
  let stuck = 0
  return {
    openTable: ({ services, servers, connections }, policy) => {
      upgradePrograms()
      const cells = Math.max(defaultSizes.cells, 4 * servers, 2 * services)
      const table = openKernelTable({ create: true, sizes: { services, servers, cells, connections }, policy })
      if (table === undefined) throw new LbError('NATIVE', 'the table was unloaded while it was opened')
      opened = tableIdentity()
      current = table
      return table
    },
    tableIsCurrent,
    currentTable: () => (tableIsCurrent() ? current : undefined),
    attachInterfaces: (policy) => {
      const attachments = tableAttachments()
      if (attachments === undefined) throw new LbError('NATIVE', 'there is no table to attach')
      return attachments.sync(policy)
    },
    balanceSockets: syncSockets,
    endStuckSockets: ({ scope }) => {
      const { ended, left } = endStuckSockets(scope === 'all', stuck)
      stuck = left
      return ended
    },
    localAddresses,
    listInterfaces: () => listInterfaces().filter(({ name }) => name !== markVeth.name && name !== markVeth.peer),
    kernelPorts,
    reservePorts,
    findProxy: findKubeProxy,
    settleTranslated,
    forgetTranslated: forgetNat,
    onLinkChange: watchInterfaces,
    unload: unloadTable,
  }
}

function localAddresses(): IpAddress[] {
  const others = Object.entries(networkInterfaces()).filter(
    ([name]) => name !== markVeth.name && name !== markVeth.peer,
  )
  return others.flatMap(([, addresses]) => addresses ?? []).flatMap(({ address }) => parseIp(address) ?? [])
}

/** Tells one table of this namespace from the next: the inode of its directory. Undefined: there is none. */
function tableIdentity(): string | undefined {
  const tables = findTablesDir()
  if (tables === undefined) return undefined
  return statSync(join(tables, tableName()), { bigint: true, throwIfNoEntry: false })?.ino.toString()
}
