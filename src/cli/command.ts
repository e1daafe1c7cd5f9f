/** A command line, understood: what parse.ts makes and run.ts does. */
import type { PortRange } from '../model/masquerade-ports.ts'
import type { BypassMode, HandoverMode, TunableRequest } from '../model/settings.ts'
import type { MarkRule, ServerKey, ServerSpec, ServiceKey, ServiceSpec, Timeouts } from '../model/types.ts'
import type { SyncDaemonRequest, SyncRole } from '../sync/options.ts'
import type { ListingColumns } from './format-listing.ts'
import type { ProcFile } from './format-proc.ts'
import type { OwnCommandName } from './options.ts'

/** A service as it was asked for: its scheduler and persistence engine may be names that nobody knows. */
export interface ServiceRequest extends Omit<ServiceSpec, 'scheduler'> {
  readonly scheduler: string
  readonly engine?: string
}

export interface ListCommand {
  readonly do: 'list'
  readonly what: 'table' | 'service' | 'connections' | 'timeouts' | 'daemons'
  readonly service?: ServiceKey
  readonly columns: ListingColumns
  /** Connections: show the persistence engine's columns. */
  readonly engines: boolean
  readonly numeric: boolean
  readonly exact: boolean
  readonly sorted: boolean
  /** Also servers that clients in pods and on the host itself get instead. */
  readonly insiders: boolean
}

export interface MarkRuleCommand {
  readonly do: 'mark-rule'
  readonly edit: 'add' | 'delete'
  readonly rule: MarkRule
}

export type Command =
  | { readonly do: 'add-service' | 'edit-service'; readonly service: ServiceRequest }
  | { readonly do: 'delete-service'; readonly service: ServiceKey }
  | { readonly do: 'add-server' | 'edit-server'; readonly service: ServiceKey; readonly server: ServerSpec }
  | { readonly do: 'delete-server'; readonly service: ServiceKey; readonly server: ServerKey }
  | { readonly do: 'flush' }
  | { readonly do: 'restore' }
  | { readonly do: 'help' | 'version' | 'bpvs-help' }
  | {
      readonly do: Exclude<
        OwnCommandName,
        'bpvs-help' | 'mark-rule' | 'sysctl' | 'bypass' | 'handover' | 'masquerade-ports' | 'proc'
      >
    }
  /** No requests: all are listed. */
  | { readonly do: 'sysctl'; readonly requests: readonly TunableRequest[] }
  | { readonly do: 'proc'; readonly file: ProcFile }
  /** No range: it is shown. */
  | { readonly do: 'masquerade-ports'; readonly ports?: PortRange }
  /** No mode: it is shown. */
  | { readonly do: 'bypass'; readonly mode?: BypassMode }
  | { readonly do: 'handover'; readonly mode?: HandoverMode }
  | MarkRuleCommand
  | ListCommand
  | { readonly do: 'save'; readonly numeric: boolean }
  | { readonly do: 'zero'; readonly service?: ServiceKey }
  | { readonly do: 'set'; readonly timeouts: Timeouts }
  | { readonly do: 'start-daemon'; readonly daemon: SyncDaemonRequest }
  | { readonly do: 'stop-daemon'; readonly role: SyncRole }

/** A command that prints nothing when it succeeds. */
export type ChangeCommand = Extract<
  Command,
  {
    readonly do:
      | `${'add' | 'edit' | 'delete'}-${'service' | 'server'}`
      | 'flush'
      | 'zero'
      | 'set'
      | `${'start' | 'stop'}-daemon`
  }
>
