/** Objects that come, change and go one by one: what holds is always what the objects that there are come to. */
import t from 'tap'
import type { KubeEndpointSlice, KubeObject, KubeService } from '../../src/kube/objects.ts'
import { objectId } from '../../src/kube/objects.ts'
import { translate, Translator } from '../../src/kube/translator.ts'
import type { TranslateOptions } from '../../src/kube/virtual-services.ts'
import { random } from '../helpers/random.ts'
import { saveFormat } from './save-format.ts'

const options: TranslateOptions = {
  scheduler: 'rr',
  place: { node: 'here' },
  nodePortAddresses: [],
  hostAddresses: [],
  primaryAddresses: [],
  masqueradeAll: false,
  knowsPods: { 4: true, 6: true },
}

/** A service `name` at 10.96.0.`n`. */
function service(name: string, n: number): KubeService {
  return {
    kind: 'Service',
    namespace: 'default',
    name,
    type: 'ClusterIP',
    headless: false,
    clusterIps: [{ family: 4, address: `10.96.0.${n}` }],
    ports: [{ name: '', protocol: 'tcp', port: 80, nodePort: 0 }],
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    externalIps: [],
    ingressIps: [],
    sourceRanges: [],
    healthCheckNodePort: 0,
  }
}

function slice(name: string, of: string, ...servers: readonly number[]): KubeEndpointSlice {
  return {
    kind: 'EndpointSlice',
    namespace: 'default',
    name,
    service: of,
    headless: false,
    family: 4,
    ports: [{ name: '', protocol: 'tcp', port: 8080 }],
    endpoints: servers.map((n) => ({ address: `10.0.0.${n}`, ready: true, serving: true, terminating: false })),
  }
}

t.test('a change gives new objects for what it concerns, and the same ones for all else', async (t) => {
  const translator = new Translator(options)
  for (const object of [service('a', 1), service('b', 2), slice('a-1', 'a', 1), slice('b-1', 'b', 2)])
    translator.set(object)
  const [a, b] = translator.take().desired
  translator.set(slice('a-1', 'a', 1, 3))
  const after = translator.take().desired
  t.not(after[0], a)
  t.equal(after[1], b)
  translator.remove('EndpointSlice default/a-1')
  t.same(
    saveFormat(translator.take().desired).filter((line) => line.includes('10.96.0.1')),
    ['-A -t 10.96.0.1:80 -s rr'],
  )
})

t.test('a service whose address another has gets it when the other one goes', async (t) => {
  const translator = new Translator(options)
  for (const object of [service('b', 1), slice('b-1', 'b', 2), service('a', 1), slice('a-1', 'a', 1)])
    translator.set(object)
  const first = translator.take()
  t.match(saveFormat(first.desired), ['-A -t 10.96.0.1:80 -s rr', '-a -t 10.96.0.1:80 -r 10.0.0.1:8080 -m -w 1'])
  t.same(first.notices, [
    { object: 'Service default/b', reason: "TCP 10.96.0.1:80 is Service default/a's already: not served" },
  ])
  translator.remove('Service default/a')
  const second = translator.take()
  t.match(saveFormat(second.desired), ['-A -t 10.96.0.1:80 -s rr', '-a -t 10.96.0.1:80 -r 10.0.0.2:8080 -m -w 1'])
  t.same(second.notices, [])
})

t.test('a slice that is given to another service leaves the first one', async (t) => {
  const translator = new Translator(options)
  for (const object of [service('a', 1), service('b', 2), slice('s', 'a', 1)]) translator.set(object)
  translator.take()
  translator.set(slice('s', 'b', 1))
  t.same(saveFormat(translator.take().desired), [
    '-A -t 10.96.0.1:80 -s rr',
    '-A -t 10.96.0.2:80 -s rr',
    '-a -t 10.96.0.2:80 -r 10.0.0.1:8080 -m -w 1',
  ])
})

