import t from 'tap'
import { objectId } from '../../src/kube/objects.ts'
import { type ParsedFile, parseManifests } from '../../src/manifests/parse.ts'
import { formatProblem } from '../../src/manifests/problem.ts'

function problemsOf(parsed: ParsedFile): string[] {
  return parsed.problems.map(formatProblem)
}

function idsOf(parsed: ParsedFile): string[] {
  return parsed.objects.map(({ object }) => objectId(object))
}

const good = (name: string): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name} }
spec: { clusterIP: 10.96.0.1, ports: [{ port: 80 }] }
`

t.test('every document of a file is read; empty ones and other kinds are passed over', async (t) => {
  const parsed = parseManifests(
    'a.yaml',
    `# comment\n---\n---${good('a')}---\nkind: Deployment\nspec: 7\n---${good('b')}`,
  )
  t.same(idsOf(parsed), ['Service default/a', 'Service default/b'])
  t.same(problemsOf(parsed), [])
  t.notOk(parsed.lost)
})

t.test('an empty file holds nothing, and nothing is wrong with it', async (t) => {
  for (const text of ['', '\n', '# only a comment\n', '---\n...\n']) {
    const parsed = parseManifests('a.yaml', text)
    t.same([parsed.objects, parsed.problems], [[], []], JSON.stringify(text))
  }
})

t.test('lists are opened, lists in lists too', async (t) => {
  const item = (name: string): string =>
    `{apiVersion: v1, kind: Service, metadata: {name: ${name}}, spec: {clusterIP: None}}`
  const text = `kind: List\nitems: [${item('a')}, {kind: ServiceList, items: [${item('b')}]}]`
  t.same(idsOf(parseManifests('a.yaml', text)), ['Service default/a', 'Service default/b'])
})

t.test('anchors and merge keys work', async (t) => {
  const text = `
kind: List
items:
- &base
  apiVersion: v1
  kind: Service
  metadata: { name: a }
  spec: { clusterIP: None }
- <<: *base
  metadata: { name: b }
`
  t.same(idsOf(parseManifests('a.yaml', text)), ['Service default/a', 'Service default/b'])
})

t.test('a wrong value is reported with file, line, object, field and reason', async (t) => {
  const text = `
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.1
  ports:
    - name: http
      port: 70000
`
  t.same(problemsOf(parseManifests('examples/web.yaml', text)), [
    'examples/web.yaml:10: Service default/web: spec.ports[0].port: 70000 is not a port (1-65535)',
  ])
})

t.test('in JSON too, also in a list', async (t) => {
  const service = (port: unknown): unknown => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'we"b', annotations: { odd: '}],[{"' } },
    spec: { clusterIP: '10.96.0.1', ports: [{ port }] },
  })
  const text = JSON.stringify({ kind: 'List', items: [service(80), service('http')] }, undefined, 2)
  const line = text.split('\n').findIndex((each) => each.includes('"port": "http"')) + 1
  const parsed = parseManifests('web.json', text)
  t.same(problemsOf(parsed), [
    `web.json:${line}: Service default/we"b: spec.ports[0].port: "http" is not a port (1-65535)`,
  ])
  t.same(idsOf(parsed), ['Service default/we"b'])
})

t.test('a bad document does not take the others of its file along', async (t) => {
  const parsed = parseManifests('a.yaml', `${good('a')}---\nkind: Service\nmetadata: {name: b}\n---${good('c')}`)
  t.same(idsOf(parsed), ['Service default/a', 'Service default/c'])
  t.same([...parsed.bad], ['Service default/b'])
  t.notOk(parsed.lost)
  t.equal(parsed.problems.length > 0, true)
})

t.test('broken YAML is reported with its line, and any object of the file may be meant', async (t) => {
  const parsed = parseManifests('a.yaml', `${good('a')}---\nkind: Service\nspec: [\n---${good('b')}`)
  t.match(problemsOf(parsed)[0], /^a\.yaml:\d+: /)
  t.ok(parsed.lost)
  t.match(idsOf(parsed), ['Service default/a'])
})

