/** Taking things away for good: what bpvs made in this network namespace, or what kube-proxy left there. */
import type { Config } from '../config/schema.ts'
import { openKernelTable } from '../engine/open.ts'
import { forgetNat } from '../native/kube-proxy-nft.ts'
import { ipvsConnections, removeKubeProxy } from '../native/kube-proxy.ts'
import type { Log } from '../observe/log.ts'
import { handOver } from './hand-over.ts'
import { socketPolicy } from './sockets.ts'
import type { Host, Timers } from './ports.ts'

const lookMs = 1000

export interface CleanUpOptions {
  readonly config: Config
  readonly log: Log
  readonly timers: Timers
}

/** Removes what bpvs made. Before that its connections may end: what is new is the other proxy's meanwhile. */
export async function cleanUp({ config, log, timers }: CleanUpOptions, host: Host): Promise<void> {
  const waitS = config.cleanupWaitS
  const table = waitS > 0 ? openKernelTable({ create: false }) : undefined
  let left = {}
  if (table !== undefined) {
    host.balanceSockets({ ...socketPolicy(config), scope: 'off' })
    left = { connections: await handOver({ table, log, timers, waitS }) }
    table.close()
  }
  const found = host.unload()
  if (found) forgetNat()
  log.info({ found, ...left }, found ? 'unloaded' : 'nothing to unload')
}

/** Removes what kube-proxy left. Before that connections of the kernel's IPVS may end, which end with it. */
export async function cleanUpKubeProxy({ config, log, timers }: CleanUpOptions): Promise<void> {
  const end = timers.now() + config.cleanupWaitS * 1000
  const connections = ipvsConnections()
  if (connections > 0 && config.cleanupWaitS > 0)
    log.info({ connections, waitS: config.cleanupWaitS }, 'waiting for connections of IPVS')
  while (ipvsConnections() > 0 && timers.now() < end) {
    await new Promise<void>((resolve) => timers.after(Math.min(lookMs, end - timers.now()), resolve))
  }
  log.info(removeKubeProxy(), "kube-proxy's is removed")
}
