/** bpvsd as a process, with the kernel's table, in a namespace of its own, behind an API server. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openKernelTable } from '../../src/engine/open.ts'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import type { Timeouts } from '../../src/model/types.ts'
import { type ApiObject, TestApiServer } from '../helpers/api-server.ts'
import { Daemon } from '../helpers/daemon.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'
import { saveFormat } from './save-format.ts'

const deadlineMs = 120_000

t.setTimeout(900_000)

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

class Scene {
  readonly topology: Topology
  readonly server: TestApiServer
  readonly kubeconfig: string

  private constructor(topology: Topology, server: TestApiServer, kubeconfig: string) {
    this.topology = topology
    this.server = server
    this.kubeconfig = kubeconfig
  }

  static async make(t: Teardown): Promise<Scene> {
    const topology = new Topology({ namespaces: [{ name: 'director' }], links: [] })
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-bpvsd-api-'))
    t.teardown(async () => {
      rmSync(directory, { recursive: true })
      await topology.close()
    })
    await topology.create()
    const server = await TestApiServer.start(t, (open) => topology.within('director', open))
    const file = join(directory, 'kubeconfig')
    const config = {
      clusters: [{ name: 'test', cluster: { server: server.url } }],
      users: [{ name: 'me', user: { token: 'secret' } }],
      contexts: [{ name: 'here', context: { cluster: 'test', user: 'me' } }],
      'current-context': 'here',
    }
    writeFileSync(file, JSON.stringify(config))
    return new Scene(topology, server, file)
  }

  start(): Daemon {
    const source = ['--kubeconfig', this.kubeconfig, '--hostname-override', 'here', '--oom-score-adj', '500']
    return new Daemon(this.topology, source, '--max-servers', '1024', '--max-services', '1024')
  }

  /** Status and body of what a server in the namespace answers. */
  fetch(url: string): Promise<string> {
    const script = `const r = await fetch(process.argv[1]); process.stdout.write(r.status + ' ' + (await r.text()))`
    return this.topology.must('director', process.execPath, ['--input-type=module', '-e', script, url])
  }

  /** The table as `ipvsadm -S -n`, sorted. */
  lines(): string[] {
    return this.topology.within('director', () => {
      const table = openKernelTable({ create: false })
      const views = table?.services() ?? []
      table?.close()
      return saveFormat(views.map((view) => ({ service: view, servers: view.servers.toReversed() }))).sort()
    })
  }

  timeouts(): Timeouts | undefined {
    return this.topology.within('director', () => {
      const table = openKernelTable({ create: false })
      const timeouts = table?.timeouts()
      table?.close()
      return timeouts
    })
  }

  until(what: string, lines: readonly string[]): Promise<true> {
    const wanted = [...lines].sort().join('\n')
    return waitFor(what, () => this.lines().join('\n') === wanted, deadlineMs)
  }
}

function service(name: string, address: string): ApiObject {
  return { metadata: { name, namespace: 'default' }, spec: { clusterIP: address, ports: [{ port: 80 }] } }
}

