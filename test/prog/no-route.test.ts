import t from 'tap'
import { must } from '../../src/lab/command.ts'
import { Datapath } from '../helpers/prog.ts'
import { segment } from '../helpers/prog-flow.ts'
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

t.test('a director without a default route', { skip: needsRoot }, async (t) => {
  t.setTimeout(120_000)
  const datapath = await Datapath.open(t)
  for (const family of ['-4', '-6']) await must('ip', [family, 'route', 'del', 'default'])
  await testRows(t, datapath, rows)
})
