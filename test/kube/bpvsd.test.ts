/** bpvsd as a process, with the kernel's table, in a namespace of its own: manifests in, table out. */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { check, hooks, openKernelTable, unloadTable } from '../../src/engine/open.ts'
import type { ReconcilingTable } from '../../src/engine/table.ts'
import { Topology } from '../../src/lab/topology.ts'
import { listInterfaces } from '../../src/native/interfaces.ts'
import { PodLinks } from '../../src/native/link-maps.ts'
import { openExistingTable } from '../../src/native/loader.ts'
import type { ServiceView, Source } from '../../src/model/types.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'
import { saveFormat } from './save-format.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
const deadlineMs = 120_000

/* Every table that is made passes through the verifier: seconds, on a busy machine. */
t.setTimeout(900_000)

interface Line {
  readonly msg: string
  readonly level: string
  readonly [field: string]: unknown
}

/** A running bpvsd and what it has logged so far. */
class Bpvsd {
  readonly process: ChildProcess
  #text = ''

  constructor(topology: Topology, args: readonly string[]) {
    const stdio = ['ignore', 'pipe', 'inherit'] as const
    this.process = topology.spawn('director', process.execPath, [main, ...args], { stdio: [...stdio] })
    this.process.stdout?.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString()
    })
  }

  get lines(): Line[] {
    const whole = this.#text.slice(0, this.#text.lastIndexOf('\n') + 1)
    return whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Line]))
  }

  /** Waits for a log line with this message that `matches`. */
  logged(msg: string, matches: (line: Line) => boolean = () => true): Promise<Line> {
    const ask = (): Line | undefined => this.lines.find((line) => line.msg === msg && matches(line))
    return waitFor(`bpvsd to log "${msg}"; it logged ${this.#text}`, ask, deadlineMs)
  }

  /** Sends a signal and waits for the end; the status, or the signal that ended it. */
  async end(signal: NodeJS.Signals): Promise<number | string | null> {
    const exit = once(this.process, 'exit') as Promise<[number | null, string | null]>
    this.process.kill(signal)
    const [status, killedBy] = await exit
    return status ?? killedBy
  }
}

/** A namespace with one interface and a directory of manifests. */
class Scene {
  readonly topology = new Topology({
    namespaces: [{ name: 'director' }, { name: 'client' }],
    links: [
      [
        { namespace: 'director', interface: 'cl0' },
        { namespace: 'client', interface: 'eth0' },
      ],
    ],
  })
  readonly directory = mkdtempSync(join(tmpdir(), 'bpvs-bpvsd-'))

  static async make(t: { teardown(handler: () => Promise<void>): void }): Promise<Scene> {
    const scene = new Scene()
    t.teardown(async () => {
      rmSync(scene.directory, { recursive: true })
      await scene.topology.close()
    })
    await scene.topology.create()
    return scene
  }

  start(...args: readonly string[]): Bpvsd {
    return new Bpvsd(this.topology, [
      '--manifests',
      this.directory,
      '--max-servers',
      '1024',
      '--admin-socket=',
      ...args,
    ])
  }

  /** Puts a manifest in place in one step. */
  write(name: string, text: string): void {
    writeFileSync(join(this.directory, '.new'), text)
    renameSync(join(this.directory, '.new'), join(this.directory, name))
  }

  within<T>(work: (table: ReconcilingTable) => T): T | undefined {
    return this.topology.within('director', () => {
      const table = openKernelTable({ create: false })
      try {
        return table && work(table)
      } finally {
        table?.close()
      }
    })
  }

  services(): ServiceView[] {
    return this.within((table) => table.services()) ?? []
  }

  /** The table, or what a source has of it, as `ipvsadm -S -n`; servers in the order of their adding. */
  lines(source?: Source): string[] {
    const views = this.services().filter((view) => source === undefined || view.source === source)
    return saveFormat(views.map((view) => ({ service: view, servers: view.servers.toReversed() })))
  }

  until(what: string, lines: readonly string[]): Promise<true> {
    return waitFor(what, () => this.lines().sort().join('\n') === [...lines].sort().join('\n'), deadlineMs)
  }

  /** Names of the interfaces that pods are behind; of one that is gone its number. */
  podLinks(): string[] {
    return this.topology.within('director', () => {
      const table = openExistingTable()
      if (table === undefined) return []
      const names = new Map(listInterfaces().map(({ ifindex, name }) => [ifindex, name]))
      const links = new PodLinks(table.dir).list()
      table.close()
      return links.map((ifindex) => names.get(ifindex) ?? String(ifindex))
    })
  }

  hooks(): string[] {
    return this.topology.within('director', () => hooks().map((each) => `${each.interface} ${each.hook}`)).sort()
  }
}

