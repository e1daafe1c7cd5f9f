/** Services, EndpointSlices and our Node from an API server over HTTP, whatever happens on the way. */
import { writeFileSync } from 'node:fs'
import t from 'tap'
import type { ApiObject } from '../helpers/api-server.ts'
import { service, slice, SourceScene as Scene } from '../helpers/source-scene.ts'
import { waitFor } from '../helpers/wait-for.ts'

t.setTimeout(900_000)

const two = { 'Service default/a': [], 'EndpointSlice default/a-1': ['10.0.0.1'] }

for (const streams of [true, false, 'ignores'] as const) {
  t.test(`objects are listed and followed; streaming lists: ${streams}`, async (t) => {
    const scene = await Scene.make(t, streams === 'ignores' ? 100 : 10)
    scene.server.streams = streams
    scene.server.set('Service', service('a', '10.96.0.1'))
    scene.server.set('EndpointSlice', slice('a', '10.0.0.1'))
    scene.server.set('Node', { metadata: { name: 'here', labels: { 'topology.kubernetes.io/zone': 'z1' } } })
    scene.server.set('Node', { metadata: { name: 'there', labels: { 'topology.kubernetes.io/zone': 'z2' } } })
    await scene.start()
    await scene.knows('the first list', two)
    const node = await waitFor('our Node', () => scene.said.at(-1)?.node)
    t.match(node, { name: 'here', zone: 'z1' })
    scene.server.set('EndpointSlice', slice('a', '10.0.0.1', '10.0.0.2'))
    scene.server.set('Service', service('b', '10.96.0.2'))
    await scene.knows('what came', {
      ...two,
      'EndpointSlice default/a-1': ['10.0.0.1', '10.0.0.2'],
      'Service default/b': [],
    })
    scene.server.delete('Service', 'default', 'b')
    scene.server.delete('EndpointSlice', 'default', 'a-1')
    await scene.knows('what is left', { 'Service default/a': [] })
    const lists = scene.server.requests.filter(({ path, query }) => path === '/api/v1/services' && !query.has('watch'))
    t.equal(lists.length > 0, streams !== true)
  })
}

t.test('headless objects and those of another proxy are not asked for', async (t) => {
  const scene = await Scene.make(t)
  const labels = { 'service.kubernetes.io/service-proxy-name': 'mesh' }
  scene.server.set('Service', {
    ...service('mesh', '10.96.0.3'),
    metadata: { name: 'mesh', namespace: 'default', labels },
  })
  scene.server.set('Service', service('none', 'None'))
  const headless = { 'kubernetes.io/service-name': 'none', 'service.kubernetes.io/headless': '' }
  scene.server.set('EndpointSlice', {
    ...slice('none'),
    metadata: { name: 'none-1', namespace: 'default', labels: headless },
  })
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.knows('the one to serve', { 'Service default/a': [] })
})

t.test('a server that does not know the field of cluster IPs is asked without it', async (t) => {
  const scene = await Scene.make(t)
  scene.server.streams = false
  scene.server.knowsClusterIp = false
  scene.server.set('Service', service('none', 'None'))
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.knows('both', { 'Service default/a': [], 'Service default/none': [] })
})

t.test(
  'default/kubernetes is told of before the list of everything is there; nothing is said to be complete',
  async (t) => {
    const scene = await Scene.make(t)
    scene.server.set('Service', service('kubernetes', '10.96.0.1'))
    scene.server.set('EndpointSlice', slice('kubernetes', '192.0.2.1'))
    scene.server.set('Service', service('a', '10.96.0.2'))
    scene.server.fault = ({ path }) =>
      path === '/apis/discovery.k8s.io/v1/endpointslices' ? { status: 500 } : undefined
    scene.source.start()
    await waitFor('the endpoint', () => scene.objects.has('EndpointSlice default/kubernetes-1'))
    t.same(scene.objects.get('EndpointSlice default/kubernetes-1'), ['192.0.2.1'])
    t.same(
      [...scene.objects.keys()].sort(),
      ['EndpointSlice default/kubernetes-1', 'Service default/kubernetes'],
      'and nothing that may be a part',
    )
    t.equal(scene.complete, false)
    scene.server.fault = () => undefined
    await waitFor('everything', () => scene.complete)
  },
)