function slice(of: string, ...addresses: readonly string[]): ApiObject {
  return {
    metadata: { name: `${of}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': of } },
    addressType: 'IPv4',
    ports: [{ name: '', port: 8080, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  }
}

const line = (address: string): string => `-A -t ${address}:80 -s rr`
const server = (address: string, n: number): string => `-a -t ${address}:80 -r 10.0.0.${n}:8080 -m -w 1`

t.test(
  'a life with an API server: services are programmed and followed; without the server, and over a restart, they stay',
  { skip: needsRoot },
  async (t) => {
    const scene = await Scene.make(t)
    scene.server.set('Node', { metadata: { name: 'here' } })
    scene.server.set('Service', service('web', '10.96.0.1'))
    scene.server.set('EndpointSlice', slice('web', '10.0.0.1', '10.0.0.2'))
    const first = scene.start()
    await first.logged('ready')
    const web = [line('10.96.0.1'), server('10.96.0.1', 1), server('10.96.0.1', 2)]
    t.same(scene.lines(), web.toSorted())
    t.equal(readFileSync(`/proc/${first.pid}/oom_score_adj`, 'utf8'), '500\n')
    t.match(await scene.fetch('http://127.0.0.1:10256/healthz'), /^200 .*"nodeEligible":true,"healthy":true/)
    t.match(await scene.fetch('http://[::1]:10256/livez'), /^200 /, "0.0.0.0 is all addresses, as kube-proxy's")
    t.equal(await scene.fetch('http://127.0.0.1:10249/proxyMode'), '200 iptables')
    const metrics = await scene.fetch('http://127.0.0.1:10249/metrics')
    t.match(metrics, /^bpvs_real_servers 2$/m)
    t.match(metrics, /^rest_client_requests_total\{code="200",host="127\.0\.0\.1:\d+",method="GET"\} [1-9]/m)
    t.match(await scene.fetch('http://127.0.0.1:10249/flagz'), /^kubeconfig:\S+$/m)
    t.match(await scene.fetch('http://127.0.0.1:10249/statusz'), /^Emulation version: 1\.36$/m)

    const db = service('db', '10.96.0.2')
    const annotations = { 'bpvs.io/scheduler': 'fastest' }
    scene.server.set('Service', { ...db, metadata: { ...db.metadata, uid: 'u-1', annotations } })
    scene.server.set('EndpointSlice', slice('web', '10.0.0.2', '10.0.0.3'))
    const later = [line('10.96.0.1'), server('10.96.0.1', 2), server('10.96.0.1', 3), line('10.96.0.2')]
    await scene.until('what the API server tells', later)

    await waitFor('events', () => scene.server.events.all.length === 2, deadlineMs)
    t.match(scene.server.events.all, [
      { reason: 'Starting', regarding: { kind: 'Node', name: 'here' } },
      {
        reason: 'InvalidAnnotation',
        type: 'Warning',
        note: /^Service default\/db: annotation bpvs\.io\/scheduler: "fastest" is no scheduler .*; the default stays in force$/,
        regarding: { kind: 'Service', namespace: 'default', name: 'db', uid: 'u-1' },
      },
    ])

    await scene.server.stop()
    await first.logged('the API server cannot be followed; what it said stays in force')
    t.equal(await first.end('SIGTERM'), 0)
    const second = scene.start()
    await second.logged('the API server cannot be followed; what it said stays in force')
    t.same(scene.lines(), later.toSorted(), 'without the server a new bpvsd leaves the table as it is')

    scene.server.delete('Service', 'default', 'db')
    await scene.server.listen()
    await second.logged('ready')
    await scene.until('what there is now', later.slice(0, 3))
    t.equal(await second.end('SIGTERM'), 0)
  },
)

t.test(
  "in kube-proxy's place: its name, its command line, its file; it ends when that changes",
  { skip: needsRoot },
  async (t) => {
    const scene = await Scene.make(t)
    const directory = mkdtempSync(join(tmpdir(), 'bpvs-kube-proxy-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const program = join(directory, 'kube-proxy')
    symlinkSync(projectFile('bin/bpvsd'), program)
    const config = (scheduler: string): string =>
      JSON.stringify({
        apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
        kind: 'KubeProxyConfiguration',
        clientConnection: { kubeconfig: scene.kubeconfig },
        mode: 'ipvs',
        ipvs: { scheduler, tcpTimeout: '100s' },
        metricsBindAddress: '127.0.0.1:20249',
      })
    const file = join(directory, 'config.conf')
    writeFileSync(file, config('wlc'))
    scene.server.set('Service', service('web', '10.96.0.1'))
    const kubeProxy = scene.topology.spawn(
      'director',
      program,
      [`--config=${file}`, '--hostname-override=here', '--admin-socket='],
      {
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    )
    const ended = once(kubeProxy, 'exit')
    await scene.until('the service', ['-A -t 10.96.0.1:80 -s wlc'])
    t.equal(await scene.fetch('http://127.0.0.1:20249/proxyMode'), '200 ipvs')
    t.match(await scene.fetch('http://127.0.0.1:20249/configz'), /"scheduler":"wlc".*"tcpTimeout":"1m40s"/)
    t.match(scene.timeouts(), { tcpS: 100 })
    writeFileSync(file, config('rr'))
    t.same(await ended, [1, null])
  },
)
