import t from 'tap'
import { LbError } from '../../src/model/errors.ts'
import { entry, key, Scene, web } from '../helpers/daemon-scene.ts'

const kubernetes = ['--kubeconfig', '/etc/kubeconfig']

t.test('until Kubernetes has told of everything, what an earlier bpvsd made of it stays; then it goes', async (t) => {
  const scene = new Scene([], kubernetes)
  scene.table.edit((entries) => {
    for (const n of [1, 2, 3]) entries.set(key(n), { source: n === 3 ? 'manifest' : 'kubernetes', want: entry(n) })
  })
  scene.first = undefined
  scene.daemon.start()
  t.equal(scene.table.applies, 0, 'nothing is known: nothing is done')
  const { service, slice } = web(1)
  const changes = { removed: [], node: undefined }
  scene.callbacks?.onChanges({ ...changes, set: [service, slice], complete: false })
  t.same(scene.table.lines('kubernetes'), [`${key(1)} -> 10.0.1.1:8080`, `${key(2)} -> `])
  t.same(scene.log.of('ready'), [])
  t.equal(scene.readies, 0)
  scene.callbacks?.onChanges({ ...changes, set: [], complete: true })
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`, `${key(3)} -> `])
  t.match(scene.log.of('ready'), [{ services: 1, complete: true }])
  scene.callbacks?.onChanges({ ...changes, set: [], removed: ['Service default/web1'], complete: true })
  t.same(scene.table.lines('kubernetes'), [])
  t.equal(scene.readies, 1)
})

t.test('the API server may answer before there is a table: what it told is applied when there is', async (t) => {
  const scene = new Scene([], kubernetes)
  scene.first = undefined
  scene.daemon.ask()
  t.ok(scene.sourceOpen)
  const [first, second] = [web(1), web(2)]
  const changes = { removed: [], node: undefined }
  scene.callbacks?.onChanges({ ...changes, set: [first.service, first.slice], complete: false })
  scene.callbacks?.onChanges({ ...changes, set: [second.service, second.slice], complete: true })
  t.equal(scene.table.applies, 0)
  t.same(scene.log.of('ready'), [])
  scene.daemon.start()
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080`, `${key(2)} -> 10.0.2.1:8080`])
  t.equal(scene.log.of('ready').length, 1)
})

t.test('our Node and the addresses of the host decide about node ports and local endpoints', async (t) => {
  const scene = new Scene(['--hostname-override', 'Here '], kubernetes)
  scene.host.addresses = [{ family: 4, address: '192.0.2.1' }]
  scene.first = undefined
  scene.daemon.start()
  const { service, slice } = web(1, 2)
  const ports = service.ports.map((port) => ({ ...port, nodePort: 30080 }))
  const endpoints = slice.endpoints.map((each, i) => {
    return { ...each, node: i === 0 ? 'here' : 'there', forZones: [i === 0 ? 'z1' : 'z2'] }
  })
  const set = [
    { ...service, type: 'NodePort', ports, externalTrafficPolicy: 'Local' },
    { ...slice, endpoints },
  ] as const
  const node = { name: 'here', addresses: [], podCidrs: [], eligible: true }
  scene.callbacks?.onChanges({ set, removed: [], node, complete: true })
  const nodePort = (address: string): string => `TCP ${address}:30080 -> 10.0.1.1:8080`
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.1:8080, 10.0.1.2:8080`, nodePort('192.0.2.1')])
  scene.callbacks?.onChanges({ set: [], removed: [], node: { ...node, zone: 'z2' }, complete: true })
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.2:8080`, nodePort('192.0.2.1')])
  scene.host.addresses = [{ family: 4, address: '192.0.2.9' }]
  scene.timers.pass(1000)
  t.same(scene.table.lines(), [`${key(1)} -> 10.0.1.2:8080`, nodePort('192.0.2.9')])
})

t.test('trouble with the API server, objects that cannot be used: said, and their end too', async (t) => {
  const scene = new Scene([], kubernetes)
  scene.first = undefined
  scene.daemon.start()
  scene.callbacks?.onTrouble('Service', new LbError('API', 'no route'))
  scene.callbacks?.onTrouble('Service', new LbError('API', 'no route'))
  scene.callbacks?.onTrouble('Service', undefined)
  scene.callbacks?.onBad('Service default/web', ['spec.clusterIP: "x" is not an IP address'])
  const away = 'the API server cannot be followed; what it said stays in force'
  t.match(scene.log.of(away), [{ kind: 'Service', err: { message: 'no route' } }])
  t.same(scene.log.of('the API server answers again'), [{ kind: 'Service' }])
  t.match(scene.log.of('bad object'), [{ object: 'Service default/web' }])
})

