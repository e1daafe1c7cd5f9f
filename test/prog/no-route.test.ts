import t from 'tap'
import { must } from '../../src/lab/command.ts'
import { Datapath } from '../helpers/prog.ts'
import { message, quote, segment } from '../helpers/prog-flow.ts'
import { type Row, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = [
  { family: 'IPv4', client: '10.1.0.1:1000', virtual: '10.9.0.1:80', server: '10.2.0.11:80' },
  { family: 'IPv6', client: '[fd00:1::1]:1000', virtual: '[fd00:9::1]:80', server: '[fd00:2::11]:80' },
] as const

const rows = families.map(
  ({ family, client, virtual, server }): Row => ({
    name: `${family}: a segment of no connection is reset also where the host has no route to the virtual address`,
    services: [{ at: `tcp ${virtual}`, servers: [server] }],
    steps: [
      {
        at: 'ingress',
        side: 'clients',
        packet: segment({ from: client, to: virtual, flags: 'A', ack: 7777 }),
        expect: {
          action: 'send',
          packet: segment({ leg: 'to client', from: virtual, to: client, flags: 'R', seq: 7777, window: 0 }),
          verdicts: { REFUSE_NO_CONN: 1 },
        },
      },
    ],
  }),
)

/** No interface has an IPv4 address; the server is on the link. */
const addressless = [
  'address flush dev cl0 scope global',
  'address flush dev sv0 scope global',
  'route add 10.2.0.0/16 dev sv0',
  'neigh replace 10.2.0.11 lladdr 02:00:00:00:02:02 dev sv0 nud permanent',
]

const sourceless: Row[] = ['ipip', 'gue', 'gre'].map((method) => {
  const packet = segment({ from: '10.1.0.1:1000', to: '10.9.0.1:80', flags: 'S' })
  const o = { leg: 'to client', from: '10.9.0.1', to: '10.1.0.1', payload: quote(packet) } as const
  return {
    name: `${method}: a director without an address to begin the tunnel at has no way to the server`,
    services: [{ at: 'tcp 10.9.0.1:80', servers: [`10.2.0.11:80 1 ${method}`] }],
    steps: [
      { at: 'xdp', side: 'clients', packet, expect: { action: 'pass' } },
      {
        at: 'ingress',
        side: 'clients',
        packet,
        expect: {
          action: 'send',
          packet: message({ ...o, type: 3, code: 1, ipv4: { tos: 0xc0, df: false } }),
          verdicts: { REFUSE_NO_ROUTE: 1 },
        },
      },
    ],
  }
})

t.test('a director without a default route', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  for (const family of ['-4', '-6']) await must('ip', [family, 'route', 'del', 'default'])
  await testRows(t, datapath, rows)
  await must('ip', ['-batch', '-'], { input: addressless.map((line) => `${line}\n`).join('') })
  await testRows(t, datapath, sourceless)
})