t.test('a list of many pages, in pieces cut anywhere, is read to its end', async (t) => {
  const scene = await Scene.make(t)
  scene.server.streams = false
  scene.server.chunkBytes = 1009
  for (let n = 0; n < 1200; n++) scene.server.set('Service', service(`s${n}`, `10.96.${n >> 8}.${n & 255}`))
  await scene.start()
  t.equal(scene.objects.size, 1200)
  const pages = scene.server.requests.filter(({ path, query }) => path === '/api/v1/services' && query.has('limit'))
  t.same(
    pages.map(({ query }) => query.get('continue')?.replace(/^\d+/, 'v')),
    [undefined, 'v:500', 'v:1000'],
  )
})

t.test('pages that the server no longer has begin anew', async (t) => {
  const scene = await Scene.make(t)
  scene.server.streams = false
  for (let n = 0; n < 600; n++) scene.server.set('Service', service(`s${n}`, `10.96.${n >> 8}.${n & 255}`))
  let compacted = false
  scene.server.fault = ({ query }) => {
    if (!query.has('continue') || compacted) return undefined
    compacted = true
    scene.server.compact()
    return undefined
  }
  await scene.start()
  t.equal(scene.objects.size, 600)
})

t.test('a watch that ends, is cut off within an event or is reset goes on where it was', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  let n = 0
  for (const end of ['closeWatches', 'breakWatches'] as const) {
    await scene.watching()
    scene.server.bookmark()
    scene.server[end]()
    await waitFor('the watches to end', () => scene.server.watches === 0)
    scene.server.set('Service', service(`later${n++}`, '10.96.0.2'))
    await waitFor(`what came after ${end}`, () => scene.objects.size === n + 1)
  }
  const lists = scene.server.requests.filter(({ query }) => query.has('sendInitialEvents'))
  t.equal(lists.length, 4, 'one list of each kind')
})

for (const goneByStatus of [false, true]) {
  t.test(
    `what was missed is made good by a list (410 ${goneByStatus ? 'as status' : 'as event'}), removals too`,
    async (t) => {
      const scene = await Scene.make(t)
      scene.server.goneByStatus = goneByStatus
      scene.server.set('Service', service('a', '10.96.0.1'))
      scene.server.set('Service', service('b', '10.96.0.2'))
      await scene.start()
      await scene.watching()
      await scene.server.stop()
      scene.server.delete('Service', 'default', 'a')
      scene.server.set('Service', service('c', '10.96.0.3'))
      scene.server.compact()
      await scene.server.listen()
      await scene.knows('what there is now', { 'Service default/b': [], 'Service default/c': [] })
      const told = scene.said.flatMap(({ set }) => set).filter(({ name }) => name === 'b')
      t.equal(told.length, 1, 'what has not changed is not told again')
    },
  )
}

t.test('while the server is away what it said stays, and it is said once that it is away', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.watching()
  await scene.server.stop()
  await waitFor(
    'attempts in vain',
    () => scene.troubles.filter((each) => each.startsWith('Service')).length >= 4,
    20_000,
  )
  t.same([...scene.objects.keys()], ['Service default/a'])
  t.equal(scene.complete, true)
  await scene.server.listen()
  await waitFor('the end of it', () => scene.troubles.includes('Service: well again'))
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('what came then', { 'Service default/a': [], 'Service default/b': [] })
})