t.test('owners of objects are told once what of their annotations is not understood', async (t) => {
  const scene = new Scene(['--hostname-override', 'here'], kubernetes)
  scene.first = undefined
  scene.daemon.start()
  t.match(scene.events, [{ reason: 'Starting', regarding: { kind: 'Node', name: 'here' } }])
  const { service, slice } = web(1)
  const set = [{ ...service, uid: 'u', annotations: { scheduler: 'x', weights: '10.0.1.1=3' } }, slice] as const
  for (let i = 0; i < 2; i++) scene.callbacks?.onChanges({ set, removed: [], node: undefined, complete: true })
  t.match(scene.events.slice(1), [
    {
      reason: 'InvalidAnnotation',
      note: /^Service default\/web1: annotation bpvs\.io\/scheduler: "x" is no scheduler .*stays in force$/,
      regarding: { namespace: 'default', name: 'web1', uid: 'u' },
    },
  ])
  t.equal(scene.events.length, 2)
  t.match(scene.log.of('not served in full'), [{ object: 'Service default/web1', reason: /^annotation / }])
  t.match(scene.table.services(), [{ scheduler: 'rr', servers: [{ weight: 3 }] }])
})

t.test('with slow start weights rise by themselves, and no timer is left when they have', async (t) => {
  const scene = new Scene([], kubernetes)
  scene.first = undefined
  scene.daemon.start()
  const { pending } = scene.timers
  const weights = (): (number | undefined)[] => scene.table.services()[0]?.servers.map(({ weight }) => weight) ?? []
  const { service } = web(1)
  const annotations = { scheduler: 'wlc', 'slow-start-seconds': '10' }
  const change = { removed: [], node: undefined, complete: true }
  scene.callbacks?.onChanges({ ...change, set: [{ ...service, annotations }, web(1, 1).slice] })
  t.same(weights(), [1])
  scene.timers.pass(10_000)
  t.same(weights(), [10])
  t.equal(scene.timers.pending, pending)
  scene.callbacks?.onChanges({ ...change, set: [web(1, 2).slice] })
  t.same(weights(), [1, 10])
  scene.timers.pass(1000)
  t.same(weights(), [2, 10])
  const { applies } = scene.table
  scene.timers.pass(8000)
  t.same(weights(), [10, 10])
  t.equal(scene.table.applies, applies + 8)
  scene.callbacks?.onChanges({ ...change, set: [web(1, 3).slice] })
  scene.daemon.stop()
  t.equal(scene.timers.pending, 0)
})

t.test('ServiceCIDRs are ranges of which all is known; without them what was seen of cluster IPs tells', async (t) => {
  const scene = new Scene([], kubernetes)
  scene.first = undefined
  scene.daemon.start()
  const ranges = (): unknown => scene.table.serviceRanges.at(-1)
  const changes = { set: [web(1).service, web(2).service], removed: [], node: undefined, complete: true }
  scene.callbacks?.onChanges(changes)
  t.same(ranges(), { prefixes: [{ family: 4, address: '10.96.0.0', length: 30 }], known: false })
  const serviceCidrs = [{ family: 4, address: '10.96.0.0', length: 12 }] as const
  scene.callbacks?.onChanges({ ...changes, set: [], serviceCidrs })
  t.same(ranges(), { prefixes: serviceCidrs, known: true })
})

t.test('how much there is is told rightly after every change', async (t) => {
  const scene = new Scene(['--log-level', 'debug'], kubernetes)
  scene.first = undefined
  scene.daemon.start()
  const change = { removed: [], node: undefined, complete: true }
  const both = [web(1, 3), web(2, 2)].flatMap(({ service, slice }) => [service, slice])
  scene.callbacks?.onChanges({ ...change, set: both })
  scene.callbacks?.onChanges({ ...change, set: [web(1, 7).slice] })
  scene.callbacks?.onChanges({ ...change, set: [], removed: ['EndpointSlice default/web2'] })
  scene.callbacks?.onChanges({ ...change, set: [], removed: ['Service default/web1'] })
  t.same(
    scene.log.of('applied').map(({ services, servers }) => [services, servers]),
    [
      [2, 5],
      [2, 9],
      [2, 7],
      [1, 0],
    ],
  )
})
