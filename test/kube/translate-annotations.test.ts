/** What annotations of Services and EndpointSlices say of scheduling. */
import t from 'tap'
import { translate } from '../../src/kube/translator.ts'
import { here, objectsOf, type Row, service, slice, testRows, twoReady } from './translate-rows.ts'

const spec = '{clusterIP: 10.96.0.80, ports: [{port: 80}]}'

/** Annotations, without the prefix, of a Service with two endpoints: the first line, and the ends of the others. */
function row(name: string, annotations: string, head: string, ...servers: readonly string[]): Row {
  const [one = '10.244.1.11:8080 -m -w 1', two = '10.244.1.12:8080 -m -w 1'] = servers
  const expect = [head, one, two].map((line, i) => (i === 0 ? `-A -t 10.96.0.80:80 ${line}` : line))
  return {
    name,
    given: [service({ annotations, spec }), slice({ endpoints: twoReady })],
    expect: expect.map((line, i) => (i === 0 ? line : `-a -t 10.96.0.80:80 -r ${line}`)),
  }
}

testRows([
  row(
    "a Service has a scheduler of its own, with the flags that are the cluster's way",
    '{bpvs.io/scheduler: mh}',
    '-s mh -b mh-port',
  ),
  row(
    'flags of a scheduler are named',
    '{bpvs.io/scheduler: mh, bpvs.io/scheduler-flags: "mh-port, mh-fallback"}',
    '-s mh -b flag-1,mh-port',
  ),
  row('no flags are some too', '{bpvs.io/scheduler: mh, bpvs.io/scheduler-flags: ""}', '-s mh'),
  row(
    'the method of forwarding',
    '{bpvs.io/forwarding-method: droute}',
    '-s rr',
    '10.244.1.11:8080 -g -w 1',
    '10.244.1.12:8080 -g -w 1',
  ),
  row(
    'endpoints have weights, by address, and all others',
    '{bpvs.io/weights: "10.244.1.12=7, *=2"}',
    '-s rr',
    '10.244.1.11:8080 -m -w 2',
    '10.244.1.12:8080 -m -w 7',
  ),
  row(
    'an endpoint that no weight is given for has 1; 0 gives it nothing new',
    '{bpvs.io/weights: "10.244.1.12=0"}',
    '-s rr',
    '10.244.1.11:8080 -m -w 1',
    '10.244.1.12:8080 -m -w 0',
  ),
  {
    name: 'what an EndpointSlice says of weights goes before what its Service says',
    given: [
      service({ annotations: '{bpvs.io/weights: "10.244.1.11=5,*=3"}', spec }),
      slice({ annotations: '{bpvs.io/weights: "10.244.1.12=9"}', endpoints: twoReady }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 5',
      '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 9',
    ],
  },
  {
    name: 'the clients that affinity takes for one are those of a prefix, of each family its own',
    given: [
      service({
        annotations: '{bpvs.io/affinity-prefix-ipv4: "23", bpvs.io/affinity-prefix-ipv6: "64"}',
        spec: '{clusterIPs: [10.96.0.80, "fd00:96::80"], sessionAffinity: ClientIP, ports: [{port: 80}]}',
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr -p 10800 -M 255.255.254.0', '-A -t [fd00:96::80]:80 -s rr -p 10800 -M 64'],
  },
])

const bad: readonly (readonly [annotations: string, problem: string])[] = [
  [
    'bpvs.io/scheduler: fastest',
    'scheduler: "fastest" is no scheduler (rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos)',
  ],
  ['bpvs.io/scheduler-flags: sh-port', 'scheduler-flags: "sh-port" has no flag of rr (flag-1, flag-2, flag-3)'],
  [
    'bpvs.io/forwarding-method: nat',
    'forwarding-method: "nat" is no forwarding method (masq, droute, tunnel, dsr-ipip, dsr-gue)',
  ],
  ['bpvs.io/affinity-prefix-ipv4: "33"', 'affinity-prefix-ipv4: "33" is not a prefix length (1-32)'],
  ['bpvs.io/affinity-prefix-ipv6: x', 'affinity-prefix-ipv6: "x" is not a prefix length (1-128)'],
  ['bpvs.io/affinity-scope: node', 'affinity-scope: "node" is no scope (address, port, service)'],
  [
    'bpvs.io/weights: "10.0.0.1=1001"',
    'weights: "10.0.0.1=1001" has "10.0.0.1=1001", whose weight is not a weight (0-1000)',
  ],
  ['bpvs.io/weights: "web=3"', 'weights: "web=3" has "web=3", which is not ADDRESS=WEIGHT or *=WEIGHT'],
  [
    'bpvs.io/slow-start-seconds: "30"',
    'slow-start-seconds: "30" has no effect with rr, which does not share by weight (wrr, wlc, lblc, lblcr, sed, nq, twos do)',
  ],
  [
    'bpvs.io/slow-start-seconds: "-1", bpvs.io/scheduler: wlc',
    'slow-start-seconds: "-1" is not a time in seconds (0-86400)',
  ],
  [
    'bpvs.io/schedular: wlc',
    'schedular: is not known (scheduler, scheduler-flags, forwarding-method, affinity-prefix-ipv4, affinity-prefix-ipv6, affinity-scope, weights, slow-start-seconds)',
  ],
]

for (const [annotations, problem] of bad) {
  t.test(`a value that is wrong is told, and the default stays: ${annotations}`, async (t) => {
    const given = [service({ annotations: `{${annotations}}`, spec }), slice({ endpoints: twoReady })]
    const { desired, notices } = translate(objectsOf(given.join('\n---\n')), here)
    const scheduler = annotations.includes('scheduler: wlc') ? 'wlc' : 'rr'
    t.match(desired, [
      { service: { scheduler, schedulerFlags: [] }, servers: [{ weight: 1, method: 'masq' }, { weight: 1 }] },
    ])
    t.same(notices, [
      {
        object: 'Service default/web',
        reason: `annotation bpvs.io/${problem}`,
        tell: { namespace: 'default', name: 'web' },
      },
    ])
  })
}

t.test(
  "a wrong value of an EndpointSlice is told to its Service's owner; other people's annotations are not looked at",
  async (t) => {
    const given = [
      service({ annotations: '{example.com/scheduler: x}', spec }),
      slice({ annotations: '{bpvs.io/weights: "1"}', endpoints: twoReady }),
    ]
    const { notices } = translate(objectsOf(given.join('\n---\n')), here)
    t.match(notices, [{ object: 'EndpointSlice default/web-1', tell: { namespace: 'default', name: 'web' } }])
  },
)

t.test('affinity is of each address and port, of a port whatever the address, or of all of a Service', async (t) => {
  const ports = '[{name: a, port: 80, nodePort: 30080}, {name: b, port: 443}]'
  const more = `type: LoadBalancer, sessionAffinity: ClientIP, ports: ${ports}, externalIPs: [203.0.113.7]`
  const groups = (scope: string, only?: string) => {
    const annotations = scope === '' ? '{}' : `{bpvs.io/affinity-scope: ${scope}}`
    const of = (name: string, ips: string) => service({ name, annotations, spec: `{clusterIPs: ${ips}, ${more}}` })
    const { desired } = translate(objectsOf(of('web', only ?? '[10.96.0.80, "fd00:96::a60:50"]')), here)
    return desired.map(({ service: { key, persistence } }) => {
      const at = key.kind === 'address' ? `${key.address} ${key.port}` : ''
      return `${at}: ${persistence?.group?.id ?? '-'} ${persistence?.group?.port ?? '-'}`
    })
  }
  const id = 0x0a600050
  const node = here.nodePortAddresses.filter(({ family }) => family === 4).map(({ address }) => address)
  t.ok(node.length > 0)
  t.ok(groups('').every((text) => text.endsWith(': - -')))
  t.ok(groups('address').every((text) => text.endsWith(': - -')))
  const first = [`10.96.0.80 80: ${id} 80`, `203.0.113.7 80: ${id} 80`, ...node.map((ip) => `${ip} 30080: ${id} 80`)]
  const second = [`10.96.0.80 443: ${id} 443`, `203.0.113.7 443: ${id} 443`]
  t.same(groups('port', '[10.96.0.80]'), [...first, ...second], 'node ports too go by the port of the Service')
  t.ok(
    groups('service').every((text) => text.endsWith(`: ${id} 0`)),
    'of IPv6 the same bits count',
  )
  t.not(groups('service', '[10.96.0.81]')[0], groups('service', '[10.96.0.80]')[0], 'Services are apart')
})