t.test('after any changes, in any order, it is what all objects at once come to', async (t) => {
  const pick = random(5)
  const translator = new Translator(options)
  const known = new Map<string, KubeObject>()
  for (let step = 0; step < 2000; step++) {
    const name = `s${pick(6)}`
    const object = pick(2) === 0 ? service(name, pick(4)) : slice(`e${pick(8)}`, name, pick(9), 10 + pick(9))
    if (pick(3) === 0) {
      known.delete(objectId(object))
      translator.remove(objectId(object))
    } else {
      known.set(objectId(object), object)
      translator.set(object)
    }
    if (pick(4) > 0) continue
    const all = [...known.values()]
    const whole = translate(
      {
        services: all.filter((each) => each.kind === 'Service'),
        endpointSlices: all.filter((each) => each.kind === 'EndpointSlice'),
      },
      options,
    )
    const { desired, notices } = translator.take()
    const text = (lists: Pick<typeof whole, 'desired' | 'notices'>): string =>
      [...saveFormat(lists.desired), ...lists.notices.map(({ object, reason }) => object + reason)].sort().join('\n')
    if (text({ desired, notices }) !== text(whole)) {
      t.equal(text({ desired, notices }), text(whole), `step ${step}`)
      return
    }
  }
  t.pass('2,000 changes')
})

t.test("what bears on all services reaches all: this node's name", async (t) => {
  const translator = new Translator(options)
  const local = { ...service('a', 1), internalTrafficPolicy: 'Local' as const }
  const endpoints = slice('a-1', 'a', 1).endpoints.map((each) => ({ ...each, node: 'there' }))
  translator.set(local)
  translator.set({ ...slice('a-1', 'a'), endpoints })
  t.equal(translator.take().desired[0]?.servers.length, 0)
  translator.configure({ ...options, place: { node: 'there' } })
  t.equal(translator.take().desired[0]?.servers.length, 1)
})

t.test('who may use an address is in its policy', async (t) => {
  const translator = new Translator(options)
  const ranges = [{ family: 4, address: '192.0.2.0', length: 24 }] as const
  translator.set({ ...service('a', 1), ingressIps: [{ family: 4, address: '203.0.113.1' }], sourceRanges: ranges })
  const { desired, notices } = translator.take()
  t.same(saveFormat(desired), ['-A -t 10.96.0.1:80 -s rr', '-A -t 203.0.113.1:80 -s rr'])
  t.same(
    desired.map((want) => want.service.policy.sources),
    [undefined, ranges],
  )
  t.same(notices, [])
})

t.test('each kind of address has its policy, and a Local one the servers of the cluster for insiders', async (t) => {
  const translator = new Translator({
    ...options,
    nodePortAddresses: [{ family: 4, address: '192.0.2.1' }],
    hostAddresses: [{ family: 4, address: '192.0.2.2' }],
  })
  const made = service('a', 1)
  translator.set({
    ...made,
    ports: made.ports.map((port) => ({ ...port, nodePort: 30080 })),
    ingressIps: [{ family: 4, address: '203.0.113.1' }],
    externalIps: ['198.51.100.1', '192.0.2.2'].map((address) => ({ family: 4, address })),
    externalTrafficPolicy: 'Local' as const,
  })
  translator.set(slice('a-1', 'a', 1))
  const policies = translator.take().desired.map(({ role, servers, insiders, service: { policy } }) => {
    const { masquerade, ...others } = policy
    const masqueraded = Object.entries(masquerade).flatMap(([who, is]) => (is ? [who] : []))
    return [role, servers.length, insiders?.length, masqueraded.join(), others]
  })
  const plain = { whenEmpty: 'drop', nodePort: false, foreign: false }
  t.same(policies, [
    ['clusterIP', 1, undefined, 'node,others', plain],
    ['externalIP', 0, 1, 'node', { ...plain, foreign: true }],
    ['externalIP', 0, 1, 'node', plain],
    ['loadBalancerIP', 0, 1, 'node', plain],
    ['nodePort', 0, 1, 'node', { ...plain, nodePort: true }],
  ])
})
