/** Which ports masqueraded connections are sent from, as the host is. */
import {
  formatPortRange,
  isReserved,
  isScarce,
  largestGap,
  metBy,
  type PortRange,
  portsToReserve,
  type TakenPorts,
  usualNodePorts,
} from '../model/masquerade-ports.ts'
import type { Log } from '../observe/log.ts'
import type { Host, ManagedTable } from './ports.ts'

/** What the choice depends on, beside what is in force. */
export interface PortChoice {
  readonly host: Pick<Host, 'kernelPorts' | 'reservePorts'>
  readonly log: Log
  /** As configured; absent: chosen here. */
  readonly wanted?: PortRange
  /** Node ports that are not where they usually are. */
  readonly nodePorts: readonly number[]
}

/** Sets what is configured; else what is in force stays, unless somebody else may come to use one of it. */
export function choosePorts(
  table: Pick<ManagedTable, 'settings' | 'changeSettings'>,
  { host, log, wanted, nodePorts }: PortChoice,
): void {
  const inForce = table.settings().masqueradePorts
  const others = nodePorts.map((port) => ({ what: 'a node port', first: port, last: port }))
  const taken = [...host.kernelPorts(), usualNodePorts, ...others]
  if (wanted !== undefined) {
    const met = metBy(wanted, others)
    if (met !== undefined) log.warn({ port: met.first }, 'a node port is among masqueradePorts')
  }
  const isFree =
    inForce !== undefined && (isReserved(inForce, taken) || (metBy(inForce, taken) === undefined && !isScarce(inForce)))
  const ports = wanted ?? (isFree ? inForce : spare(taken, host, log))
  if (ports === undefined) {
    log.error({ taken: taken.map((each) => `${each.what} ${formatPortRange(each)}`) }, 'no ports to masquerade with')
  } else if (inForce?.first !== ports.first || inForce.last !== ports.last) {
    table.changeSettings({ masqueradePorts: ports })
    log.info({ ports: formatPortRange(ports) }, 'ports of masqueraded connections')
  }
}

/** Ports that nobody else may come to use. Where there are hardly any, the kernel is asked for some that it gives out. */
function spare(taken: readonly TakenPorts[], host: PortChoice['host'], log: Log): PortRange | undefined {
  const gap = largestGap(taken)
  const wanted = isScarce(gap) ? portsToReserve(taken) : undefined
  if (wanted === undefined) return gap
  try {
    host.reservePorts(wanted)
    return wanted
  } catch (err) {
    log.error({ err, ports: formatPortRange(wanted) }, 'no ports could be reserved to masquerade with')
    return gap
  }
}
