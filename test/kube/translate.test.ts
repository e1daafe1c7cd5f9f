import t from 'tap'
import { translate } from '../../src/kube/translator.ts'
import { saveFormat } from './save-format.ts'
import {
  draining,
  gone,
  here,
  notReady,
  objectsOf,
  service,
  slice,
  testRows,
  twoReady,
  web,
  type Row,
} from './translate-rows.ts'

const rows: readonly Row[] = [
  {
    name: "a service port becomes a virtual service; the port of its servers is the slice's, not targetPort",
    given: [
      service({ spec: '{clusterIP: 10.96.0.80, ports: [{port: 80, targetPort: 9999}]}' }),
      slice({ endpoints: twoReady }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1',
    ],
  },
  {
    name: 'the scheduler is the configured one',
    given: [web],
    scheduler: 'wlc',
    expect: ['-A -t 10.96.0.80:80 -s wlc'],
  },
  {
    name: 'servers come in the order of their text, whatever the order of slices and endpoints',
    given: [
      slice({ name: 'web-2', endpoints: '[{addresses: [10.244.1.12]}, {addresses: [10.244.1.10]}]' }),
      slice({ name: 'web-1', endpoints: '[{addresses: [10.244.1.11]}]' }),
      web,
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.10:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1',
    ],
  },
  {
    name: 'services come by namespace and name',
    given: [
      service({ namespace: 'b', name: 'a', spec: '{clusterIP: 10.96.0.3, ports: [{port: 80}]}' }),
      service({ namespace: 'a', name: 'z', spec: '{clusterIP: 10.96.0.2, ports: [{port: 80}]}' }),
      service({ namespace: 'a', name: 'b', spec: '{clusterIP: 10.96.0.1, ports: [{port: 80}]}' }),
    ],
    expect: ['-A -t 10.96.0.1:80 -s rr', '-A -t 10.96.0.2:80 -s rr', '-A -t 10.96.0.3:80 -s rr'],
  },
  {
    name: 'each cluster IP is served by the slices of its own family',
    given: [
      service({ spec: '{clusterIPs: ["fd00:96::80", 10.96.0.80], ports: [{port: 80}]}' }),
      slice({ name: 'v4', endpoints: '[{addresses: [10.244.1.11]}]' }),
      slice({ name: 'v6', type: 'IPv6', endpoints: '[{addresses: ["fd00:244:1:0::11"]}]' }),
    ],
    expect: [
      '-A -t [fd00:96::80]:80 -s rr',
      '-a -t [fd00:96::80]:80 -r [fd00:244:1::11]:8080 -m -w 1',
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
    ],
  },
  {
    name: 'a port is found by name and protocol',
    given: [
      service({
        spec: `{clusterIP: 10.96.0.53, ports: [
          {name: dns, protocol: UDP, port: 53}, {name: dns-tcp, protocol: TCP, port: 53}, {name: sig, protocol: SCTP, port: 9}]}`,
      }),
      slice({
        ports: `[{name: dns, protocol: UDP, port: 5353}, {name: dns, protocol: TCP, port: 1}, {name: dns-tcp, port: 5354},
          {name: sig, protocol: SCTP, port: 99}]`,
        endpoints: '[{addresses: [10.244.1.21]}]',
      }),
    ],
    expect: [
      '-A -u 10.96.0.53:53 -s rr',
      '-a -u 10.96.0.53:53 -r 10.244.1.21:5353 -m -w 1',
      '-A -t 10.96.0.53:53 -s rr',
      '-a -t 10.96.0.53:53 -r 10.244.1.21:5354 -m -w 1',
      '-A --sctp-service 10.96.0.53:9 -s rr',
      '-a --sctp-service 10.96.0.53:9 -r 10.244.1.21:99 -m -w 1',
    ],
  },
  {
    name: "an endpoint port without a name is the unnamed service port's, as the API server makes it",
    given: [web, slice({ ports: '[{port: 8080}]', endpoints: '[{addresses: [10.244.1.11]}]' })],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1'],
  },
  {
    name: 'an endpoint port without a number is not used, and that is said',
    given: [web, slice({ ports: '[{name: ""}]', endpoints: twoReady })],
    expect: ['-A -t 10.96.0.80:80 -s rr'],
    notices: ['EndpointSlice default/web-1: ports[0] has no number ("all ports"): not used'],
  },
  {
    name: 'only the first address of an endpoint is used',
    given: [web, slice({ endpoints: '[{addresses: [10.244.1.11, 10.244.1.12]}]' })],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1'],
  },
  {
    name: 'a service without endpoints is a virtual service without servers',
    given: [web],
    expect: ['-A -t 10.96.0.80:80 -s rr'],
  },
  {
    name: 'an endpoint that is not ready gets nothing; one without conditions is ready',
    given: [web, slice({ endpoints: `[{addresses: [10.244.1.11], ${notReady}}, {addresses: [10.244.1.12]}]` })],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1'],
  },
  {
    name: 'a terminating endpoint that still serves gets nothing while another one is ready',
    given: [web, slice({ endpoints: `[{addresses: [10.244.1.11], ${draining}}, {addresses: [10.244.1.12]}]` })],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1'],
  },
  {
    name: 'terminating endpoints that still serve are used when none is ready',
    given: [
      web,
      slice({
        endpoints: `[{addresses: [10.244.1.11], ${draining}}, {addresses: [10.244.1.12], ${gone}},
          {addresses: [10.244.1.13], ${notReady}}]`,
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1'],
  },
  {
    name: 'whether any endpoint is ready is decided for each port',
    given: [
      service({ spec: '{clusterIP: 10.96.0.80, ports: [{name: a, port: 1}, {name: b, port: 2}]}' }),
      slice({ name: 's1', ports: '[{name: a, port: 11}]', endpoints: '[{addresses: [10.244.1.11]}]' }),
      slice({
        name: 's2',
        ports: '[{name: a, port: 11}, {name: b, port: 22}]',
        endpoints: `[{addresses: [10.244.1.12], ${draining}}]`,
      }),
    ],
    expect: [
      '-A -t 10.96.0.80:1 -s rr',
      '-a -t 10.96.0.80:1 -r 10.244.1.11:11 -m -w 1',
      '-A -t 10.96.0.80:2 -s rr',
      '-a -t 10.96.0.80:2 -r 10.244.1.12:22 -m -w 1',
    ],
  },
  {
    name: 'an endpoint that is in two slices is one server',
    given: [web, slice({ name: 's1', endpoints: twoReady }), slice({ name: 's2', endpoints: twoReady })],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1',
    ],
  },
  {
    name: 'an endpoint that terminates in one slice and not in another does not terminate, in either order',
    given: [
      web,
      slice({ name: 's1', endpoints: `[{addresses: [10.244.1.11], ${gone}}, {addresses: [10.244.1.12]}]` }),
      slice({ name: 's2', endpoints: `[{addresses: [10.244.1.11]}, {addresses: [10.244.1.12], ${gone}}]` }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1',
    ],
  },
  {
    name: 'an endpoint that one of two slices calls not ready is not ready, in either order',
    given: [
      web,
      slice({ name: 's1', endpoints: `[{addresses: [10.244.1.11], ${notReady}}, {addresses: [10.244.1.12]}]` }),
      slice({ name: 's2', endpoints: `[{addresses: [10.244.1.11]}, {addresses: [10.244.1.12], ${notReady}}]` }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr'],
  },
  {
    name: 'slices of another namespace, of another service and headless ones are not used',
    given: [
      web,
      slice({ name: 's1', namespace: 'other', endpoints: twoReady }),
      slice({ name: 's2', of: 'webber', endpoints: twoReady }),
      slice({
        name: 's3',
        labels: '{kubernetes.io/service-name: web, service.kubernetes.io/headless: ""}',
        endpoints: twoReady,
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr'],
  },
  {
    name: 'a slice that names no service and one of addressType FQDN are not used, and that is said',
    given: [
      web,
      slice({ name: 's1', labels: '{}', endpoints: twoReady }),
      slice({ name: 's2', type: 'FQDN', endpoints: '[{addresses: [a.example.com]}]' }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr'],
    notices: [
      'EndpointSlice default/s1: no label kubernetes.io/service-name: not used',
      'EndpointSlice default/s2: addressType FQDN: not used',
    ],
  },
  {
    name: 'headless services, ExternalName services and those of another proxy are not served',
    given: [
      service({ name: 'a', spec: '{clusterIP: None}' }),
      service({ name: 'b', spec: '{clusterIPs: [None], ports: [{port: 80}]}' }),
      service({ name: 'c', spec: '{type: ExternalName, externalName: example.com, clusterIP: 10.96.0.1}' }),
      service({
        name: 'd',
        labels: '{service.kubernetes.io/service-proxy-name: mesh}',
        spec: '{clusterIP: 10.96.0.2, ports: [{port: 80}]}',
      }),
    ],
    expect: [],
  },
  {
    name: 'a service without a cluster IP is not served, and that is said',
    given: [service({ spec: '{ports: [{port: 80}]}' })],
    expect: [],
    notices: ['Service default/web: it has no cluster IP (none is allocated here): not served'],
  },
  {
    name: 'session affinity by client is persistence with its timeout, three hours by default',
    given: [
      service({ name: 'a', spec: '{clusterIP: 10.96.0.1, ports: [{port: 80}], sessionAffinity: ClientIP}' }),
      service({
        name: 'b',
        spec: `{clusterIP: "fd00:96::1", ports: [{port: 80}], sessionAffinity: ClientIP,
          sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}`,
      }),
      service({ name: 'c', spec: '{clusterIP: 10.96.0.2, ports: [{port: 80}], sessionAffinity: None}' }),
    ],
    expect: ['-A -t 10.96.0.1:80 -s rr -p 10800', '-A -t [fd00:96::1]:80 -s rr -p 60', '-A -t 10.96.0.2:80 -s rr'],
  },
  {
    name: 'of two services that claim one address and port the first by name has it, and that is said',
    given: [
      service({ name: 'b', spec: '{clusterIP: 10.96.0.80, ports: [{name: x, port: 80}, {name: y, port: 81}]}' }),
      service({ name: 'a', spec: '{clusterIP: 10.96.0.80, ports: [{port: 80}]}' }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-A -t 10.96.0.80:81 -s rr'],
    notices: ["Service default/b: TCP 10.96.0.80:80 is Service default/a's already: not served"],
  },
]

testRows(rows)

t.test('an endpoint port whose name is unknown is not used, and that is said', async (t) => {
  const objects = objectsOf([web, slice({ endpoints: twoReady })].join('\n---\n'))
  const endpointSlices = objects.endpointSlices.map((each) => ({
    ...each,
    ports: [{ protocol: 'tcp' as const, port: 80 }],
  }))
  const { desired, notices } = translate({ ...objects, endpointSlices }, here)
  t.same(saveFormat(desired), ['-A -t 10.96.0.80:80 -s rr'])
  t.same(notices, [{ object: 'EndpointSlice default/web-1', reason: 'ports[0] has no name: not used' }])
})
