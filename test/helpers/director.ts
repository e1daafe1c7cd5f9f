/** bpvs in a topology's director: its command, its table, what it counted, what it left in the kernel. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { check, hooks, openKernelTable, verdicts } from '../../src/engine/open.ts'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import type { CommandOptions, CommandResult } from '../../src/lab/command.ts'
import { projectFile } from '../../src/lab/project.ts'
import type { Topology } from '../../src/lab/topology.ts'
import type {
  Counters,
  Family,
  Protocol,
  Scheduler,
  ServerSpec,
  ServerView,
  ServiceKey,
  ServiceSpec,
  ServiceView,
} from '../../src/model/types.ts'
import { findTablesDir, tableName } from '../../src/native/bpffs.ts'
import { closeFd, linkInfo, openPin } from '../../src/native/shim.ts'

export const bpvsadm = projectFile('bin/bpvsadm')

function familyOf(address: string): Family {
  return address.includes(':') ? 6 : 4
}

/** A virtual service by address; TCP unless said otherwise. */
export function virtual(address: string, port: number, protocol: Protocol = 'tcp'): ServiceKey {
  return { kind: 'address', family: familyOf(address), protocol, address, port }
}

export function service(key: ServiceKey, scheduler: Scheduler = 'rr'): ServiceSpec {
  return { key, scheduler, schedulerFlags: [], onePacket: false }
}

/** A real server behind NAT. */
export function real(address: string, port: number, weight = 1): ServerSpec {
  return { family: familyOf(address), address, port, weight, method: 'masq', upper: 0, lower: 0 }
}

/** An address and a port as the command line writes them: 10.96.0.1:80, [fd00:96::1]:80. */
export function endpoint({ address, port }: { readonly address: string; readonly port: number }): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** Sums of counters. */
export function total(counters: readonly Counters[]): Counters {
  const sum = (of: (each: Counters) => bigint): bigint => counters.reduce((all, each) => all + of(each), 0n)
  return {
    conns: sum((each) => each.conns),
    inPkts: sum((each) => each.inPkts),
    outPkts: sum((each) => each.outPkts),
    inBytes: sum((each) => each.inBytes),
    outBytes: sum((each) => each.outBytes),
  }
}

/** The one server at an address; throws when there is none. */
export function serverAt(view: ServiceView | undefined, address: string): ServerView {
  const found = view?.servers.find((server) => server.address === address)
  if (found === undefined) throw new Error(`the service has no server ${address}`)
  return found
}

export class Director {
  readonly #topology: Topology
  readonly #role: string

  constructor(topology: Topology, role = 'director') {
    this.#topology = topology
    this.#role = role
  }

  /** Runs bpvsadm with words separated by blanks; a status other than 0 is for the caller to judge. */
  adm(line: string, options?: CommandOptions): Promise<CommandResult> {
    return this.#topology.exec(this.#role, bpvsadm, line.split(' '), { timeoutMs: 180_000, ...options })
  }

  /** Runs bpvsadm, which has to succeed, and returns its output. */
  must(line: string): Promise<string> {
    return this.#topology.must(this.#role, bpvsadm, line.split(' '), { timeoutMs: 180_000 })
  }

  /** Opens the table, or makes it; whoever opens it closes it. */
  open(): ReconcilingTable {
    const table = this.within(() => openKernelTable({ create: true }))
    if (table === undefined) throw new Error('the table was unloaded while it was opened')
    return table
  }

  /** Runs synchronous code in the director's namespace. */
  within<T>(work: () => T): T {
    return this.#topology.within(this.#role, work)
  }

  /** Does something with the table as it is; throws when there is none. */
  table<T>(work: (table: ReconcilingTable) => T): T {
    return this.within(() => {
      const table = openKernelTable({ create: false })
      if (table === undefined) throw new Error(`${this.#role} has no table`)
      try {
        return work(table)
      } finally {
        table.close()
      }
    })
  }

  service(key: ServiceKey): ServiceView {
    const view = this.table((table) => table.service(key))
    if (view === undefined) throw new Error(`${this.#role} has no service ${JSON.stringify(key)}`)
    return view
  }

  /** Packets counted under a verdict. */
  verdict(name: string): number {
    const found = this.within(verdicts).find((each) => each.name === name)
    if (found === undefined) throw new Error(`no verdict ${name}`)
    return Number(found.count)
  }

  /** "interface hook kind" of every attached program, sorted. */
  hooks(): string[] {
    return this.within(hooks)
      .map((each) => `${each.interface} ${each.hook} ${each.mode}`)
      .sort()
  }

  /** Contradictions in the table. */
  check(): string[] {
    return this.within(check)
  }

  /** The directory of this namespace's pins, whether or not it exists; undefined when nothing is pinned at all. */
  pins(): { readonly path: string; readonly present: boolean } | undefined {
    return this.within(() => {
      const tables = findTablesDir()
      if (tables === undefined) return undefined
      const path = join(tables, tableName())
      return { path, present: existsSync(path) }
    })
  }

  /** Ids of the programs in the pinned links: one for each interface and hook. */
  programs(): number[] {
    const { path = '', present = false } = this.pins() ?? {}
    const links = present ? readdirSync(path).filter((name) => name.startsWith('link-')) : []
    return links.map((name) => {
      const link = openPin(join(path, name))
      try {
        return linkInfo(link).programId
      } finally {
        closeFd(link)
      }
    })
  }
}
