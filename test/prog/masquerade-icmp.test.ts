/** ICMP errors about masqueraded connections: what they quote is translated as the packet that it was. */
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import {
  both,
  everybody,
  type Family,
  families,
  given,
  own,
  packet,
  pass,
  send,
  server,
  vip,
  wrap,
} from '../helpers/prog-policy.ts'
import { datagram, type Leg, message, quote } from '../helpers/prog-flow.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

/** A router between the director and the far end says that a packet is too big. */
const routers = {
  IPv4: { clients: '10.1.0.254', servers: '10.2.0.254', kind: { type: 3, code: 4, rest: 1400 } },
  IPv6: { clients: 'fd00:1::fe', servers: 'fd00:2::fe', kind: { type: 2, code: 0, rest: 1400 } },
} as const

function tooBig(
  family: Family,
  leg: Leg,
  from: string,
  to: string,
  about: { from: string; to: string },
  ttl = 64,
): Uint8Array {
  /* As with IPVS the checksum of the quoted transport header stays. */
  const quoted = quote(datagram({ ...about, ttl: 60, payload: new Uint8Array(9), checksum: 0x1234 }))
  return message({ leg, from, to, ttl, payload: quoted, ...routers[family].kind })
}

function opening(family: Family, before: NonNullable<Step['before']>): Step {
  const client = wrap(families[family].client, 1000)
  return {
    at: 'ingress',
    side: 'clients',
    before,
    packet: packet('udp', { from: client, to: vip(family) }),
    expect: { action: 'pass', anyPacket: true, verdicts: { MASQUERADED: 1 } },
  }
}

/** The server's side says it: to the client, in two steps. */
function fromServers(family: Family): Row {
  const { client, own: host, virtual } = families[family]
  const router = routers[family].servers
  const sender = wrap(client, 1000)
  const half = tooBig(family, 'from server', router, client, { from: sender, to: server(family) })
  return {
    name: `${family}: what the server's side says reaches the client, about the packet that the client sent`,
    bypass: 'never',
    steps: [
      opening(family, given(family, { masquerade: everybody })),
      {
        at: 'ingress',
        side: 'servers',
        packet: tooBig(family, 'from server', router, host, { from: own(family), to: server(family) }),
        expect: { ...pass, packet: half },
      },
      {
        at: 'egress',
        side: 'clients',
        packet: tooBig(family, 'to client', router, client, { from: sender, to: server(family) }, 63),
        expect: {
          ...pass,
          packet: tooBig(family, 'to client', virtual, client, { from: sender, to: vip(family) }, 63),
          verdicts: { ICMP_FORWARD: 1 },
        },
      },
    ],
  }
}

/** The client's side says it: to the server, in two steps. */
function fromClients(family: Family): Row {
  const { client, server: real, virtual } = families[family]
  const router = routers[family].clients
  const receiver = wrap(client, 1000)
  return {
    name: `${family}: what the client's side says reaches the server, about the packet that the server sent`,
    bypass: 'never',
    steps: [
      opening(family, given(family, { masquerade: everybody })),
      {
        at: 'ingress',
        side: 'clients',
        packet: tooBig(family, 'from client', router, virtual, { from: vip(family), to: receiver }),
        expect: {
          ...pass,
          packet: tooBig(family, 'from client', router, real, { from: server(family), to: receiver }),
          verdicts: { ICMP_FORWARD: 1 },
        },
      },
      {
        at: 'egress',
        side: 'servers',
        packet: tooBig(family, 'to server', router, real, { from: server(family), to: receiver }, 63),
        expect: {
          ...pass,
          packet: tooBig(family, 'to server', router, real, { from: server(family), to: own(family) }, 63),
        },
      },
    ],
  }
}

/** About the host's own connection, at once. */
function toTheHost(family: Family): Row {
  const { outer, own: host, virtual } = families[family]
  const router = routers[family].servers
  const self = wrap(outer, 1000)
  return {
    name: `${family}: what is said of the host's own connection comes from the virtual address`,
    steps: [
      {
        at: 'egress',
        side: 'clients',
        own: true,
        before: given(family, {}),
        packet: packet('udp', { leg: 'to client', from: self, to: vip(family) }),
        expect: { ...send, anyPacket: true, verdicts: { MASQUERADED: 1 } },
      },
      {
        at: 'ingress',
        side: 'servers',
        packet: tooBig(family, 'from server', router, host, { from: own(family), to: server(family) }),
        expect: {
          ...pass,
          packet: tooBig(family, 'from server', virtual, outer, { from: self, to: vip(family) }),
          verdicts: { ICMP_FORWARD: 1 },
        },
      },
    ],
  }
}

t.test('ICMP about masqueraded connections', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  await testRows(
    t,
    datapath,
    both.flatMap((family) => [fromServers(family), fromClients(family), toTheHost(family)]),
  )
  datapath.close()
})
