import { draining, notReady, service, slice, testRows, web, type Row } from './translate-rows.ts'

/** Services that are reached from outside of the cluster, and where their clients go. */
const rows: readonly Row[] = [
  {
    name: 'external IPs and addresses of load balancers of the families that the service has are served as its cluster IPs',
    given: [
      service({
        spec: `{type: LoadBalancer, clusterIP: 10.96.0.80, externalIPs: [198.51.100.7, "fd00::7"], ports: [{port: 80}]}`,
        status: `{loadBalancer: {ingress: [{ip: 203.0.113.1}, {ip: 203.0.113.2, ipMode: Proxy}, {hostname: lb.example.com},
          {ip: 203.0.113.3, ipMode: VIP}, {ip: "fd00::8"}]}}`,
      }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-A -t 198.51.100.7:80 -s rr',
      '-A -t 203.0.113.1:80 -s rr',
      '-A -t 203.0.113.3:80 -s rr',
    ],
  },
  {
    name: 'a node port is served on each address of the node that has its family',
    given: [
      service({ spec: '{type: NodePort, clusterIP: 10.96.0.80, ports: [{port: 80, nodePort: 30080}]}' }),
      slice({ endpoints: '[{addresses: [10.244.1.11]}]' }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-A -t 192.0.2.1:30080 -s rr',
      '-a -t 192.0.2.1:30080 -r 10.244.1.11:8080 -m -w 1',
      '-A -t 198.51.100.1:30080 -s rr',
      '-a -t 198.51.100.1:30080 -r 10.244.1.11:8080 -m -w 1',
    ],
  },
  {
    name: 'externalTrafficPolicy Local leaves the cluster IP all endpoints, and the others those of this node',
    given: [
      service({
        spec: `{type: ClusterIP, clusterIP: 10.96.0.80, externalIPs: [198.51.100.7], externalTrafficPolicy: Local,
          ports: [{port: 80}]}`,
      }),
      slice({ endpoints: '[{addresses: [10.244.1.11], nodeName: here}, {addresses: [10.244.2.11], nodeName: there}]' }),
    ],
    expect: [
      '-A -t 10.96.0.80:80 -s rr',
      '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
      '-a -t 10.96.0.80:80 -r 10.244.2.11:8080 -m -w 1',
      '-A -t 198.51.100.7:80 -s rr',
      '-a -t 198.51.100.7:80 -r 10.244.1.11:8080 -m -w 1',
    ],
  },
  {
    name: 'externalTrafficPolicy Local counts only for a service that is reached from outside',
    given: [
      service({ spec: '{clusterIP: 10.96.0.80, externalTrafficPolicy: Local, ports: [{port: 80}]}' }),
      slice({ endpoints: '[{addresses: [10.244.2.11], nodeName: there}]' }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.2.11:8080 -m -w 1'],
  },
  {
    name: 'internalTrafficPolicy Local uses endpoints of this node; of those that terminate only if none here is ready',
    given: [
      service({ spec: '{clusterIP: 10.96.0.80, internalTrafficPolicy: Local, ports: [{port: 80}]}' }),
      slice({
        endpoints: `[{addresses: [10.244.1.11], nodeName: here, ${draining}}, {addresses: [10.244.2.11], nodeName: there}]`,
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1'],
  },
  {
    name: 'hints for nodes go before hints for zones',
    given: [
      web,
      slice({
        endpoints: `[{addresses: [10.244.1.11], hints: {forZones: [{name: z1}], forNodes: [{name: here}]}},
          {addresses: [10.244.1.12], hints: {forZones: [{name: z1}], forNodes: [{name: there}]}}]`,
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1'],
  },
  {
    name: 'hints count only if every ready endpoint has one, and some are for this zone',
    given: [
      service({ name: 'a', spec: '{clusterIP: 10.96.0.1, ports: [{port: 80}]}' }),
      slice({
        name: 'a',
        of: 'a',
        endpoints: '[{addresses: [10.1.0.1], hints: {forZones: [{name: z1}]}}, {addresses: [10.1.0.2]}]',
      }),
      service({ name: 'b', spec: '{clusterIP: 10.96.0.2, ports: [{port: 80}]}' }),
      slice({ name: 'b', of: 'b', endpoints: '[{addresses: [10.1.0.3], hints: {forZones: [{name: z2}]}}]' }),
      service({ name: 'c', spec: '{clusterIP: 10.96.0.3, ports: [{port: 80}]}' }),
      slice({
        name: 'c',
        of: 'c',
        endpoints: `[{addresses: [10.1.0.4], hints: {forZones: [{name: z1}]}}, {addresses: [10.1.0.5], ${notReady}},
          {addresses: [10.1.0.6], hints: {forZones: [{name: z2}]}}]`,
      }),
    ],
    expect: [
      '-A -t 10.96.0.1:80 -s rr',
      '-a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 1',
      '-a -t 10.96.0.1:80 -r 10.1.0.2:8080 -m -w 1',
      '-A -t 10.96.0.2:80 -s rr',
      '-a -t 10.96.0.2:80 -r 10.1.0.3:8080 -m -w 1',
      '-A -t 10.96.0.3:80 -s rr',
      '-a -t 10.96.0.3:80 -r 10.1.0.4:8080 -m -w 1',
    ],
  },
  {
    name: 'an address that a service names twice is one virtual service',
    given: [
      service({
        spec: '{type: LoadBalancer, clusterIP: 10.96.0.80, externalIPs: [203.0.113.1], ports: [{port: 80}]}',
        status: '{loadBalancer: {ingress: [{ip: 203.0.113.1}]}}',
      }),
    ],
    expect: ['-A -t 10.96.0.80:80 -s rr', '-A -t 203.0.113.1:80 -s rr'],
  },
]

testRows(rows)
