/** Services that are not found by a whole endpoint: by firewall mark, and of port 0. */
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram, message, quote, segment } from '../helpers/prog-flow.ts'
import { answers, asks, bare, families, type Family, opens, syn, untouched } from '../helpers/prog-kinds.ts'
import { type GivenService, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

function portZero(family: Family, at: 'xdp' | 'ingress'): Row[] {
  const net = families[family]
  const any = (servers: readonly string[]): GivenService => ({
    at: `tcp ${net.virtual(0)}`,
    persistent: true,
    servers,
  })
  const name = (what: string) => `${family} at ${at}: ${what}`
  return [
    {
      name: name('a service of port 0 takes every port, and the server is asked at that'),
      services: [any([net.server(0)])],
      steps: [
        opens({ at }, net, net.virtual(80), net.server(80)),
        answers(at, net, net.server(80), net.virtual(80)),
        opens({ at }, net, net.virtual(65535), net.server(65535)),
        answers(at, net, net.server(65535), net.virtual(65535)),
      ],
    },
    {
      name: name("a server's own port does not count there"),
      services: [any([net.server(8080)])],
      steps: [opens({ at }, net, net.virtual(80), net.server(80)), answers(at, net, net.server(80), net.virtual(80))],
    },
    {
      name: name('a service of the very port goes before it'),
      services: [any([net.server(0)]), { at: `tcp ${net.virtual(80)}`, servers: [net.other(8080)] }],
      steps: [
        opens({ at }, net, net.virtual(80), net.other(8080)),
        answers(at, net, net.other(8080), net.virtual(80)),
        opens({ at }, net, net.virtual(81), net.server(81)),
      ],
    },
    {
      name: name('it is no other protocol, and no other address'),
      services: [any([net.server(0)])],
      steps: [
        { at, side: 'clients', packet: datagram({ from: net.client, to: net.virtual(80) }), expect: untouched },
        opens({ at }, net, net.foreign(80)),
      ],
    },
    {
      name: name('what its servers send to others is left alone'),
      services: [any([net.server(0)])],
      steps: [answers(at, net, net.server(80))],
    },
  ]
}

function portZeroRefusals(family: Family): Row[] {
  const net = families[family]
  const stray = { flags: 'A', seq: 5000, ack: 7000 } as const
  const reset = segment({
    leg: 'to client',
    from: net.virtual(80),
    to: net.client,
    flags: 'R',
    seq: 7000,
    ack: 0,
    window: 0,
    ipv4: { tos: 0, df: true },
  })
  const local: Step = {
    at: 'ingress',
    side: 'clients',
    packet: segment({ from: net.client, to: net.local(80), ...stray }),
    expect: untouched,
  }
  return [
    {
      name: `${family}: a segment of no connection is the stack's at an address of the host`,
      services: [{ at: `tcp ${net.local(0)}`, persistent: true, servers: [net.server(0)] }],
      steps: [local],
    },
    {
      name: `${family}: elsewhere it is answered by a reset`,
      services: [{ at: `tcp ${net.virtual(0)}`, persistent: true, servers: [net.server(0)] }],
      steps: [
        {
          ...local,
          packet: segment({ from: net.client, to: net.virtual(80), ...stray }),
          expect: { action: 'send', packet: reset, verdicts: { REFUSE_NO_CONN: 1 } },
        },
      ],
    },
  ]
}

function marks(family: Family): Row[] {
  const net = families[family]
  const seven = { at: 'ingress', mark: 7 } as const
  const given = (servers: readonly string[]): GivenService => ({ at: net.mark, servers })
  return [
    {
      name: `${family}: a marked packet finds the service by mark, at any address and port, of either protocol`,
      services: [given([net.server(0)])],
      steps: [
        opens(seven, net, net.virtual(80), net.server(80)),
        opens(seven, net, net.foreign(443), net.server(443)),
        asks(seven, net, net.virtual(53), net.server(53)),
        answers('ingress', net, net.server(80), net.virtual(80)),
        answers('xdp', net, net.server(443), net.foreign(443)),
      ],
    },
    {
      name: `${family}: a server with a port is asked at that`,
      services: [given([net.server(8080)])],
      steps: [
        opens(seven, net, net.virtual(80), net.server(8080)),
        answers('ingress', net, net.server(8080), net.virtual(80)),
      ],
    },
    {
      name: `${family}: but if the service is persistent, at the packet's`,
      services: [{ ...given([net.server(8080)]), persistent: true }],
      steps: [
        opens(seven, net, net.virtual(80), net.server(80)),
        answers('ingress', net, net.server(80), net.virtual(80)),
      ],
    },
    {
      name: `${family}: without the mark, or with another, a packet is not the service's`,
      services: [given([net.server(0)])],
      steps: [opens({ at: 'ingress' }, net, net.virtual(80)), opens({ ...seven, mark: 8 }, net, net.virtual(80))],
    },
    {
      name: `${family}: the mark goes before the address`,
      services: [given([net.server(0)]), { at: `tcp ${net.virtual(80)}`, servers: [net.other(8080)] }],
      steps: [
        opens(seven, net, net.virtual(80), net.server(80)),
        opens({ ...seven, mark: 8 }, net, net.virtual(80), net.server(80)),
        {
          ...opens({ at: 'ingress' }, net, net.virtual(80)),
          packet: segment({ from: net.client.replace('1000', '1001'), to: net.virtual(80), ...syn }),
          expect: {
            action: 'send',
            packet: segment({
              leg: 'to server',
              from: net.client.replace('1000', '1001'),
              to: net.other(8080),
              ttl: 63,
              ...syn,
            }),
          },
        },
      ],
    },
    {
      name: `${family}: a connection is found without its mark, in XDP too`,
      services: [given([net.server(0)])],
      steps: [
        opens(seven, net, net.virtual(80), net.server(80)),
        opens({ at: 'xdp' }, net, net.virtual(80), net.server(80)),
        opens({ at: 'ingress' }, net, net.virtual(80), net.server(80)),
      ],
    },
    {
      name: `${family}: a segment of no connection goes on up the stack`,
      services: [given([net.server(0)])],
      steps: [
        {
          ...seven,
          side: 'clients',
          packet: segment({ from: net.client, to: net.virtual(80), flags: 'A' }),
          expect: untouched,
        },
      ],
    },
  ]
}

/** The count of an address's services stands where a service by mark has its mark, under a hash that can be the same. */
function noMarks(family: Family): Row {
  const net = families[family]
  const services = [80, 81, 82, 83, 84, 85, 86].map((port) => ({
    at: `tcp ${family === 'IPv4' ? `7.0.0.0:${port}` : `[700::]:${port}`}`,
    servers: [net.server(port)],
  }))
  const away = { at: family === 'IPv4' ? 'mark 99' : 'mark6 99', servers: [net.server(0)] }
  return {
    name: `${family}: an address with as many services is no service by mark`,
    services: [away, ...services],
    steps: [opens({ at: 'ingress', mark: 7 }, net, net.virtual(80))],
  }
}

function onePacket(family: Family): Row {
  const net = families[family]
  const step = (server: string): Step => {
    const packet = datagram({ from: net.client, to: net.virtual(53) })
    const sent = datagram({ from: net.client, to: server })
    return {
      at: 'ingress',
      mark: 7,
      side: 'clients',
      packet,
      expect: { action: 'pass', packet: sent, connections: [] },
    }
  }
  return {
    name: `${family}: with one-packet scheduling each datagram is scheduled, and TCP as ever`,
    services: [{ at: net.mark, onePacket: true, servers: [net.server(0), net.other(5353)] }],
    steps: [
      step(net.other(5353)),
      step(net.server(53)),
      step(net.other(5353)),
      opens({ at: 'ingress', mark: 7 }, net, net.virtual(80), net.server(80)),
    ],
  }
}

function refused(family: Family): Row {
  const net = families[family]
  const packet = segment({ from: net.client, to: net.virtual(80), ...syn })
  const four = family === 'IPv4'
  const [from = '', to = ''] = [net.virtual(80), net.client].map((text) =>
    text.replace(/\]?:\d+$/, '').replace('[', ''),
  )
  const answer = message({
    leg: 'to client',
    from,
    to,
    payload: quote(packet),
    ...(four ? { type: 3, code: 3 } : { type: 1, code: 4 }),
    ipv4: { tos: 0xc0, df: false },
  })
  return {
    name: `${family}: without a usable server the client of a service by mark is told`,
    services: [{ at: net.mark, servers: [`${net.server(0)} 0`] }],
    steps: [
      {
        at: 'ingress',
        mark: 7,
        side: 'clients',
        packet,
        expect: { action: 'send', packet: answer, verdicts: { REFUSE_NO_SERVER: 1 }, connections: [] },
      },
    ],
  }
}

