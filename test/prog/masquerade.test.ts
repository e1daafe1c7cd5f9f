/** Masquerade, policies and audiences: what Kubernetes asks beyond forwarding, packet by packet. */
import t from 'tap'
import { Datapath, macs } from '../helpers/prog.ts'
import {
  both,
  everybody,
  type Family,
  families,
  given,
  nobody,
  own,
  packet,
  pass,
  send,
  server,
  vip,
  wrap,
} from '../helpers/prog-policy.ts'
import { type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

/** A request and its answer, past the stack. */
function past(family: Family, protocol: 'tcp' | 'udp', at: 'ingress' | 'xdp'): Row {
  const client = wrap(families[family].client, 1000)
  return {
    name: `${family}, ${protocol}, ${at}: past the stack both ends change at once`,
    steps: [
      {
        at,
        side: 'clients',
        before: given(family, { masquerade: everybody }),
        packet: packet(protocol, { from: client, to: vip(family), flags: 'S' }),
        expect: {
          ...send,
          verdicts: { MASQUERADED: 1 },
          packet: packet(protocol, { leg: 'to server', from: own(family), to: server(family), flags: 'S', ttl: 63 }),
        },
      },
      {
        at,
        side: 'servers',
        packet: packet(protocol, { leg: 'from server', from: server(family), to: own(family), flags: 'SA' }),
        expect: {
          ...send,
          packet: packet(protocol, { leg: 'to client', from: vip(family), to: client, flags: 'SA', ttl: 63 }),
          connections: [
            protocol === 'tcp'
              ? `SYN_RECV 59 ${client} ${vip(family)} ${server(family)}`
              : `UDP 299 ${client} ${vip(family)} ${server(family)}`,
          ],
        },
      },
    ],
  }
}

/** The same through the stack, which sees client and server. */
function through(family: Family, protocol: 'tcp' | 'udp'): Row {
  const client = wrap(families[family].client, 1000)
  return {
    name: `${family}, ${protocol}: the stack sees client and server in both directions`,
    bypass: 'never',
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        before: given(family, { masquerade: everybody }),
        packet: packet(protocol, { from: client, to: vip(family), flags: 'S' }),
        expect: {
          verdicts: { MASQUERADED: 1 },
          ...pass,
          packet: packet(protocol, { from: client, to: server(family), flags: 'S' }),
        },
      },
      {
        at: 'egress',
        side: 'servers',
        packet: packet(protocol, { leg: 'to server', from: client, to: server(family), flags: 'S', ttl: 63 }),
        expect: {
          ...pass,
          packet: packet(protocol, { leg: 'to server', from: own(family), to: server(family), flags: 'S', ttl: 63 }),
        },
      },
      {
        at: 'xdp',
        side: 'servers',
        packet: packet(protocol, { leg: 'from server', from: server(family), to: own(family), flags: 'SA' }),
        expect: pass,
      },
      {
        at: 'ingress',
        side: 'servers',
        packet: packet(protocol, { leg: 'from server', from: server(family), to: own(family), flags: 'SA' }),
        expect: {
          ...pass,
          packet: packet(protocol, { leg: 'from server', from: server(family), to: client, flags: 'SA' }),
        },
      },
      {
        at: 'egress',
        side: 'clients',
        packet: packet(protocol, { leg: 'to client', from: server(family), to: client, flags: 'SA', ttl: 63 }),
        expect: {
          ...pass,
          packet: packet(protocol, { leg: 'to client', from: vip(family), to: client, flags: 'SA', ttl: 63 }),
        },
      },
    ],
  }
}

/** Who is masqueraded, by where he comes from. */
function origins(family: Family): Row {
  const syn = (from: string) => packet('tcp', { from, to: vip(family), flags: 'S' })
  const pod = wrap(families[family].pod, 1000)
  const client = wrap(families[family].client, 1000)
  return {
    name: `${family}: pods keep their address where only others are masqueraded`,
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        before: given(family, { masquerade: { ...nobody, others: true } }),
        packet: syn(pod),
        expect: {
          ...send,
          packet: packet('tcp', { leg: 'to server', from: pod, to: server(family), flags: 'S', ttl: 63 }),
        },
      },
      {
        at: 'ingress',
        side: 'clients',
        packet: syn(client),
        expect: {
          ...send,
          verdicts: { MASQUERADED: 1 },
          packet: packet('tcp', { leg: 'to server', from: own(family), to: server(family), flags: 'S', ttl: 63 }),
        },
      },
    ],
  }
}