t.test('errors, resets, silence and nonsense are survived; Retry-After is minded', async (t) => {
  const scene = await Scene.make(t, 100)
  scene.server.set('Service', service('a', '10.96.0.1'))
  const faults = [
    { status: 500, message: 'etcdserver: leader changed' },
    'reset',
    { status: 429, message: 'slow down', headers: { 'retry-after': '10' } },
    { status: 503 },
    'silence',
    { status: 403, message: 'services is forbidden' },
  ] as const
  let n = 0
  const at: number[] = []
  scene.server.fault = ({ path }) => {
    if (path !== '/api/v1/services') return undefined
    at.push(performance.now())
    return faults[n++]
  }
  await scene.start()
  await scene.knows('the service', { 'Service default/a': [] })
  const text = scene.troubles.join('\n')
  t.match(text, /answers 500: etcdserver: leader changed/)
  t.match(text, /cannot be reached/)
  t.match(text, /answers 429: slow down/)
  t.match(text, /no data for 30 s/)
  t.match(text, /answers 403: services is forbidden/)
  t.ok((at[3] ?? 0) - (at[2] ?? 0) >= 100, 'a hundredth of ten seconds, at least')
  await scene.watching()
  scene.server.sendRaw('Service', '<html>')
  await waitFor('the complaint', () => scene.troubles.some((each) => each.includes('what is not JSON')))
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('what came then', { 'Service default/a': [], 'Service default/b': [] })
})

t.test('an object that cannot be used is reported, and its last good version stays', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.watching()
  scene.server.set('Service', service('a', 'x'))
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('both', { 'Service default/a': [], 'Service default/b': [] })
  t.match(scene.bad, [/^Service default\/a: .*"x" is not an IP address/])
})

t.test('without permission to see Nodes services are served all the same', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Service', service('a', '10.96.0.1'))
  scene.server.fault = ({ path }) => (path === '/api/v1/nodes' ? { status: 403 } : undefined)
  await scene.start()
  await scene.knows('the service', { 'Service default/a': [] })
  t.equal(scene.said.at(-1)?.node, undefined)
})

t.test('ServiceCIDRs are followed, and told when all of them are known or change', async (t) => {
  const scene = await Scene.make(t)
  const cidrs = (name: string, ...list: readonly string[]): ApiObject => ({ metadata: { name }, spec: { cidrs: list } })
  const ranges = (): string[] | undefined =>
    scene.said.at(-1)?.serviceCidrs?.map(({ address, length }) => `${address}/${length}`)
  const told = (...list: readonly string[]): Promise<true> =>
    waitFor(`the ranges ${list}`, () => JSON.stringify(ranges()) === JSON.stringify(list))
  scene.server.set('ServiceCIDR', cidrs('kubernetes', '10.96.0.0/12', 'fd00:96::/108'))
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await told('10.96.0.0/12', 'fd00:96::/108')
  scene.server.set('ServiceCIDR', cidrs('more', '10.200.0.0/16', 'nonsense'))
  await told('10.96.0.0/12', 'fd00:96::/108', '10.200.0.0/16')
  scene.server.delete('ServiceCIDR', '', 'kubernetes')
  await told('10.200.0.0/16')
  scene.server.delete('ServiceCIDR', '', 'more')
  await waitFor('that there are none', () => ranges() === undefined)
})

t.test('a server without ServiceCIDRs is no trouble, and is not asked for them again and again', async (t) => {
  const scene = await Scene.make(t)
  scene.server.hasServiceCidrs = false
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await waitFor('watches of what there is', () => scene.server.watches === 3)
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('both', { 'Service default/a': [], 'Service default/b': [] })
  t.equal(scene.said.at(-1)?.serviceCidrs, undefined)
  t.equal(scene.server.requests.filter(({ path }) => path.endsWith('/servicecidrs')).length, 1)
  t.same(scene.troubles, [])
})

const sentOn: ApiObject = { ...service('a', '10.96.0.1') }
Object.assign(sentOn.metadata, { annotations: { 'bpvs.io/forwarding-method': 'dsr-gue' } })
const node = (name: string, address: string, beat = 0): ApiObject => {
  const status = { addresses: [{ type: 'InternalIP', address }], conditions: [{ type: 'Ready', beat }] }
  return { metadata: { name }, status }
}
const allNodes = ({ server }: Scene): number =>
  server.requests.filter(({ path, query }) => path === '/api/v1/nodes' && !query.has('fieldSelector')).length

