/**
 * Settings of the loopback interface; nothing else depends on them, as what comes by lo is the host's own.
 *
 * forwarding: the programs ask the kernel how the host itself would send to a server as if the packet came by lo, and the
 * kernel answers only if lo may forward. Direct routing and tunnels so work on a host that forwards nothing else, as with
 * IPVS. accept_local: what a server answers to the host's own call of one of its addresses is given to the host on lo, with
 * that address for a source.
 */
import { readFileSync, writeFileSync } from 'node:fs'

const settings = ['ipv4/conf/lo/forwarding', 'ipv6/conf/lo/forwarding', 'ipv4/conf/lo/accept_local'].map(
  (name) => `/proc/sys/net/${name}`,
)

/**
 * Turns them on in the calling thread's namespace. Where that can't be (a kernel without IPv6, /proc/sys not writable) the
 * programs ask by the interface that a packet came by, which then has to forward.
 */
export function openLoopback(): void {
  for (const file of settings) {
    try {
      if (readFileSync(file, 'utf8').trim() === '0') writeFileSync(file, '1')
    } catch {
      /* See above: the programs have another way. */
    }
  }
}
