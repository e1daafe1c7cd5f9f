/** Output of the commands that only bpvs has. Pure. */
import { formatPortRange, type PortRange } from '../model/masquerade-ports.ts'
import type { TunableRequest } from '../model/settings.ts'
import type { RunningSyncDaemon } from '../sync/options.ts'
import type { Hook } from './session.ts'

/** One line per attached program, under a header. */
export function formatHooks(hooks: readonly Hook[]): string {
  const rows = hooks.map((hook) => [hook.interface, String(hook.ifindex), hook.hook, hook.mode])
  return formatColumns([['Interface', 'Index', 'Hook', 'Mode'], ...rows])
}

/** One line per reason that has been counted. */
export function formatVerdicts(verdicts: readonly { readonly name: string; readonly count: bigint }[]): string {
  return formatColumns([['Verdict', 'Packets'], ...verdicts.map((verdict) => [verdict.name, String(verdict.count)])])
}

/** One line per sync daemon that runs. */
export function formatSyncDaemons(daemons: readonly RunningSyncDaemon[]): string {
  const header = ['Daemon', 'Interface', 'SyncId', 'Messages', 'Connections', 'Refused', 'Failed', 'Waiting']
  const rows = daemons.map(({ role, interface: name, syncId, counters }) => {
    const { messages, connections, refused, failed, waiting } = counters
    return [role, name, String(syncId), ...[messages, connections, refused, failed, waiting].map(String)]
  })
  return formatColumns([header, ...rows])
}

/** A line each, as sysctl prints it. */
export function formatTunables(values: readonly Required<TunableRequest>[]): string {
  return values.map(({ name, value }) => `net.ipv4.vs.${name} = ${value}\n`).join('')
}

/** `none` where no masqueraded connection can be made. */
export function formatPorts(ports: PortRange | undefined): string {
  return `${ports === undefined ? 'none' : formatPortRange(ports)}\n`
}

/** Rows with columns as wide as their widest word; no blanks at line ends. */
function formatColumns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, index) => Math.max(...rows.map((row) => row[index]?.length ?? 0)))
  return rows
    .map(
      (row) =>
        `${row
          .map((word, index) => word.padEnd(widths[index] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}