t.test('all Nodes are followed once a Service wants them, and told of by their addresses alone', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Node', node('here', '192.0.2.1'))
  scene.server.set('Node', node('there', '192.0.2.2'))
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.watching()
  t.equal(allNodes(scene), 0)
  scene.server.set('Service', sentOn)
  const known = () => scene.said.at(-1)?.nodes
  await waitFor('the nodes', () => known() !== undefined)
  const here = [{ family: 4, address: '192.0.2.1' }]
  t.same(known(), { here, there: [{ family: 4, address: '192.0.2.2' }] })
  t.notOk(
    scene.said.some(({ set, nodes }) => nodes === undefined && set.some((each) => each.annotations !== undefined)),
    'the Service is not told of before them',
  )
  const said = scene.said.length
  scene.server.set('Node', node('there', '192.0.2.2', 1))
  scene.server.set('Node', node('there', '192.0.2.3', 2))
  await waitFor('the other address', () => JSON.stringify(known()?.there).includes('192.0.2.3'))
  t.equal(scene.said.length, said + 1, 'a heartbeat is nothing new')
  scene.server.delete('Node', '', 'there')
  await waitFor('that it is gone', () => known()?.there === undefined)
  t.same(known(), { here })
})

t.test(
  'at the start nothing is complete without the Nodes that a Service wants; that they are refused is waited for no longer',
  async (t) => {
    const scene = await Scene.make(t)
    scene.server.set('Service', sentOn)
    scene.server.fault = ({ path, query }) =>
      path === '/api/v1/nodes' && !query.has('fieldSelector') ? { status: 403 } : undefined
    await scene.start()
    t.ok(allNodes(scene) > 0)
    t.equal(scene.said.at(-1)?.nodes, undefined)
    t.match(scene.troubles, [/^Nodes: .*403/])
    scene.server.set('Node', node('here', '192.0.2.1'))
    scene.server.fault = () => undefined
    await waitFor('the node', () => scene.said.at(-1)?.nodes?.here !== undefined, 20_000)
  },
)

t.test('asked for everything anew, it says nothing that it has said', async (t) => {
  const scene = await Scene.make(t)
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.watching()
  const before = scene.said.flatMap(({ set }) => set).length
  scene.source.reload()
  await waitFor(
    'new lists',
    () => scene.server.requests.filter(({ query }) => query.has('sendInitialEvents')).length === 8,
  )
  await scene.watching()
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('both', { 'Service default/a': [], 'Service default/b': [] })
  t.equal(scene.said.flatMap(({ set }) => set).length, before + 1)
  t.same(scene.troubles, [])
})

t.test('a token in a file is read anew, and one in a kubeconfig when the server refuses it', async (t) => {
  const scene = await Scene.make(t)
  const tokenFile = `${scene.file}.token`
  writeFileSync(tokenFile, 'one\n')
  scene.writeKubeconfig({ tokenFile: 'kubeconfig.token' })
  scene.server.tokens = ['one']
  scene.server.set('Service', service('a', '10.96.0.1'))
  await scene.start()
  await scene.watching()

  scene.server.tokens = ['two']
  writeFileSync(tokenFile, 'two\n')
  scene.server.closeWatches()
  await waitFor('the watches to end', () => scene.server.watches === 0)
  await scene.watching()
  t.notOk(
    scene.troubles.some((each) => each.includes('401')),
    'no request with the old token',
  )

  scene.writeKubeconfig({ token: 'three' })
  scene.server.tokens = ['three']
  scene.server.closeWatches()
  await waitFor('the refusal', () => scene.troubles.some((each) => each.includes('401')))
  scene.server.set('Service', service('b', '10.96.0.2'))
  await scene.knows('both', { 'Service default/a': [], 'Service default/b': [] })
})
