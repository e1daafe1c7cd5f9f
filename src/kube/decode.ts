/**
 * Kubernetes objects, from what a parser or the API gave to the reduced types of objects.ts. Defaults and checks are
 * those of the API server (core/v1 and discovery/v1), so that a file means here what it means to `kubectl apply`.
 * Fields that a service proxy does not read are not looked at.
 */
import type { Family, Prefix, Protocol } from '../model/types.ts'
import { annotationPrefix, type Annotations } from './annotations.ts'
import { type IpAddress, parseIp, parsePrefix, unusableIp } from './address.ts'
import { Field, type FieldProblem, show } from './field.ts'
import type {
  KubeEndpoint,
  KubeEndpointPort,
  KubeEndpointSlice,
  KubeNode,
  KubeObject,
  KubeService,
  KubeServicePort,
  ObjectName,
} from './objects.ts'

const protocols = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const satisfies Record<string, Protocol>
const protocolNames = Object.keys(protocols) as (keyof typeof protocols)[]
const serviceTypes = ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'] as const
const policies = ['Cluster', 'Local'] as const
const defaultAffinityS = 10800

/** The kinds that are read, and the one version of each that is understood. */
const kinds = { Service: 'v1', EndpointSlice: 'discovery.k8s.io/v1' } as const

/** A bad object: what is wrong, and which one it is, if that could be told. */
export interface DecodedBad {
  readonly is: 'bad'
  readonly id: ({ readonly kind: string } & ObjectName) | undefined
  readonly problems: readonly FieldProblem[]
}

/** What became of an object: read, of no interest (another kind), or bad. */
export type Decoded =
  | { readonly is: 'object'; readonly object: KubeObject }
  | { readonly is: 'other'; readonly kind: string }
  | DecodedBad

/** Reads one object (not a list of them). Never throws: problems come back with their paths. */
export function decodeObject(value: unknown): Decoded {
  const problems: FieldProblem[] = []
  const root = new Field(value, problems).object(true)
  const kind = root.at('kind').requiredString()
  if (problems.length > 0) return { is: 'bad', id: undefined, problems }
  if (kind !== 'Service' && kind !== 'EndpointSlice') return { is: 'other', kind }
  const name = decodeName(root)
  const apiVersion = root.at('apiVersion')
  const version = apiVersion.requiredString()
  if (version !== '' && version !== kinds[kind])
    apiVersion.problem(`${show(version)} is not supported (${kinds[kind]})`)
  const object = kind === 'EndpointSlice' ? decodeSlice(root, name) : decodeService(root, name)
  if (problems.length === 0) return { is: 'object', object }
  return { is: 'bad', id: name.name === '' ? undefined : { kind, ...name }, problems }
}

function decodeName(root: Field): ObjectName {
  const metadata = root.at('metadata').object()
  return {
    namespace: metadata.at('namespace').string('default') || 'default',
    name: metadata.at('name').requiredString(),
  }
}

function decodeService(root: Field, name: ObjectName): KubeService {
  const spec = root.at('spec').object(true)
  const labels = root.at('metadata').at('labels').object()
  const type = spec.at('type').oneOf(serviceTypes, 'ClusterIP')
  const headless = spec.at('clusterIP').value === 'None' || spec.at('clusterIPs').list()[0]?.value === 'None'
  const otherProxy = labels.at('service.kubernetes.io/service-proxy-name').string(undefined)
  const served = spec.isObject && type !== 'ExternalName' && !headless
  const affinityS = served ? decodeAffinity(spec) : undefined
  return {
    kind: 'Service',
    ...name,
    type,
    headless,
    clusterIps: served ? decodeClusterIps(spec) : [],
    ports: served ? decodeServicePorts(spec.at('ports')) : [],
    internalTrafficPolicy: spec.at('internalTrafficPolicy').oneOf(policies, 'Cluster'),
    ...(served ? decodeExternal(root, spec, type) : notExternal),
    ...decodeAnnotations(root),
    ...decodeUid(root),
    ...(otherProxy === undefined ? {} : { otherProxy }),
    ...(affinityS === undefined ? {} : { affinityS }),
  }
}

type External = Pick<
  KubeService,
  'externalTrafficPolicy' | 'externalIps' | 'ingressIps' | 'sourceRanges' | 'healthCheckNodePort'
>

const notExternal: External = {
  externalTrafficPolicy: 'Cluster',
  externalIps: [],
  ingressIps: [],
  sourceRanges: [],
  healthCheckNodePort: 0,
}

/** What serves clients outside of the cluster. A traffic policy for them counts only where there can be some. */
function decodeExternal(root: Field, spec: Field, type: KubeService['type']): External {
  const externalIps = spec.at('externalIPs').list().flatMap(decodeIps)
  const ingress = root.at('status').at('loadBalancer').at('ingress').list()
  const policy = spec.at('externalTrafficPolicy').oneOf(policies, 'Cluster')
  const healthPort = spec.at('healthCheckNodePort').integer('a port', 0, 65535) ?? 0
  return {
    externalTrafficPolicy: type === 'ClusterIP' && externalIps.length === 0 ? 'Cluster' : policy,
    externalIps,
    ingressIps: ingress.flatMap(decodeIngress),
    sourceRanges: spec.at('loadBalancerSourceRanges').list().flatMap(decodePrefix),
    healthCheckNodePort: type === 'LoadBalancer' && policy === 'Local' ? healthPort : 0,
  }
}