const broken: readonly {
  readonly name: string
  readonly file: string
  readonly text: string
  readonly expect: RegExp
}[] = [
  {
    name: 'a key that is there twice',
    file: 'a.yaml',
    text: 'kind: a\nkind: b\n',
    expect: /^a\.yaml:2: Map keys must be unique/,
  },
  { name: 'a tab as indentation', file: 'a.yaml', text: 'kind: a\nspec:\n\tx: 1\n', expect: /^a\.yaml:\d: / },
  { name: 'plain text', file: 'a.yaml', text: 'hello', expect: /^a\.yaml:1: "hello" is not an object$/ },
  { name: 'a list', file: 'a.yaml', text: '- a\n- b\n', expect: /^a\.yaml:1: a list is not an object$/ },
  { name: 'no kind', file: 'a.yaml', text: '\n\nmetadata: {}\n', expect: /^a\.yaml:3: kind: is required$/ },
  {
    name: 'kind of a wrong type',
    file: 'a.yaml',
    text: 'x: 1\nkind: 3\n',
    expect: /^a\.yaml:2: kind: 3 is not a string$/,
  },
  {
    name: 'aliases that multiply',
    file: 'a.yaml',
    text: `a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [${'*a,'.repeat(20)}]\nc: &c [${'*b,'.repeat(20)}]\nkind: [${'*c,'.repeat(20)}]\n`,
    expect: /^a\.yaml:1: Excessive alias count/,
  },
  {
    name: 'JSON that ends early',
    file: 'a.json',
    text: '{\n"kind":\n',
    expect: /^a\.json:3: Unexpected end of JSON input$/,
  },
  {
    name: 'a comma too many',
    file: 'a.json',
    text: `{\n"kind": "Service",\n"metadata": {"name": "${'x'.repeat(60)}"},\n}`,
    expect: /^a\.json:4: /,
  },
]

for (const row of broken) {
  t.test(`refused: ${row.name}`, async (t) => {
    const parsed = parseManifests(row.file, row.text)
    t.match(problemsOf(parsed)[0], row.expect)
    t.same(parsed.objects, [])
    t.ok(parsed.lost)
  })
}

interface FieldRow {
  readonly kind: 'Service' | 'EndpointSlice'
  readonly text: string
  readonly expect: readonly string[]
}

