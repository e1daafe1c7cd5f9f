/** bpvsd on the node of kube-proxy's matrix, with its configuration and its objects. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TestApiServer } from './api-server.ts'
import { Daemon } from './daemon.ts'
import { objects } from './kube-matrix.ts'
import type { KubeNet } from './kube-net.ts'

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

const kinds = { services: 'Service', endpointSlices: 'EndpointSlice', nodes: 'Node' } as const

const rules = `table inet guard {
  chain input { type filter hook input priority 0; ct state invalid counter drop; }
  chain output { type filter hook output priority 0; ct state invalid counter drop; }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter drop
    ip saddr 10.128.0.0/9 accept
    ip daddr 10.128.0.0/9 accept
    ip6 saddr fd00:128::/31 accept
    ip6 daddr fd00:128::/31 accept
  }
}
`

/** Puts rules on the node that drop what connection tracking finds invalid, and forward only from and to pods. */
export async function guard(net: KubeNet): Promise<void> {
  await net.topology.must('director', 'nft', ['-f', '-'], { input: rules })
}

/** An API server on the node, that knows its Node, and of the rest nothing. */
export async function startApi(t: Teardown, net: KubeNet): Promise<TestApiServer> {
  const server = await TestApiServer.start({ teardown: (end) => t.teardown(end) }, (open) =>
    net.topology.within('director', open),
  )
  for (const node of objects.nodes) server.set('Node', node)
  return server
}

/** Starts bpvsd, with flags of its own, for the objects of the matrix, and waits until it has programmed everything. */
export async function startBpvsd(
  t: Teardown,
  net: KubeNet,
  configuration: Readonly<Record<string, unknown>>,
  ...flags: readonly string[]
): Promise<Daemon> {
  const server = await startApi(t, net)
  for (const [list, kind] of Object.entries(kinds)) {
    for (const object of objects[list as keyof typeof kinds]) server.set(kind, object)
  }
  return startBpvsdOn(t, net, server, configuration, ...flags)
}

/** The same, for what an API server has. */
export async function startBpvsdOn(
  t: Teardown,
  net: KubeNet,
  server: TestApiServer,
  configuration: Readonly<Record<string, unknown>>,
  ...flags: readonly string[]
): Promise<Daemon> {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-matrix-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const kubeconfig = join(directory, 'kubeconfig')
  const context = { cluster: 'test', user: 'me' }
  const access = {
    clusters: [{ name: 'test', cluster: { server: server.url } }],
    users: [{ name: 'me', user: { token: 'secret' } }],
    contexts: [{ name: 'here', context }],
    'current-context': 'here',
  }
  writeFileSync(kubeconfig, JSON.stringify(access))
  const config = join(directory, 'config.json')
  writeFileSync(config, JSON.stringify({ ...configuration, clientConnection: { kubeconfig } }))
  const small = ['--max-servers', '4096', '--max-services', '4096', '--max-connections', '32768']
  const daemon = new Daemon(net.topology, ['--config', config], ...small, ...flags)
  await daemon.logged('ready')
  return daemon
}
