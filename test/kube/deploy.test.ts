/** deploy/: what is applied to a cluster is of the API's types, consistent in itself, and what bpvsd takes and needs. */
import { globSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { decodeFile } from '../../src/config/kube-proxy/decode.ts'
import { type Invocation, loadConfig } from '../../src/config/load.ts'
import { realTimers } from '../../src/daemon/ports.ts'
import { HttpApiServer } from '../../src/kube/client/api-server.ts'
import { loadCredentials } from '../../src/kube/client/credentials.ts'
import { EventRecorder } from '../../src/kube/client/event-recorder.ts'
import { KubernetesSource } from '../../src/kube/client/kubernetes-source.ts'
import { startingEvent } from '../../src/kube/events.ts'
import { type ApiRequest, TestApiServer } from '../helpers/api-server.ts'
import { problemsOf, typeOfKind } from '../helpers/kubernetes-schema.ts'
import { build, type Manifest, readDocuments } from '../helpers/kustomize.ts'
import { waitFor } from '../helpers/wait-for.ts'

const deploy = fileURLToPath(new URL('../../deploy', import.meta.url))
const overlays = readdirSync(join(deploy, 'overlays')).sort()

interface Container {
  readonly name: string
  readonly image: string
  readonly command: readonly string[]
  readonly args: readonly string[]
  readonly env?: readonly { readonly name: string }[]
  readonly securityContext: { readonly privileged?: boolean }
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[]
  readonly livenessProbe?: Probe
  readonly readinessProbe?: Probe
}
interface Probe {
  readonly httpGet: { readonly path: string; readonly port: number }
}
interface Volume {
  readonly name: string
  readonly configMap?: { readonly name: string }
  readonly hostPath?: { readonly path: string }
}
interface PodSpec {
  readonly serviceAccountName: string
  readonly containers: readonly Container[]
  readonly initContainers?: readonly Container[]
  readonly volumes: readonly Volume[]
}
interface DaemonSet {
  readonly selector: { readonly matchLabels: Readonly<Record<string, string>> }
  readonly template: {
    readonly metadata: { readonly labels: Readonly<Record<string, string>> }
    readonly spec: PodSpec
  }
}
interface Rule {
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly verbs: readonly string[]
}

/** The one object of a kind and name. */
function the(objects: readonly Manifest[], kind: string, name = 'bpvs'): Manifest {
  const found = objects.filter((object) => object.kind === kind && object.metadata.name === name)
  if (found.length !== 1) throw new Error(`${found.length} of ${kind} ${name}`)
  return found[0] as Manifest
}

function daemonSet(objects: readonly Manifest[]): DaemonSet {
  return the(objects, 'DaemonSet').spec as DaemonSet
}

function containersOf({ template: { spec } }: DaemonSet): readonly Container[] {
  return [...(spec.initContainers ?? []), ...spec.containers]
}

/** What kubeadm and EKS write, as far as it names files. */
const kubeProxyConfig = (kubeconfig: string): string => `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
clientConnection:
  kubeconfig: ${kubeconfig}
`
/** ConfigMaps that clusters have already, and their keys. */
const clusters: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>> = {
  plain: {},
  kubeadm: {
    'kube-proxy': { 'config.conf': kubeProxyConfig('/var/lib/kube-proxy/kubeconfig.conf'), 'kubeconfig.conf': '' },
  },
  eks: {
    'kube-proxy': { kubeconfig: '' },
    'kube-proxy-config': { config: kubeProxyConfig('/var/lib/kube-proxy/kubeconfig') },
  },
}

/** What a container reads at a path: a key of a mounted ConfigMap. Throws as fs does. */
function readMounted(overlay: string, objects: readonly Manifest[], container: Container, path: string): string {
  const mount = container.volumeMounts.find((each) => each.mountPath === dirname(path))
  const volume = daemonSet(objects).template.spec.volumes.find(({ name }) => name === mount?.name)
  const name = volume?.configMap?.name ?? ''
  const own = objects.find(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === name)
  const data = (own?.data as Readonly<Record<string, string>> | undefined) ?? clusters[overlay]?.[name]
  const text = data?.[path.slice(dirname(path).length + 1)]
  if (text === undefined) throw new Error(`ENOENT: no such file or directory, open '${path}'`)
  return text
}

function invocationOf(overlay: string, objects: readonly Manifest[], container: Container): Invocation {
  const [program = ''] = container.command
  const args = container.args.map((arg) => arg.replace('$(NODE_NAME)', 'node-1'))
  return loadConfig(args, {
    env: { KUBERNETES_SERVICE_HOST: '10.96.0.1' },
    readFile: (path) => readMounted(overlay, objects, container, path),
    program: program.slice(program.lastIndexOf('/') + 1),
  })
}

t.test('every file of deploy/ is YAML, and is used', async (t) => {
  const files = globSync('**/*', { cwd: deploy, withFileTypes: true }).filter((entry) => entry.isFile())
  t.ok(files.length > 5)
  const used = files
    .filter(({ name }) => name === 'kustomization.yaml')
    .flatMap(({ parentPath }) => {
      const [{ resources = [], patches = [] }] = readDocuments(join(parentPath, 'kustomization.yaml')) as [
        { resources?: readonly string[]; patches?: readonly { readonly path: string }[] },
      ]
      return ['kustomization.yaml', ...resources, ...patches.map(({ path }) => path)].map((file) =>
        join(parentPath, file),
      )
    })
  for (const { parentPath, name } of files) {
    t.match(name, /\.yaml$/)
    t.doesNotThrow(() => readDocuments(join(parentPath, name)))
    t.ok(used.includes(join(parentPath, name)), `${name} is used`)
  }
})

t.test('the schema refuses fields that there are not, and wrong types', async (t) => {
  const pod = { containers: [{ name: 'a', image: 'b', privileged: true, args: 'x' }], hostNetwork: 'yes' }
  t.same(problemsOf({ spec: { template: { spec: pod } } }, 'V1DaemonSet'), [
    '.spec.template.spec.containers[0].privileged: V1Container has no such field',
    '.spec.template.spec.containers[0].args: not a list',
    '.spec.template.spec.hostNetwork: "yes" is no boolean',
  ])
})

for (const overlay of overlays) {
  const objects = build(join(deploy, 'overlays', overlay))

  t.test(`${overlay}: all objects are of kinds and types of the Kubernetes API`, async (t) => {
    for (const object of objects) {
      const type = typeOfKind(object.apiVersion, object.kind)
      t.type(type, 'string', `${object.apiVersion} ${object.kind}`)
      t.same(problemsOf(object, type ?? ''), [])
    }
  })

  t.test(`${overlay}: what refers to something refers to what there is`, async (t) => {
    const { selector, template } = daemonSet(objects)
    t.match(template.metadata.labels, selector.matchLabels)
    const account = the(objects, 'ServiceAccount', template.spec.serviceAccountName)
    const binding = the(objects, 'ClusterRoleBinding')
    t.same(binding.subjects, [{ kind: 'ServiceAccount', ...pick(account.metadata) }])
    const role = the(objects, 'ClusterRole')
    t.same(binding.roleRef, { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role.metadata.name })
    const { volumes } = template.spec
    const names = volumes.map(({ name }) => name)
    const mounted = containersOf(daemonSet(objects)).flatMap(({ volumeMounts }) => volumeMounts.map(({ name }) => name))
    t.same([...new Set(mounted)].sort(), [...names].sort(), 'each volume is mounted, each mount has a volume')
    const own = objects.filter(({ kind }) => kind === 'ConfigMap').map(({ metadata }) => metadata.name)
    const wanted = volumes.flatMap(({ configMap }) => configMap?.name ?? [])
    t.same(wanted.sort(), [...own, ...Object.keys(clusters[overlay] ?? {})].sort(), 'each ConfigMap is mounted')
  })

  t.test(`${overlay}: bpvsd takes the arguments and the configuration, without a warning`, async (t) => {
    for (const container of containersOf(daemonSet(objects))) {
      t.match(container.image, /^[^:]+:[^:]+$/, 'an image with a tag')
      const invocation = invocationOf(overlay, objects, container)
      const init = container.name === 'host-settings'
      t.equal(invocation.run, init ? 'init' : 'daemon')
      if (invocation.run !== 'init' && invocation.run !== 'daemon') continue
      const { config, kubeProxy } = invocation
      t.same(kubeProxy.warnings, [])
      t.equal(config.socket, 'host')
      const { volumeMounts } = daemonSet(objects).template.spec.containers[0] as Container
      const run = volumeMounts.find(({ mountPath }) => mountPath === dirname(config.adminSocket))
      t.ok(run !== undefined && run.readOnly !== true, 'the admin socket can be made')
      const kubeconfig = kubeProxy.configuration['clientConnection.kubeconfig']
      t.doesNotThrow(() => readMounted(overlay, objects, container, kubeconfig))
      t.equal(kubeProxy.configuration.hostnameOverride, init ? '' : 'node-1')
    }
  })

  t.test(`${overlay}: the probes ask where bpvsd answers, and only what ends is privileged`, async (t) => {
    const { containers, initContainers = [] } = daemonSet(objects).template.spec
    t.equal(containers.length, 1)
    const [{ livenessProbe, readinessProbe, securityContext, volumeMounts }] = containers as readonly [Container]
    t.same(livenessProbe?.httpGet, { path: '/livez', port: 10256 })
    t.same(readinessProbe?.httpGet, { path: '/healthz', port: 10256 })
    t.equal(securityContext.privileged, false)
    t.same(
      volumeMounts.filter(({ readOnly }) => readOnly !== true).map(({ mountPath }) => mountPath),
      ['/sys/fs/bpf', '/run/bpvs'],
    )
    t.equal(initContainers.length, 1)
  })
}

t.test("the configuration of the base is kube-proxy's, with no field that it lacks", async (t) => {
  const { data } = the(build(join(deploy, 'base')), 'ConfigMap', 'bpvs-kube-proxy') as unknown as {
    readonly data: Readonly<Record<string, string>>
  }
  const { warnings, values } = decodeFile(data['config.conf'] ?? '')
  t.same(warnings, [])
  t.match(values, { mode: 'ipvs', oomScoreAdj: -997 })
})

/** What a role must allow for a request. */
function permissionOf({ method, path, query }: ApiRequest): string {
  const [, group = '', resource = ''] =
    /^\/(?:api|apis\/([^/]+))\/v1\/(?:namespaces\/[^/]+\/)?([^/]+)(?:\/[^/]+)?$/.exec(path) ?? []
  if (method !== 'GET') return `${group}/${resource} ${method === 'POST' ? 'create' : 'patch'}`
  return `${group}/${resource} ${query.get('watch') === '1' || query.get('watch') === 'true' ? 'watch' : 'list'}`
}

t.test('the role allows exactly what bpvsd asks of an API server, old or new', async (t) => {
  const asked = new Set<string>()
  for (const streams of [false, true]) {
    const server = await TestApiServer.start(t)
    server.streams = streams
    const api = new HttpApiServer(() => loadCredentials({ master: server.url }))
    const clock = { now: () => performance.now(), random: Math.random, after: realTimers.after }
    const source = new KubernetesSource({
      api,
      clock,
      nodeName: 'node-1',
      gatherMs: 0,
      onChanges: () => undefined,
      onBad: () => undefined,
      onTrouble: () => undefined,
    })
    source.start()
    await waitFor('everything is watched', () => server.watches === 4)
    source.close()
    const events = new EventRecorder({ api, clock, wallMs: Date.now, host: 'node-1', onTrouble: () => undefined })
    for (const count of [undefined, 2]) {
      events.record(startingEvent('node-1'))
      await waitFor('the event', () => server.events.all.length === 1 && server.events.all[0]?.series?.count === count)
    }
    events.close()
    for (const request of server.requests) asked.add(permissionOf(request))
  }
  const { rules } = the(build(join(deploy, 'base')), 'ClusterRole') as unknown as { readonly rules: readonly Rule[] }
  const allowed = rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) => resources.flatMap((resource) => verbs.map((verb) => `${group}/${resource} ${verb}`))),
  )
  t.same(allowed.sort(), [...asked].sort())
})

function pick({ name, namespace }: Manifest['metadata']): { name: string; namespace: string | undefined } {
  return { name, namespace }
}

t.test('node by node: the component keeps the pod to labelled nodes, and the rest as it is', async (t) => {
  const before = build(join(deploy, 'overlays/kubeadm'))
  const after = build(join(deploy, 'components/labelled-nodes'), before)
  const { spec, ...rest } = daemonSet(after).template
  const old = daemonSet(before).template
  t.same(spec, { ...old.spec, nodeSelector: { 'kubernetes.io/os': 'linux', bpvs: 'yes' } })
  t.same(rest, { metadata: old.metadata })
})