function web(address: string, ...servers: readonly string[]): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { clusterIP: ${address}, ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: "", port: 8080 }]
endpoints: [${servers.map((server) => `{ addresses: [${server}] }`).join(', ')}]
`
}

const service = '-A -t 10.96.0.1:80 -s rr'
const server = (n: number): string => `-a -t 10.96.0.1:80 -r 10.0.0.${n}:8080 -m -w 1`

t.test(
  'a life of bpvsd: manifests become the table, changes follow, crash and restart keep it',
  { skip: needsRoot },
  async (t) => {
    const scene = await Scene.make(t)
    scene.write('web.yaml', web('10.96.0.1', '10.0.0.1', '10.0.0.2'))
    const first = scene.start()
    await first.logged('ready')
    t.same(scene.lines(), [service, server(1), server(2)])
    t.same(scene.hooks(), ['cl0 egress', 'cl0 ingress', 'lo egress'])

    scene.write('web.yaml', web('10.96.0.1', '10.0.0.2', '10.0.0.3'))
    await scene.until('the change of a file', [service, server(2), server(3)])

    scene.write(
      'bad.yaml',
      'kind: Service\napiVersion: v1\nmetadata: { name: bad }\nspec: { clusterIP: x, ports: [{ port: 1 }] }\n',
    )
    const { problem } = await first.logged('bad manifest')
    t.match(problem, /bad\.yaml:4: Service default\/bad: spec\.clusterIP: "x" is not an IP address$/)

    const ids = scene.services().map(({ id, servers }) => [id, servers.map((each) => each.id)])
    t.equal(await first.end('SIGKILL'), 'SIGKILL')
    t.same(scene.lines(), [service, server(2), server(3)], 'without bpvsd the table stays')
    t.same(scene.hooks(), ['cl0 egress', 'cl0 ingress', 'lo egress'])

    rmSync(join(scene.directory, 'bad.yaml'))
    const second = scene.start()
    await second.logged('ready')
    t.match(await second.logged('applied'), { added: 0, changed: 0, removed: 0 })
    t.same(
      scene.services().map(({ id, servers }) => [id, servers.map((each) => each.id)]),
      ids,
      'it adopted what it found',
    )
    t.equal(await second.end('SIGTERM'), 0)
    t.same(scene.lines(), [service, server(2), server(3)])

    const cleanUp = (): number | null => {
      const args = ['netns', 'exec', scene.topology.nameOf('director'), process.execPath, main, '--cleanup']
      return spawnSync('ip', args, { stdio: 'ignore' }).status
    }
    t.equal(cleanUp(), 0)
    t.same(scene.services(), [])
    t.same(scene.hooks(), [])
    t.equal(cleanUp(), 0, 'nothing to clean up is fine')
  },
)

t.test('commands and bpvsd share the table: it repairs its own and leaves theirs', { skip: needsRoot }, async (t) => {
  const scene = await Scene.make(t)
  scene.write('web.yaml', web('10.96.0.1', '10.0.0.1', '10.0.0.2'))
  const bpvsd = scene.start('--repair-interval-ms', '100')
  await bpvsd.logged('ready')
  const own = [service, server(1), server(2)]
  const key = { kind: 'address', family: 4, protocol: 'tcp', address: '10.96.0.1', port: 80 } as const
  const theirs = { ...key, address: '10.9.0.1' }
  const spec = { family: 4, address: '10.0.0.9', port: 80, weight: 5, method: 'masq', upper: 0, lower: 0 } as const
  scene.within((table) => {
    table.addService({ key: theirs, scheduler: 'wlc', schedulerFlags: [], onePacket: false })
    table.addServer(theirs, spec)
    table.deleteServer(key, { family: 4, address: '10.0.0.1', port: 8080 })
    table.editServer(key, { ...spec, address: '10.0.0.2', port: 8080 })
  })
  const command = ['-A -t 10.9.0.1:80 -s wlc', '-a -t 10.9.0.1:80 -r 10.0.0.9:80 -m -w 5']
  await scene.until('the repair of servers', [...own, ...command])
  t.match(await bpvsd.logged('repaired what others changed'), { level: 'warn', changed: 1 })

  scene.within((table) => table.clear())
  await scene.until('the repair of a cleared table', own)

  scene.topology.within('director', () => unloadTable())
  await bpvsd.logged('table was unloaded by somebody else; making it anew')
  await scene.until('a new table', own)
  t.same(scene.hooks(), ['cl0 egress', 'cl0 ingress', 'lo egress'])
  t.equal(await bpvsd.end('SIGINT'), 0)
})

/** A load balancer's Service with endpoints on this node and another one, for some clients only. */
const local = `
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  externalIPs: [198.51.100.7]
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [192.0.2.0/25, 192.0.2.128/25, 10.0.0.0/8]
  ports: [{ port: 80 }]