const fieldRows: readonly FieldRow[] = [
  { kind: 'Service', text: '{}', expect: ['metadata.name: is required', 'spec: nothing is not an object'] },
  { kind: 'Service', text: 'metadata: {name: ""}, spec: {clusterIP: None}', expect: ['metadata.name: is required'] },
  {
    kind: 'Service',
    text: 'metadata: x, spec: {clusterIP: None}',
    expect: ['metadata: "x" is not an object', 'metadata.name: is required'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a, namespace: 7}, spec: {clusterIP: None}',
    expect: ['metadata.namespace: 7 is not a string'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {type: Nodeport, clusterIP: None}',
    expect: ['spec.type: "Nodeport" is not one of ClusterIP, NodePort, LoadBalancer, ExternalName'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.300, ports: [{port: 80}]}',
    expect: ['spec.clusterIP: "10.96.0.300" is not an IP address'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 127.0.0.1, ports: [{port: 80}]}',
    expect: ['spec.clusterIP: 127.0.0.1 is a loopback address'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2], ports: [{port: 80}]}',
    expect: ['spec.clusterIP: "10.96.0.1" is not clusterIPs[0] ("10.96.0.2")'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIPs: [10.96.0.1, 10.96.0.2], ports: [{port: 80}]}',
    expect: ['spec.clusterIPs[1]: 10.96.0.2 is a second IPv4 address'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIPs: [10.96.0.1], ipFamilies: [IPv6], ports: [{port: 80}]}',
    expect: ['spec.ipFamilies[0]: "IPv6" does not fit the cluster IP 10.96.0.1'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1}',
    expect: ['spec.ports: at least one port is required'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: {port: 80}}',
    expect: ['spec.ports: an object is not a list', 'spec.ports: at least one port is required'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 0}, {name: x, port: 80.5}, {name: x}]}',
    expect: [
      'spec.ports[0].port: 0 is not a port (1-65535)',
      'spec.ports[0].name: is required when there are several ports',
      'spec.ports[1].port: 80.5 is not a port (1-65535)',
      'spec.ports[2].port: is required',
      'spec.ports[2].name: "x" names another port already',
    ],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 80}]}',
    expect: ['spec.ports[1].port: 80/tcp is there already'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80, protocol: tcp}]}',
    expect: ['spec.ports[0].protocol: "tcp" is not one of TCP, UDP, SCTP'],
  },
  {
    kind: 'Service',
    text: `metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}], sessionAffinity: ClientIP,
      sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}`,
    expect: ['spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not a timeout in seconds (1-86400)'],
  },
  {
    kind: 'Service',
    text: 'metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [80, 81]}',
    expect: ['spec.ports[0]: 80 is not an object', 'spec.ports[1]: 81 is not an object'],
  },
  { kind: 'EndpointSlice', text: 'metadata: {name: a}', expect: ['addressType: is required'] },
  {
    kind: 'EndpointSlice',
    text: 'metadata: {name: a, labels: {kubernetes.io/service-name: 7}}, addressType: IPv4',
    expect: ['metadata.labels[kubernetes.io/service-name]: 7 is not a string'],
  },
  {
    kind: 'EndpointSlice',
    text: 'metadata: {name: a}, addressType: IPv4, endpoints: [{addresses: ["fd00::1"]}, {addresses: []}, x]',
    expect: [
      'endpoints[0].addresses[0]: fd00::1 is not an IPv4 address (addressType)',
      'endpoints[1].addresses: at least one address is required',
      'endpoints[2]: "x" is not an object',
    ],
  },
  {
    kind: 'EndpointSlice',
    text: 'metadata: {name: a}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1], conditions: {ready: "yes"}}]',
    expect: ['endpoints[0].conditions.ready: "yes" is not true or false'],
  },
  {
    kind: 'EndpointSlice',
    text: 'metadata: {name: a}, addressType: IPv4, ports: [{name: x, port: 65536}]',
    expect: ['ports[0].port: 65536 is not a port (0-65535)'],
  },
]

for (const { kind, text, expect } of fieldRows) {
  t.test(`refused: ${kind} ${text.replaceAll(/\s+/g, ' ')}`, async (t) => {
    const version = kind === 'Service' ? 'v1' : 'discovery.k8s.io/v1'
    const body = text === '{}' ? '' : `, ${text}`
    const parsed = parseManifests('a.yaml', `{apiVersion: ${version}, kind: ${kind}${body}}`)
    t.same(parsed.problems.map(({ reason }) => reason).sort(), [...expect].sort())
    t.same(parsed.objects, [])
  })
}

t.test('a version of the API that is not understood is refused by name', async (t) => {
  const parsed = parseManifests(
    'a.yaml',
    '{apiVersion: discovery.k8s.io/v1beta1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4}',
  )
  t.same(problemsOf(parsed), [
    'a.yaml:1: EndpointSlice default/a: apiVersion: "discovery.k8s.io/v1beta1" is not supported (discovery.k8s.io/v1)',
  ])
})

t.test('null means absent, as in Kubernetes', async (t) => {
  const text = `{apiVersion: v1, kind: Service, metadata: {name: a, namespace: null, labels: null},
    spec: {type: null, clusterIP: 10.96.0.1, clusterIPs: null, ports: [{name: null, port: 80, protocol: null}], sessionAffinity: null}}`
  const parsed = parseManifests('a.yaml', text)
  t.same(problemsOf(parsed), [])
  t.same(idsOf(parsed), ['Service default/a'])
})

t.test('a long value is cut short in a message', async (t) => {
  const parsed = parseManifests(
    'a.yaml',
    `{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: "${'9'.repeat(500)}", ports: [{port: 1}]}}`,
  )
  t.match(problemsOf(parsed)[0], /^.{1,140}$/)
})
