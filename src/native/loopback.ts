/**
 * Forwarding on the loopback interface. The programs ask the kernel how the host itself would send to a server as if the
 * packet came by lo, and the kernel answers only if lo may forward. Nothing else depends on it: what comes by lo is the
 * host's own. Direct routing and tunnels so work on a host that forwards nothing else, as with IPVS.
 */
import { readFileSync, writeFileSync } from 'node:fs'

const settings = ['ipv4', 'ipv6'].map((family) => `/proc/sys/net/${family}/conf/lo/forwarding`)

/**
 * Turns it on in the calling thread's namespace. Where that can't be (a kernel without IPv6, /proc/sys not writable) the
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