status: { loadBalancer: { ingress: [{ ip: 203.0.113.1 }] } }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: "", port: 8080 }]
endpoints: [{ addresses: [10.0.0.1], nodeName: here }, { addresses: [10.0.0.2], nodeName: there }]
`

t.test('policies, servers of insiders, source ranges and pods are in the kernel', { skip: needsRoot }, async (t) => {
  const scene = await Scene.make(t)
  scene.write('web.yaml', local)
  const args = ['--hostname-override=here', '--cluster-cidr=10.0.0.0/16', '--masquerade-ports=5000-5999']
  const bpvsd = scene.start(...args)
  await bpvsd.logged('ready')
  const shown = () =>
    scene.services().map(({ key, policy, servers, insiders }) => {
      const names = (all: readonly { readonly address: string }[] = []): string =>
        all.map((each) => each.address).join()
      const { masquerade, sources, ...others } = policy ?? {}
      const masqueraded = Object.entries(masquerade ?? {}).flatMap(([who, is]) => (is ? [who] : []))
      const from = sources?.map(({ address, length }) => `${address}/${length}`).join()
      return [key.kind === 'address' && key.address, names(servers), names(insiders), masqueraded.join(), from, others]
    })
  const plain = { whenEmpty: 'drop', nodePort: false, foreign: false }
  const expected = [
    ['10.96.0.1', '10.0.0.2,10.0.0.1', '', 'node,others', undefined, plain],
    ['198.51.100.7', '10.0.0.1', '10.0.0.2,10.0.0.1', 'node', undefined, { ...plain, foreign: true }],
    ['203.0.113.1', '10.0.0.1', '10.0.0.2,10.0.0.1', 'node', '10.0.0.0/8,192.0.2.0/24', plain],
  ]
  t.same(shown(), expected)
  const consistent = () => scene.topology.within('director', () => check())
  t.same(consistent(), [])
  const settings = scene.within((table) => table.settings())
  t.same(settings?.masqueradePorts, { first: 5000, last: 5999 })
  t.equal(await bpvsd.end('SIGTERM'), 0)

  const second = scene.start(...args)
  await second.logged('ready')
  t.match(await second.logged('applied'), { added: 0, changed: 0, removed: 0 }, 'what it reads is what it wrote')
  scene.write('web.yaml', local.replace('nodeName: here', 'nodeName: there'))
  const empty = await waitFor('the endpoint to leave', () => shown().find(([, servers]) => servers === ''), deadlineMs)
  t.same(empty, ['198.51.100.7', '', '10.0.0.2,10.0.0.1', 'node', undefined, { ...plain, foreign: true }])
  t.same(consistent(), [])
  scene.write('web.yaml', local.replace('externalTrafficPolicy: Local', ''))
  await waitFor('insiders to get what all get', () => shown().every(([, , insiders]) => insiders === ''), deadlineMs)
  t.same(consistent(), [])
  t.equal(await second.end('SIGTERM'), 0)

  const refused = scene.start('--masquerade-ports=40000-41000')
  const { err } = await refused.logged('cannot start')
  t.match(err, { message: 'ports 40000-41000 meet net.ipv4.ip_local_port_range, 32768-60999' })
})

t.test('interfaces that come and go are followed, but for the excluded ones', { skip: needsRoot }, async (t) => {
  const scene = await Scene.make(t)
  const pods = ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=pod']
  const bpvsd = scene.start('--exclude-interfaces', 'lo,mgmt*', ...pods)
  await bpvsd.logged('ready')
  await scene.topology.must('director', 'ip', ['link', 'add', 'pod0', 'type', 'veth', 'peer', 'name', 'mgmt0'])
  await bpvsd.logged('attached', (line) => line.interface === 'pod0' && line.hook === 'egress')
  t.same(scene.hooks(), ['cl0 egress', 'cl0 ingress', 'pod0 egress', 'pod0 ingress'])
  const known = await waitFor('the interface of pods', () => scene.podLinks()[0], deadlineMs)
  t.equal(known, 'pod0')
  await scene.topology.must('director', 'ip', ['link', 'del', 'pod0'])
  await bpvsd.logged('detached')
  await waitFor('no interface of pods', () => scene.podLinks().length === 0, deadlineMs)
  t.same(scene.hooks(), ['cl0 egress', 'cl0 ingress'])
  t.equal(await bpvsd.end('SIGTERM'), 0)
})

t.test('SIGHUP reads all manifests anew and reports their problems again', { skip: needsRoot }, async (t) => {
  const scene = await Scene.make(t)
  scene.write('bad.yaml', '- nothing\n')
  const bpvsd = scene.start()
  await bpvsd.logged('ready')
  bpvsd.process.kill('SIGHUP')
  await waitFor('the second report', () => bpvsd.lines.filter(({ msg }) => msg === 'bad manifest').length === 2)
  t.equal(await bpvsd.end('SIGTERM'), 0)
})

t.test('a command line that is wrong ends with status 2 and one line', async (t) => {
  const rows = [
    { args: ['--bogus'], stderr: 'bpvsd: unknown option --bogus\n' },
    { args: [], stderr: /^bpvsd: no source of services: .*\n$/ },
  ]
  for (const { args, stderr } of rows) {
    const result = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env: {} })
    t.match(result, { status: 2, stdout: '', stderr })
  }
  const help = spawnSync(process.execPath, [main, '--help'], { encoding: 'utf8', env: {} })
  t.match(help, { status: 0, stdout: /^Usage: bpvsd \[--kubeconfig FILE \| --manifests DIR\]/, stderr: '' })
  const version = spawnSync(process.execPath, [main, '--version'], { encoding: 'utf8', env: {} })
  t.match(version, { status: 0, stdout: /^bpvsd \d+\.\d+\.\d+\n$/, stderr: '' })
})
