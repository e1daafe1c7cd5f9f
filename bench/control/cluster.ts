/** Services and EndpointSlices in numbers, as a cluster of one team might have them. */
import type { ApiObject, TestApiServer } from '../../test/helpers/api-server.ts'

export interface ClusterSize {
  readonly services: number
  readonly endpoints: number
}

export function sizeName({ services, endpoints }: ClusterSize): string {
  return `${services}/${endpoints}`
}

function octets(first: number, n: number): string {
  return `${first}.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`
}

/** The cluster IP of service `n`, from 0 on. */
export function clusterIp(n: number): string {
  return octets(10, 0x60_00_00 + n + 1)
}

export function serviceOf(n: number): ApiObject {
  return {
    metadata: { name: `service-${n}`, namespace: 'default', labels: { app: `service-${n}` }, uid: `uid-${n}` },
    spec: {
      clusterIP: clusterIp(n),
      clusterIPs: [clusterIp(n)],
      selector: { app: `service-${n}` },
      ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: 8080 }],
    },
  }
}

/** `count` endpoints from `first` on; with all that the controller writes of them. */
export function sliceOf(n: number, first: number, count: number): ApiObject {
  return {
    metadata: {
      name: `service-${n}-abcde`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': `service-${n}`, 'endpointslice.kubernetes.io/managed-by': 'controller' },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    endpoints: Array.from({ length: count }, (_, i) => ({
      addresses: [octets(11, first + i + 1)],
      conditions: { ready: true, serving: true, terminating: false },
      nodeName: `node-${(first + i) % 100}`,
      targetRef: { kind: 'Pod', namespace: 'default', name: `service-${n}-${i}`, uid: `pod-${first + i}` },
      zone: `zone-${(first + i) % 3}`,
    })),
  }
}

/** Puts all of it on a server. */
export function fill(server: TestApiServer, { services, endpoints }: ClusterSize): void {
  const each = endpoints / services
  for (let n = 0; n < services; n++) {
    server.set('Service', serviceOf(n))
    server.set('EndpointSlice', sliceOf(n, n * each, each))
  }
}