/** A server calls its own service. */
function hairpin(family: Family, bypass: 'never' | 'always'): Row {
  const self = wrap(families[family].server, 1000)
  const call = { at: 'ingress', side: 'servers' } as const
  const leg = 'from server'
  const request = packet('tcp', { leg, from: self, to: vip(family), flags: 'S' })
  return bypass === 'always'
    ? {
        name: `${family}: a server that calls its own service is not answered by itself, past the stack`,
        steps: [
          {
            ...call,
            before: given(family, {}),
            packet: request,
            expect: {
              verdicts: { MASQUERADED: 1 },
              ...send,
              packet: packet('tcp', { leg: 'to server', from: own(family), to: server(family), flags: 'S', ttl: 63 }),
            },
          },
          {
            ...call,
            packet: packet('tcp', { leg, from: server(family), to: own(family), flags: 'SA' }),
            expect: {
              ...send,
              packet: packet('tcp', { leg: 'to server', from: vip(family), to: self, flags: 'SA', ttl: 63 }),
            },
          },
        ],
      }
    : {
        name: `${family}: nor through the stack`,
        bypass,
        steps: [
          {
            ...call,
            before: given(family, {}),
            packet: request,
            expect: {
              verdicts: { MASQUERADED: 1 },
              ...pass,
              packet: packet('tcp', { leg, from: self, to: server(family), flags: 'S' }),
            },
          },
          {
            at: 'egress',
            side: 'servers',
            packet: packet('tcp', { leg: 'to server', from: self, to: server(family), flags: 'S', ttl: 63 }),
            expect: {
              ...pass,
              packet: packet('tcp', { leg: 'to server', from: own(family), to: server(family), flags: 'S', ttl: 63 }),
            },
          },
        ],
      }
}

/** The host's own connection: translated where it leaves and where it comes in. */
function ofTheHost(family: Family): Row {
  const self = wrap(families[family].outer, 1000)
  return {
    name: `${family}: what the host itself sends leaves for the server, by the way that leads there`,
    bypass: 'never',
    steps: [
      {
        at: 'egress',
        side: 'clients',
        own: true,
        before: given(family, {}),
        packet: packet('tcp', { leg: 'to client', from: self, to: vip(family), flags: 'S' }),
        expect: {
          ...send,
          verdicts: { MASQUERADED: 1 },
          packet: packet('tcp', { leg: 'to server', from: own(family), to: server(family), flags: 'S' }),
          connections: [`SYN_RECV 59 ${self} ${vip(family)} ${server(family)}`],
        },
      },
      {
        at: 'xdp',
        side: 'servers',
        packet: packet('tcp', { leg: 'from server', from: server(family), to: own(family), flags: 'SA' }),
        expect: pass,
      },
      {
        at: 'ingress',
        side: 'servers',
        packet: packet('tcp', { leg: 'from server', from: server(family), to: own(family), flags: 'SA' }),
        expect: {
          ...send,
          packet: packet('tcp', {
            leg: 'from server',
            from: vip(family),
            to: self,
            flags: 'SA',
            ether: { to: macs.marked },
          }),
        },
      },
    ],
  }
}

/** The only port is taken. */
function exhausted(family: Family): Row {
  const { client, insider } = families[family]
  const call = (port: number): Pick<Step, 'at' | 'side' | 'packet'> => {
    return {
      at: 'ingress',
      side: 'clients',
      packet: packet('tcp', { from: wrap(client, port), to: vip(family), flags: 'S' }),
    }
  }
  const to = (address: string) => ({
    ...send,
    verdicts: { MASQUERADED: 1 },
    packet: packet('tcp', { leg: 'to server', from: own(family), to: wrap(address, 8080), flags: 'S', ttl: 63 }),
  })
  const policy = { masquerade: everybody }
  return {
    name: `${family}: a port does for as many connections as there are servers; then it is said that there is none`,
    steps: [
      {
        ...call(1),
        before: given(family, policy, { servers: [families[family].server, insider] }),
        expect: to(insider),
      },
      { ...call(2), expect: to(families[family].server) },
      { ...call(3), expect: { action: 'drop', verdicts: { DROP_NO_MASQUERADE: 1 } } },
      {
        ...call(4),
        before: (datapath) => {
          datapath.expire(-1)
        },
        expect: to(families[family].server),
      },
    ],
  }
}