/** The address of a load balancer; none if it has only a name, or sends to node ports itself (ipMode Proxy). */
function decodeIngress(item: Field): IpAddress[] {
  const mode = item.at('ipMode').string('VIP')
  return item.at('ip').string('') === '' || mode !== 'VIP' ? [] : decodeIps(item.at('ip'))
}

function decodePrefix(item: Field): Prefix[] {
  const prefix = parsePrefix(item.requiredString().trim())
  if (prefix === undefined) item.problem(`${show(item.value)} is not a prefix, such as 10.0.0.0/8`)
  return prefix === undefined ? [] : [prefix]
}

function decodeIps(field: Field): IpAddress[] {
  const ip = decodeIp(field)
  return ip === undefined ? [] : [ip]
}

/** clusterIPs, or clusterIP alone; both must agree, hold one address a family, and match ipFamilies if that is given. */
function decodeClusterIps(spec: Field): IpAddress[] {
  const single = spec.at('clusterIP')
  const list = spec.at('clusterIPs').list()
  if (list.length > 2) spec.at('clusterIPs').problem(`${list.length} addresses, but one per family is the most`)
  const first = list[0]
  if (first !== undefined && single.string('') !== '' && first.value !== single.value) {
    single.problem(`${show(single.value)} is not clusterIPs[0] (${show(first.value)})`)
  }
  const families = spec.at('ipFamilies').list()
  const found: IpAddress[] = []
  for (const [i, field] of (list.length > 0 ? list : single.absent || single.value === '' ? [] : [single]).entries()) {
    const ip = decodeIp(field)
    if (ip === undefined) continue
    if (found.some((other) => other.family === ip.family))
      field.problem(`${ip.address} is a second IPv${ip.family} address`)
    const family = families[i]
    if (family !== undefined && family.oneOf(['IPv4', 'IPv6'], 'IPv4') !== `IPv${ip.family}`) {
      family.problem(`${show(family.value)} does not fit the cluster IP ${ip.address}`)
    }
    found.push(ip)
  }
  return found
}

function decodeIp(field: Field): IpAddress | undefined {
  const text = field.requiredString()
  if (text === '') return undefined
  const ip = parseIp(text)
  const unusable = ip === undefined ? undefined : unusableIp(ip)
  if (ip === undefined) field.problem(`${show(text)} is not an IP address`)
  else if (unusable !== undefined) field.problem(`${ip.address} is ${unusable}`)
  return unusable === undefined ? ip : undefined
}

function decodeServicePorts(field: Field): KubeServicePort[] {
  const list = field.list()
  if (list.length === 0) field.problem('at least one port is required')
  const names = new Set<string>()
  const numbers = new Set<string>()
  return list.map((item) => {
    const name = item.object(true).at('name').string('')
    const protocol = decodeProtocol(item)
    const port = item.at('port').integer('a port', 1, 65535) ?? 0
    if (item.isObject && item.at('port').absent) item.at('port').problem('is required')
    if (item.isObject && name === '' && list.length > 1)
      item.at('name').problem('is required when there are several ports')
    if (name !== '' && names.has(name)) item.at('name').problem(`${show(name)} names another port already`)
    if (port !== 0 && numbers.has(`${protocol} ${port}`))
      item.at('port').problem(`${port}/${protocol} is there already`)
    names.add(name)
    numbers.add(`${protocol} ${port}`)
    const nodePort = item.at('nodePort').integer('a port', 0, 65535) ?? 0
    return { name, protocol, port, nodePort }
  })
}

function decodeProtocol(item: Field): Protocol {
  return protocols[item.at('protocol').oneOf(protocolNames, 'TCP')]
}

function decodeAffinity(spec: Field): number | undefined {
  if (spec.at('sessionAffinity').oneOf(['None', 'ClientIP'], 'None') === 'None') return undefined
  const clientIp = spec.at('sessionAffinityConfig').object().at('clientIP').object()
  return clientIp.at('timeoutSeconds').integer('a timeout in seconds', 1, 86400) ?? defaultAffinityS
}

function decodeSlice(root: Field, name: ObjectName): KubeEndpointSlice {
  const labels = root.at('metadata').at('labels').object()
  const addressType = root.at('addressType')
  if (addressType.absent) addressType.problem('is required')
  const type = addressType.oneOf(['IPv4', 'IPv6', 'FQDN'], 'FQDN')
  const family: Family | undefined = type === 'FQDN' ? undefined : type === 'IPv4' ? 4 : 6
  return {
    kind: 'EndpointSlice',
    ...name,
    service: labels.at('kubernetes.io/service-name').string(''),
    headless: !labels.at('service.kubernetes.io/headless').absent,
    ...(family === undefined ? {} : { family }),
    endpoints:
      family === undefined
        ? []
        : root
            .at('endpoints')
            .list()
            .flatMap((item) => decodeEndpoint(item, family)),
    ports: root.at('ports').list().map(decodeEndpointPort),
    ...decodeTrigger(root),
    ...decodeAnnotations(root),
  }
}