/** An error of the client's about a packet of the server's, of a connection that no filter bit of an endpoint tells of. */
function errors(family: Family): Row {
  const net = families[family]
  /* As much as a router has to quote; of the rest IPVS changes no checksum either. */
  const quoted = (from: string) => quote(segment({ from, to: net.client, flags: 'A' }), family === 'IPv4' ? 28 : 48)
  const { type, code } = net.frag
  const packet = message({
    from: bare(net.client),
    to: bare(net.virtual(80)),
    payload: quoted(net.virtual(80)),
    type,
    code,
  })
  const sent = message({
    leg: 'to server',
    ttl: 63,
    from: bare(net.client),
    to: bare(net.server(80)),
    payload: quoted(net.server(80)),
    type,
    code,
  })
  return {
    name: `${family}: an ICMP error about a connection of a service by mark is translated`,
    services: [{ at: net.mark, servers: [net.server(0)] }],
    steps: [
      opens({ at: 'ingress', mark: 7 }, net, net.virtual(80), net.server(80)),
      {
        at: 'ingress',
        side: 'clients',
        packet,
        expect: { action: 'send', packet: sent, verdicts: { ICMP_FORWARD: 1 } },
      },
    ],
  }
}

t.test('services of other kinds', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  const both = ['IPv4', 'IPv6'] as const
  await t.test('port 0', async (t) => {
    for (const family of both) {
      await testRows(t, datapath, [
        ...portZero(family, 'xdp'),
        ...portZero(family, 'ingress'),
        ...portZeroRefusals(family),
      ])
    }
  })
  await t.test('firewall marks', async (t) => {
    for (const family of both) {
      const rows = [noMarks(family), onePacket(family), refused(family), errors(family)]
      await testRows(t, datapath, [...marks(family), ...rows])
    }
  })
})
