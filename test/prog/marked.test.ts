/** Packets that netfilter marked, at the veth that policy routing sends them to. */
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { message, quote, segment } from '../helpers/prog-flow.ts'
import { answers, bare, families, type Family, untouched } from '../helpers/prog-kinds.ts'
import { type Expectation, type Row, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

/** The stack has forwarded what comes here once, so its TTL is 63. */
function veth(family: Family): Row[] {
  const net = families[family]
  const here = { at: 'marked', side: 'clients', mark: 7 } as const
  const services = [{ at: net.mark, servers: [net.server(0)] }]
  const from = net.client
  const arriving = (to: string, flags: string) => segment({ leg: 'marked', from, to, ttl: 63, flags })
  const renewed = (to: string, flags: string) => segment({ leg: 'marked', from, to, flags })
  const [vip = '', client = ''] = [net.virtual(80), from].map(bare)
  const answer = message({
    leg: 'marked',
    from: vip,
    to: client,
    payload: quote(renewed(net.virtual(80), 'S')),
    ...(family === 'IPv4' ? { type: 3, code: 3 } : { type: 1, code: 4 }),
    ipv4: { tos: 0xc0, df: false },
  })
  const taken: Expectation = { action: 'send', packet: renewed(net.server(80), 'S') }
  return [
    {
      name: `${family}: a new connection is translated and begins its way anew, its TTL as it came`,
      services,
      steps: [
        { ...here, packet: arriving(net.virtual(80), 'S'), expect: taken },
        { at: 'ingress', side: 'clients', packet: renewed(net.server(80), 'S'), expect: untouched },
        answers('ingress', net, net.server(80), net.virtual(80)),
      ],
    },
    {
      name: `${family}: one that netfilter marks once more, translated as it is, goes back to the stack`,
      services,
      steps: [
        { ...here, packet: arriving(net.virtual(80), 'S'), expect: taken },
        {
          ...here,
          packet: arriving(net.server(80), 'S'),
          expect: { action: 'pass', packet: renewed(net.server(80), 'S') },
        },
      ],
    },
    {
      name: `${family}: a segment of no connection, and what is neither TCP nor UDP, goes back to the stack`,
      services,
      steps: [
        {
          ...here,
          packet: arriving(net.virtual(80), 'A'),
          expect: { action: 'pass', packet: renewed(net.virtual(80), 'A') },
        },
        {
          ...here,
          packet: message({ leg: 'marked', from: client, to: vip, ttl: 63, type: family === 'IPv4' ? 8 : 128 }),
          expect: {
            action: 'pass',
            packet: message({ leg: 'marked', from: client, to: vip, type: family === 'IPv4' ? 8 : 128 }),
          },
        },
      ],
    },
    {
      name: `${family}: a mark that no service has is the stack's`,
      services,
      steps: [
        {
          ...here,
          mark: 8,
          packet: arriving(net.virtual(80), 'S'),
          expect: { action: 'pass', packet: renewed(net.virtual(80), 'S') },
        },
      ],
    },
    {
      name: `${family}: what the director sends itself goes back to the stack as it is`,
      services,
      steps: [
        { ...here, own: true, packet: arriving(net.virtual(80), 'S'), expect: { ...untouched, connections: [] } },
      ],
    },
    {
      name: `${family}: without a usable server the client is told, on the way that it came`,
      services: [{ at: net.mark, servers: [`${net.server(0)} 0`] }],
      steps: [
        {
          ...here,
          packet: arriving(net.virtual(80), 'S'),
          expect: { action: 'send', packet: answer, verdicts: { REFUSE_NO_SERVER: 1 }, connections: [] },
        },
      ],
    },
  ]
}

t.test('marks that netfilter sets', { skip: needsRoot }, async (t) => {
  const datapath = await Datapath.open(t)
  for (const family of ['IPv4', 'IPv6'] as const) await testRows(t, datapath, veth(family))
})
