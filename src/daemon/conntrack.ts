/** The kernel's connection tracking as kube-proxy's configuration wants it. bpvs has a table of its own; others use this one. */
import type { KubeProxyConfiguration } from '../config/kube-proxy/fields.ts'
import { nsPerS } from '../config/kube-proxy/duration.ts'
import type { Log } from '../observe/log.ts'

const netfilter = '/proc/sys/net/netfilter'
const hashSize = '/sys/module/nf_conntrack/parameters/hashsize'
/** kube-proxy asks for no more, however many cores there are. */
const mostEntries = 1_048_576

/** A file of the kernel's and what it is to hold. */
export interface KernelValue {
  readonly path: string
  readonly value: number
  /** More is fine. */
  readonly atLeast?: true
}

/** Pure: what is to be set, in this order. What the configuration leaves at 0 stays as it is. */
export function conntrackValues(configuration: KubeProxyConfiguration, cores: number): KernelValue[] {
  const values: KernelValue[] = []
  const perCore = configuration['conntrack.maxPerCore']
  if (perCore > 0) {
    const entries = Math.max(Math.min(perCore * cores, mostEntries), configuration['conntrack.min'])
    values.push({ path: `${netfilter}/nf_conntrack_max`, value: entries })
    values.push({ path: hashSize, value: Math.floor(entries / 4), atLeast: true })
  }
  const timeouts = [
    ['conntrack.tcpEstablishedTimeout', 'nf_conntrack_tcp_timeout_established'],
    ['conntrack.tcpCloseWaitTimeout', 'nf_conntrack_tcp_timeout_close_wait'],
    ['conntrack.udpTimeout', 'nf_conntrack_udp_timeout'],
    ['conntrack.udpStreamTimeout', 'nf_conntrack_udp_timeout_stream'],
  ] as const
  for (const [field, name] of timeouts) {
    const seconds = Math.floor(configuration[field] / nsPerS)
    if (seconds > 0) values.push({ path: `${netfilter}/${name}`, value: seconds })
  }
  if (configuration['conntrack.tcpBeLiberal'])
    values.push({ path: `${netfilter}/nf_conntrack_tcp_be_liberal`, value: 1 })
  return values
}

export interface KernelFiles {
  /** Throws as fs does. */
  readonly read: (path: string) => string
  readonly write: (path: string, text: string) => void
}

/** Sets what differs. Without connection tracking in the kernel there is nothing to set; what fails is said. */
export function setKernelValues(values: readonly KernelValue[], { read, write }: KernelFiles, log: Log): void {
  for (const { path, value, atLeast } of values) {
    let before: number
    try {
      before = Number(read(path))
    } catch {
      log.debug({ path }, 'not there')
      continue
    }
    if (before === value || (atLeast === true && before >= value)) continue
    try {
      write(path, String(value))
      log.info({ path, value, before }, 'set')
    } catch (err) {
      log.warn({ path, value, before, err }, 'cannot set')
    }
  }
}