/** Annotations of ours, without their prefix. What is no text is the API server's to refuse. */
function decodeAnnotations(root: Field): { readonly annotations?: Annotations } {
  const all = root.at('metadata').at('annotations')
  const own = Object.entries(all.isObject ? (all.value as Record<string, unknown>) : {}).flatMap(([name, value]) =>
    name.startsWith(annotationPrefix) && typeof value === 'string'
      ? [[name.slice(annotationPrefix.length), value]]
      : [],
  )
  return own.length === 0 ? {} : { annotations: Object.fromEntries(own) }
}

/** Only events name it: what is no text counts as absent. */
function decodeUid(root: Field): { readonly uid?: string } {
  const uid = root.at('metadata').at('uid').value
  return typeof uid === 'string' ? { uid } : {}
}

/** An annotation that only metrics read: what is no time counts as absent. */
function decodeTrigger(root: Field): { readonly triggerMs?: number } {
  const annotations = root.at('metadata').at('annotations')
  const text = annotations.at('endpoints.kubernetes.io/last-change-trigger-time').value
  const triggerMs = typeof text === 'string' ? Date.parse(text) : Number.NaN
  return Number.isNaN(triggerMs) ? {} : { triggerMs }
}

function decodeEndpoint(item: Field, family: Family): KubeEndpoint[] {
  if (!item.object(true).isObject) return []
  const first = item.at('addresses').list()[0]
  if (first === undefined) item.at('addresses').problem('at least one address is required')
  const ip = first === undefined ? undefined : decodeIp(first)
  if (ip !== undefined && ip.family !== family)
    first?.problem(`${ip.address} is not an IPv${family} address (addressType)`)
  const conditions = item.at('conditions').object()
  const ready = conditions.at('ready').boolean(true)
  const serving = conditions.at('serving').boolean(true)
  const terminating = conditions.at('terminating').boolean(false)
  const node = item.at('nodeName').string(undefined)
  const hints = item.at('hints')
  const forZones = hints.absent ? [] : hints.at('forZones').list().map(nameOf)
  const forNodes = hints.absent ? [] : hints.at('forNodes').list().map(nameOf)
  if (ip === undefined) return []
  return [
    {
      address: ip.address,
      ready,
      serving,
      terminating,
      ...(node === undefined ? {} : { node: shared(node) }),
      ...(forZones.length === 0 ? {} : { forZones }),
      ...(forNodes.length === 0 ? {} : { forNodes }),
    },
  ]
}

function nameOf(item: Field): string {
  return shared(item.at('name').string(''))
}

/** Names of nodes and zones: a few, which half a million endpoints may have, each as a text of its own. */
const sharedNames = new Map<string, string>()
const mostSharedNames = 10_000

function shared(name: string): string {
  const known = sharedNames.get(name)
  if (known !== undefined) return known
  if (sharedNames.size >= mostSharedNames) sharedNames.clear()
  sharedNames.set(name, name)
  return name
}

/** An absent name is '' (the API server's default); an absent number, "all ports", stays absent. */
function decodeEndpointPort(item: Field): KubeEndpointPort {
  const name = item.object(true).at('name').string('')
  const protocol = decodeProtocol(item)
  const port = item.at('port').integer('a port', 0, 65535)
  return { name, protocol, ...(port === undefined ? {} : { port }) }
}

/** Reads a Node. Fields that are not as they should be count as absent: a proxy can do without. */
export function decodeNode(value: unknown): KubeNode {
  const root = new Field(value, [])
  const metadata = root.at('metadata')
  const zone = metadata.at('labels').at('topology.kubernetes.io/zone').string(undefined)
  const taints = root.at('spec').at('taints').list()
  const leaving = taints.some((taint) => taint.at('key').value === 'ToBeDeletedByClusterAutoscaler')
  const listed = root.at('status').at('addresses').list()
  const addresses = ['InternalIP', 'ExternalIP'].flatMap((type) =>
    listed.filter((item) => item.at('type').value === type).map((item) => parseIp(item.at('address').string(''))),
  )
  return {
    name: metadata.at('name').string(''),
    ...(zone === undefined ? {} : { zone }),
    addresses: addresses.filter((ip) => ip !== undefined),
    podCidrs: root
      .at('spec')
      .at('podCIDRs')
      .list()
      .map((item) => item.string('')),
    eligible: metadata.at('deletionTimestamp').absent && !leaving,
  }
}

/** Reads a ServiceCIDR (networking.k8s.io/v1): its prefixes. What is none counts as absent. */
export function decodeServiceCidr(value: unknown): readonly Prefix[] {
  const cidrs = new Field(value, []).at('spec').at('cidrs').list()
  return cidrs.map((item) => parsePrefix(item.string(''))).filter((prefix) => prefix !== undefined)
}
