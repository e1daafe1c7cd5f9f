/** What a resource of the admin API is, and what it acts on. */
import type { Table } from '../../engine/table.ts'
import { LbError } from '../../model/errors.ts'
import type { Schema } from './schemas.ts'
import type { OwnerOf } from './views.ts'

/** A program's place; `mode` tells how it is attached. */
export interface Hook {
  readonly ifindex: number
  readonly interface: string
  readonly hook: string
  readonly mode: string
}

/** What the admin API acts on. */
export interface AdminTarget {
  /** The table of the namespace; undefined: there is none at present. */
  readonly table: () => Table | undefined
  readonly ownerOf: OwnerOf
  /** Whether a sync daemon runs: its records have one family for both ends of a connection. */
  readonly syncs: () => boolean
  /** Ends the sockets whose connections are to end, as far as that can be done. */
  readonly endSockets: () => void
  /** Programs and where they are attached. */
  readonly hooks: () => readonly Hook[]
  /** Packets refused, dropped or otherwise noted. */
  readonly verdicts: () => readonly { readonly name: string; readonly count: bigint }[]
  readonly healthy: () => boolean
  /** Of bpvsd's own options, and of kube-proxy's: what is in force. */
  readonly configuration: { readonly bpvs: object; readonly kubeProxy: object }
  /** Of bpvs. */
  readonly version: string
}

/** A request of which everything that has a schema was checked. */
export interface AdminRequest {
  readonly params: Readonly<Record<'service' | 'server' | 'connection', string>>
  readonly query: Readonly<Record<string, string | number>>
  readonly body: unknown
  readonly ifMatch: string | undefined
}

export interface AdminAnswer {
  readonly body?: object
  readonly tag?: string
  /** Path of what was made. */
  readonly location?: string
}

export interface Route {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** With parameters as `:service`. */
  readonly url: string
  readonly id: string
  readonly summary: string
  readonly query?: Schema
  readonly body?: Schema
  readonly status: 200 | 201 | 204
  /** Absent: no body. */
  readonly answer?: Schema
  /** Statuses of problems, beside those that every request may have. */
  readonly problems: readonly number[]
  run(target: AdminTarget, request: AdminRequest): AdminAnswer
}

/** NO_TABLE. */
export function tableOf({ table }: AdminTarget): Table {
  const found = table()
  if (found === undefined) throw new LbError('NO_TABLE')
  return found
}