/** One client port, two virtual services, one server: the server has to tell the connections apart. */
function twice(family: Family): Row {
  const client = wrap(families[family].client, 1000)
  const other = wrap(families[family].second, 80)
  const call = { at: 'ingress', side: 'clients' } as const
  const to = (from: string) => packet('tcp', { leg: 'to server', from, to: server(family), flags: 'S', ttl: 63 })
  return {
    name: `${family}: a second connection of the same client port to the same server gets a port of the host's`,
    services: [{ at: `tcp ${other}`, servers: [server(family)] }],
    steps: [
      {
        ...call,
        before: given(family, {}),
        packet: packet('tcp', { from: client, to: vip(family), flags: 'S' }),
        expect: { ...send, packet: to(client) },
      },
      {
        ...call,
        packet: packet('tcp', { from: client, to: other, flags: 'S' }),
        expect: { ...send, packet: to(own(family)), verdicts: { MASQUERADED: 1 } },
      },
      ...[[client, vip(family)] as const, [own(family), other] as const].map(
        ([from, service]): Step => ({
          at: 'ingress',
          side: 'servers',
          packet: packet('tcp', { leg: 'from server', from: server(family), to: from, flags: 'SA' }),
          expect: {
            ...send,
            packet: packet('tcp', { leg: 'to client', from: service, to: client, flags: 'SA', ttl: 63 }),
          },
        }),
      ),
    ],
  }
}

/** Who may use a service, and which servers he gets. */
function audiences(family: Family): Row[] {
  const { client, pod, insider } = families[family]
  const length = family === 'IPv4' ? 32 : 128
  const from = (address: string): Pick<Step, 'at' | 'side' | 'packet'> => {
    return {
      at: 'ingress',
      side: 'clients',
      packet: packet('tcp', { from: wrap(address, 7), to: vip(family), flags: 'S' }),
    }
  }
  const gets = (who: string, address: string) => ({
    ...send,
    packet: packet('tcp', { leg: 'to server', from: wrap(who, 7), to: wrap(address, 8080), flags: 'S', ttl: 63 }),
  })
  const only = [{ family: family === 'IPv4' ? (4 as const) : (6 as const), address: client, length }]
  const split = { insiders: [insider] }
  const dropped = (why: string) => ({ action: 'drop', verdicts: { [why]: 1 } }) as const
  return [
    {
      name: `${family}: who is in no source range is dropped`,
      steps: [
        { ...from(client), before: given(family, { sources: only }), expect: gets(client, families[family].server) },
        { ...from(pod), expect: dropped('DROP_SOURCE') },
      ],
    },
    {
      name: `${family}: pods get the servers for insiders, others do not`,
      steps: [
        { ...from(client), before: given(family, {}, split), expect: gets(client, families[family].server) },
        { ...from(pod), expect: gets(pod, insider) },
      ],
    },
    {
      name: `${family}: so they do with persistence`,
      steps: [
        { ...from(pod), before: given(family, {}, { ...split, persistent: true }), expect: gets(pod, insider) },
        { ...from(client), expect: gets(client, families[family].server) },
      ],
    },
    {
      name: `${family}: without a server of this host others are dropped, pods are served`,
      steps: [
        {
          ...from(client),
          before: given(family, { whenEmpty: 'drop' }, { ...split, servers: [] }),
          expect: dropped('DROP_NO_LOCAL'),
        },
        { ...from(pod), expect: gets(pod, insider) },
      ],
    },
  ]
}

t.test('masquerade and policies', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, [
    ...both.flatMap((family) =>
      (['tcp', 'udp'] as const).flatMap((protocol) => [
        past(family, protocol, 'ingress'),
        past(family, protocol, 'xdp'),
        through(family, protocol),
      ]),
    ),
    ...both.flatMap((family) => [
      origins(family),
      hairpin(family, 'always'),
      hairpin(family, 'never'),
      ofTheHost(family),
      exhausted(family),
      twice(family),
      ...audiences(family),
    ]),
  ])
  datapath.close()
})
