/** Services whose clients are sent on to the node of an endpoint, and answered from there. */
import t from 'tap'
import { nodeServers, weighed } from '../../src/kube/dsr.ts'
import { translate } from '../../src/kube/translator.ts'
import type { NodeAddresses } from '../../src/kube/objects.ts'
import type { KubeVirtualService, TranslateOptions } from '../../src/kube/virtual-services.ts'
import { here, objectsOf, service, slice } from './translate-rows.ts'
import { saveFormat } from './save-format.ts'

const nodes: NodeAddresses = {
  here: [{ family: 4, address: '192.0.2.1' }],
  far: [
    { family: 4, address: '192.0.2.2' },
    { family: 6, address: 'fd00:192::2' },
    { family: 4, address: '203.0.113.2' },
  ],
  six: [{ family: 6, address: 'fd00:192::3' }],
}
const spec =
  'type: LoadBalancer, clusterIP: 10.96.0.80, externalIPs: [203.0.113.1], ports: [{port: 80, nodePort: 30080}]'
const endpoints = `[{addresses: [10.244.1.11], nodeName: here}, {addresses: [10.244.2.11], nodeName: far},
  {addresses: [10.244.2.12], nodeName: far}, {addresses: [10.244.3.11], nodeName: six},
  {addresses: [10.244.4.11], nodeName: unknown}, {addresses: [10.244.5.11]}]`

function made(method: string, options: Partial<TranslateOptions>, policy = 'Cluster', annotations = '') {
  const given = [
    service({
      annotations: `{bpvs.io/forwarding-method: ${method}${annotations}}`,
      spec: `{${spec}, externalTrafficPolicy: ${policy}}`,
      status: '{loadBalancer: {ingress: [{ip: 203.0.113.9}]}}',
    }),
    slice({ endpoints }),
  ]
  return translate(objectsOf(given.join('\n---\n')), { ...here, ...options })
}

/** Whether other nodes know a virtual service's address, so that they can answer as it. */
function isSentOn({ role, service: { key } }: KubeVirtualService): boolean {
  if (role !== 'nodePort') return role !== 'clusterIP'
  return key.kind === 'address' && nodes.here?.some(({ address }) => address === key.address) === true
}

t.test('all but cluster IPs lead to local endpoints, and to nodes that have others', async (t) => {
  const { desired, notices } = made('dsr-gue', { nodes })
  const sentOn = desired.filter(isSentOn)
  t.same(
    sentOn.map(({ role }) => role),
    ['externalIP', 'loadBalancerIP', 'nodePort'],
  )
  for (const { role, service, servers, insiders } of sentOn) {
    t.equal(service.scheduler, 'wrr', 'nodes have shares')
    t.match(service.policy, { tunnelled: true, masquerade: { pods: true, node: true, others: false } })
    t.match(servers, [
      { address: '10.244.1.11', port: 8080, weight: 1, method: 'masq' },
      {
        address: '192.0.2.2',
        port: role === 'nodePort' ? 30_080 : 80,
        weight: 2,
        method: 'tunnel',
        tunnel: { type: 'gue', port: 6080 },
      },
    ])
    t.equal(servers.length, 2, 'no node without an address of the family')
    t.same(
      insiders?.map(({ method }) => method),
      Array.from({ length: 6 }, () => 'masq'),
      'pods and the node get all endpoints as ever',
    )
  }
  t.same(notices, [])
})

t.test('cluster IPs are as ever, and node ports at addresses that other nodes do not know', async (t) => {
  const others = (method: string) => made(method, { nodes }).desired.filter((each) => !isSentOn(each))
  t.same(
    others('dsr-ipip').map(({ role }) => role),
    ['clusterIP', 'nodePort'],
  )
  t.same(others('dsr-ipip'), others('masq'))
})

t.test('with externalTrafficPolicy Local nothing is sent on', async (t) => {
  t.same(made('dsr-ipip', { nodes }, 'Local').desired, made('masq', { nodes }, 'Local').desired)
})

t.test('hints of zones do not count: all nodes have to agree what there is', async (t) => {
  const hinted = slice({
    endpoints: `[{addresses: [10.244.1.11], nodeName: here, hints: {forZones: [{name: z2}]}},
      {addresses: [10.244.2.11], nodeName: far, hints: {forZones: [{name: z1}]}}]`,
  })
  const web = service({ annotations: '{bpvs.io/forwarding-method: dsr-ipip}', spec: `{${spec}}` })
  const { desired } = translate(objectsOf(`${web}\n---\n${hinted}`), { ...here, nodes })
  const external = desired.find(({ role }) => role === 'externalIP')
  t.match(external?.servers, [{ address: '10.244.1.11' }, { address: '192.0.2.2' }])
  t.match(external?.insiders, [{ address: '10.244.2.11' }])
})

t.test('where no nodes are known the Service is served by NAT, and its owner is told', async (t) => {
  const { desired, notices } = made('dsr-ipip', {})
  t.same(saveFormat(desired), saveFormat(made('masq', {}).desired))
  t.match(notices, [{ reason: /forwarding-method: "dsr-ipip" needs to know all Nodes/, tell: { name: 'web' } }])
})

t.test('the weight of a node is that of its endpoints, and no greater than there are', async (t) => {
  const { desired } = made('dsr-ipip', { nodes }, 'Cluster', ', bpvs.io/weights: "10.244.2.11=0,*=7"')
  t.match(desired.find(({ role }) => role === 'externalIP')?.servers, [{ weight: 7 }, { weight: 7 }])
  const shares = Array.from({ length: 70 }, () => ({ node: 'far', weight: 1000 }))
  t.match(nodeServers(shares, nodes, { family: 6, port: 53, tunnel: 'ipip' }), [
    { address: 'fd00:192::2', weight: 65_535, tunnel: { type: 'ipip', port: 0 } },
  ])
})

t.test('schedulers that do not weigh give way to those that do', async (t) => {
  t.same((['rr', 'lc', 'sh', 'wlc'] as const).map(weighed), ['wrr', 'wlc', 'sh', 'wlc'])
})
