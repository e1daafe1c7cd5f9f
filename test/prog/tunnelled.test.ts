/** What another node sends on in a tunnel: taken out, given to a server of this node, answered from here; and by nobody else. */
import t from 'tap'
import type { ServicePolicy } from '../../src/model/types.ts'
import { real, service, virtual } from '../helpers/director.ts'
import { build, concat, ether, ipv4, ipv6, udp } from '../helpers/packet.ts'
import { Datapath, macs } from '../helpers/prog.ts'
import { type Leg, message, quote } from '../helpers/prog-flow.ts'
import { both, type Family, families, nobody, packet, pass, send, server, vip, wrap } from '../helpers/prog-policy.ts'
import { methodOf, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

type Method = 'ipip' | 'gue'
const methods = ['ipip', 'gue'] as const

/** Another node, this one, and who is none. */
const nodes = {
  IPv4: { other: '10.1.0.77', own: '10.254.1.1', stranger: '10.1.0.78' },
  IPv6: { other: 'fd00:1::77', own: 'fd00:fe:1::1', stranger: 'fd00:1::78' },
} as const

interface Outer {
  readonly from?: string
  readonly to?: string
  readonly port?: number
}

/** A frame whose packet another node put into a tunnel. */
function wrapped(family: Family, method: Method, frame: Uint8Array, o: Outer = {}): Uint8Array {
  const { from = nodes[family].other, to = nodes[family].own, port = 6080 } = o
  const inner = family === 'IPv4' ? 4 : 41
  const link = ether({ from: macs.client, to: macs.cl0 })
  const ip = quote(frame)
  const protocol = method === 'gue' ? 17 : inner
  const network = family === 'IPv4' ? ipv4({ from, to, protocol }) : ipv6({ from, to, protocol })
  if (method === 'ipip') return build(link, network, ip)
  const gue = concat(Uint8Array.of(0, inner, 0, 0), ip)
  return build(link, network, udp({ sport: 40_000, dport: port, checksum: 0 }), gue)
}

interface Given {
  readonly servers?: readonly string[]
  readonly policy?: Partial<ServicePolicy>
  readonly persistent?: boolean
  readonly scheduler?: 'rr' | 'wrr' | 'sh'
}

/** Nodes that know each other, and services whose connections they send on: "10.2.0.11:8080", behind a blank the method. */
function given(family: Family, o: Given = {}): NonNullable<Step['before']> {
  return (datapath) => {
    const number = family === 'IPv4' ? 4 : 6
    const { own, other } = nodes[family]
    datapath.table.setPeers({
      own: [{ family: number, address: own }],
      others: [{ family: number, address: other }],
    })
    const policy = {
      masquerade: nobody,
      whenEmpty: 'refuse',
      nodePort: false,
      foreign: false,
      tunnelled: true,
    } as const
    const persistence = { timeoutS: 300, mask: family === 'IPv4' ? '255.255.255.255' : 128 }
    const servers = (o.servers ?? [`${families[family].server} masq`]).map((text) => {
      const [address = '', method = ''] = text.split(' ')
      return { ...real(address, method === 'masq' ? 8080 : 80), ...methodOf(method) }
    })
    const desired = (['tcp', 'udp'] as const).map((protocol) => ({
      service: {
        ...service(virtual(families[family].virtual, 80, protocol), o.scheduler ?? 'wrr'),
        ...(o.persistent === true ? { persistence } : {}),
        policy: { ...policy, ...o.policy },
      },
      servers,
    }))
    const { failed } = datapath.table.apply('kubernetes', desired)
    if (failed.length > 0) throw failed[0]?.error
  }
}

const client = (family: Family, port = 1000): string => wrap(families[family].client, port)
const asks = (family: Family, protocol: 'tcp' | 'udp' = 'tcp', port = 1000): Uint8Array =>
  packet(protocol, { from: client(family, port), to: vip(family), flags: 'S', ttl: 63 })

function arrives(frame: Uint8Array, expect: Step['expect'], before?: Step['before']): Step {
  return { at: 'ingress', side: 'clients', ...(before === undefined ? {} : { before }), packet: frame, expect }
}

/** What a server of this node gets. */
function translated(family: Family, protocol: 'tcp' | 'udp' = 'tcp', to = server(family), port = 1000): Step['expect'] {
  const leg: Leg = 'to server'
  return { ...send, packet: packet(protocol, { leg, from: client(family, port), to, flags: 'S', ttl: 62 }) }
}

function wholeWay(family: Family, protocol: 'tcp' | 'udp', method: Method): Row {
  const frame = wrapped(family, method, asks(family, protocol))
  return {
    name: `${family}, ${protocol}, ${method}: a server of this node gets the client's packet, the answer goes to the client`,
    steps: [
      { at: 'xdp', side: 'clients', before: given(family), packet: frame, expect: pass },
      arrives(frame, translated(family, protocol)),
      {
        at: 'ingress',
        side: 'servers',
        packet: packet(protocol, { leg: 'from server', from: server(family), to: client(family), flags: 'SA' }),
        expect: {
          ...send,
          packet: packet(protocol, { leg: 'to client', from: vip(family), to: client(family), flags: 'SA', ttl: 63 }),
          connections: [
            protocol === 'tcp'
              ? `SYN_RECV 59 ${client(family)} ${vip(family)} ${server(family)}`
              : `UDP 299 ${client(family)} ${vip(family)} ${server(family)}`,
          ],
        },
      },
    ],
  }
}

/** What is not to be taken out. */
function others(family: Family, method: Method): Row[] {
  const { stranger, own } = nodes[family]
  const elsewhere = packet('tcp', { from: client(family), to: wrap(families[family].insider, 80), flags: 'S' })
  const name = `${family}, ${method}`
  return [
    {
      name: `${name}: what no node sent is dropped, be it in this node's own name`,
      steps: [stranger, own].map((from) =>
        arrives(
          wrapped(family, method, asks(family), { from }),
          { action: 'drop', verdicts: { DROP_PEER: 1 }, connections: [] },
          given(family),
        ),
      ),
    },
    {
      name: `${name}: the stack gets tunnels with other packets, and those that end elsewhere`,
      steps: [
        arrives(wrapped(family, method, elsewhere), pass, given(family)),
        arrives(wrapped(family, method, asks(family), { to: families[family].insider }), pass),
      ],
    },
    {
      name: `${name}: the stack gets tunnels for a service that nodes do not send on`,
      steps: [arrives(wrapped(family, method, asks(family)), pass, given(family, { policy: { tunnelled: false } }))],
    },
    {
      name: `${name}: the stack gets tunnels where no node is known`,
      steps: [
        arrives(wrapped(family, method, asks(family)), pass, (datapath) => {
          given(family)(datapath)
          datapath.table.setPeers({ own: [], others: [] })
        }),
      ],
    },
  ]
}

/** What looks like a tunnel, for an address that only services are to have. */
function inRange(family: Family): Row {
  const number = family === 'IPv4' ? 4 : 6
  const address = families[family].virtual
  const at = packet('udp', { from: client(family), to: wrap(address, 6080) })
  return {
    name: `${family}: what is sent to the port of tunnels at a service's address is refused as at any port that it has not`,
    steps: [
      arrives(at, { ...send, anyPacket: true, verdicts: { REFUSE_NO_PORT: 1 } }, (datapath) => {
        given(family)(datapath)
        datapath.table.setServiceRanges([{ family: number, address, length: number === 4 ? 24 : 64 }], true)
      }),
    ],
  }
}

/** Nothing goes on to a third node. */
function once(family: Family): Row[] {
  const { insider, server: first } = families[family]
  const far = nodes[family].stranger
  const frame = wrapped(family, 'ipip', asks(family))
  return [
    {
      name: `${family}: of local servers and other nodes only the former are chosen`,
      steps: Array.from({ length: 4 }, (_, i) =>
        arrives(
          wrapped(family, 'ipip', asks(family, 'tcp', 1000 + i)),
          translated(family, 'tcp', server(family), 1000 + i),
          i === 0 ? given(family, { servers: [`${far} ipip`, `${first} masq`] }) : undefined,
        ),
      ),
    },
    {
      name: `${family}: without a local server the client is refused`,
      steps: [
        arrives(
          frame,
          { ...send, anyPacket: true, verdicts: { REFUSE_NO_SERVER: 1 } },
          given(family, { servers: [`${far} ipip`] }),
        ),
      ],
    },
    {
      name: `${family}: a connection that was sent on from here ends when another node sends it, and is begun anew`,
      steps: [
        arrives(asks(family), { ...send, anyPacket: true }, given(family, { servers: [`${far} ipip`] })),
        arrives(frame, { action: 'drop', anyPacket: true, verdicts: { DROP_LOOP: 1 }, connections: [] }),
        arrives(frame, translated(family), given(family)),
      ],
    },
    {
      name: `${family}: by load, if nothing binds clients to servers`,
      steps: [
        arrives(frame, translated(family), given(family, { servers: [`${insider} masq`, `${first} masq`] })),
        arrives(
          wrapped(family, 'ipip', asks(family, 'tcp', 1001)),
          translated(family, 'tcp', wrap(insider, 8080), 1001),
        ),
      ],
    },
  ]
}

/** An error about what a server of this node answered comes by way of the node that has the address. */
function errors(family: Family): Row {
  const [type, code] = family === 'IPv4' ? [3, 4] : [2, 0]
  const sent = packet('tcp', { leg: 'to client', from: vip(family), to: client(family), flags: 'A', ttl: 60 })
  /* Nobody adjusts the transport checksum in a quote. */
  const checksum = new DataView(sent.buffer).getUint16(family === 'IPv4' ? 50 : 70)
  const seen = packet('tcp', { from: server(family), to: client(family), flags: 'A', ttl: 60, checksum })
  const router = nodes[family].stranger
  const error = (to: string, quoted: Uint8Array, o: { leg?: Leg; ttl: number }) =>
    message({ ...o, from: router, to, type, code, rest: 1300, payload: quote(quoted) })
  return {
    name: `${family}: an ICMP error that comes in a tunnel is translated for the server that it is about`,
    steps: [
      arrives(wrapped(family, 'gue', asks(family)), translated(family), given(family)),
      arrives(wrapped(family, 'gue', error(families[family].virtual, sent, { ttl: 63 })), {
        ...send,
        packet: error(families[family].server, seen, { leg: 'to server', ttl: 62 }),
        verdicts: { ICMP_FORWARD: 1 },
      }),
    ],
  }
}

/** Node ports: at the other node's address, served by this node's service of that port. */
const nodePort = 30_080
const elsewhere = (family: Family): string => wrap(nodes[family].other, nodePort)

function givenNodePort(family: Family, policy: Partial<ServicePolicy> = {}): NonNullable<Step['before']> {
  return (datapath) => {
    const number = family === 'IPv4' ? 4 : 6
    const { own, other } = nodes[family]
    const peer = (address: string) => [{ family: number, address }] as const
    datapath.table.setPeers({ own: peer(own), others: peer(other) })
    datapath.table.setNodePortAddresses(family === 'IPv4' ? { ipv4: own } : { ipv6: own })
    const desired = (['tcp', 'udp'] as const).map((protocol) => ({
      service: {
        ...service(virtual(own, nodePort, protocol), 'wrr'),
        policy: { masquerade: nobody, whenEmpty: 'refuse', nodePort: true, foreign: false, tunnelled: true, ...policy },
      } as const,
      servers: [real(families[family].server, 8080)],
    }))
    const { failed } = datapath.table.apply('kubernetes', desired)
    if (failed.length > 0) throw failed[0]?.error
  }
}

function nodePorts(family: Family, protocol: 'tcp' | 'udp', method: Method): Row[] {
  const call = (to: string) => packet(protocol, { from: client(family), to, flags: 'S', ttl: 63 })
  const frame = wrapped(family, method, call(elsewhere(family)))
  const name = `${family}, ${protocol}, ${method}`
  return [
    {
      name: `${name}: a node port of the other node's is answered from here, as that node's`,
      steps: [
        { at: 'xdp', side: 'clients', before: givenNodePort(family), packet: frame, expect: pass },
        arrives(frame, translated(family, protocol)),
        arrives(frame, translated(family, protocol)),
        {
          at: 'ingress',
          side: 'servers',
          packet: packet(protocol, { leg: 'from server', from: server(family), to: client(family), flags: 'SA' }),
          expect: {
            ...send,
            packet: packet(protocol, {
              leg: 'to client',
              from: elsewhere(family),
              to: client(family),
              flags: 'SA',
              ttl: 63,
            }),
          },
        },
      ],
    },
    {
      name: `${name}: but not by way of what no node sent, at an address of no node, at a port of no service`,
      steps: [
        arrives(
          wrapped(family, method, call(elsewhere(family)), { from: nodes[family].stranger }),
          { action: 'drop', verdicts: { DROP_PEER: 1 }, connections: [] },
          givenNodePort(family),
        ),
        arrives(wrapped(family, method, call(wrap(nodes[family].stranger, nodePort))), pass),
        arrives(wrapped(family, method, call(wrap(nodes[family].other, nodePort + 1))), pass),
      ],
    },
    {
      name: `${name}: nor for a service that nodes do not send on, nor without a tunnel`,
      steps: [
        arrives(frame, pass, givenNodePort(family, { tunnelled: false })),
        arrives(call(elsewhere(family)), pass, givenNodePort(family)),
      ],
    },
  ]
}

/** An error about what was answered as another node's node port. */
function nodePortErrors(family: Family): Row {
  const [type, code] = family === 'IPv4' ? [3, 4] : [2, 0]
  const router = nodes[family].stranger
  const sent = packet('tcp', { leg: 'to client', from: elsewhere(family), to: client(family), flags: 'A', ttl: 60 })
  const checksum = new DataView(sent.buffer).getUint16(family === 'IPv4' ? 50 : 70)
  const seen = packet('tcp', { from: server(family), to: client(family), flags: 'A', ttl: 60, checksum })
  const error = (to: string, quoted: Uint8Array, o: { leg?: Leg; ttl: number }) =>
    message({ ...o, from: router, to, type, code, rest: 1300, payload: quote(quoted) })
  const about = (quoted: Uint8Array) => wrapped(family, 'gue', error(nodes[family].other, quoted, { ttl: 63 }))
  const foreign = packet('tcp', {
    leg: 'to client',
    from: wrap(nodes[family].other, 22),
    to: client(family),
    flags: 'A',
  })
  return {
    name: `${family}: an ICMP error about what was answered as another node's is translated, others are the stack's`,
    steps: [
      arrives(
        wrapped(family, 'gue', packet('tcp', { from: client(family), to: elsewhere(family), flags: 'S', ttl: 63 })),
        translated(family),
        givenNodePort(family),
      ),
      arrives(about(sent), {
        ...send,
        packet: error(families[family].server, seen, { leg: 'to server', ttl: 62 }),
        verdicts: { ICMP_FORWARD: 1 },
      }),
      arrives(about(foreign), pass),
    ],
  }
}

t.test('packets in tunnels from other nodes', { skip: needsRoot }, async (t) => {
  t.setTimeout(240_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [
    ...both.flatMap((family) =>
      methods.flatMap((method) => [
        wholeWay(family, 'tcp', method),
        wholeWay(family, 'udp', method),
        ...others(family, method),
      ]),
    ),
    ...both.flatMap((family) => [...once(family), errors(family), inRange(family), nodePortErrors(family)]),
    ...both.flatMap((family) =>
      methods.flatMap((method) => (['tcp', 'udp'] as const).flatMap((protocol) => nodePorts(family, protocol, method))),
    ),
  ])

  for (const how of ['persistence', 'sh'] as const) {
    await t.test(`with ${how} a client stays with a server, and clients are spread`, async (t) => {
      datapath.clear()
      const servers = ['10.2.0.11', '10.2.0.12', '10.2.0.13', '10.2.0.14'].map((address) => `${address} masq`)
      given('IPv4', { servers, ...(how === 'sh' ? { scheduler: 'sh' } : { persistent: true }) })(datapath)
      const chosen = (host: number, port: number): string => {
        const inner = packet('tcp', { from: `10.1.7.${host}:${port}`, to: vip('IPv4'), flags: 'S' })
        const { packet: sent } = datapath.run({
          at: 'ingress',
          side: 'clients',
          packet: wrapped('IPv4', 'ipip', inner),
        })
        return sent.subarray(30, 34).join('.')
      }
      const of = Array.from({ length: 64 }, (_, host) => chosen(host + 1, 1000))
      const again = Array.from(of, (_, i) => chosen(of.length - i, 2000)).toReversed()
      t.same(again, of)
      t.equal(new Set(of).size, servers.length)
    })
  }
  datapath.close()
})
