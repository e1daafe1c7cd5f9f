/** Services of FTP: which other ports their data connections may come to, and what becomes of the rest. */
import { readFileSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { Datapath } from '../helpers/prog.ts'
import { datagram, segment } from '../helpers/prog-flow.ts'
import { type GivenService, type Row, type Step, testRows } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'

const families = [
  {
    name: 'IPv4',
    client: (port: number) => `10.1.0.1:${port}`,
    virtual: (port: number) => `10.9.0.1:${port}`,
    local: (port: number) => `10.10.0.1:${port}`,
    server: (port: number) => `10.2.0.11:${port}`,
  },
  {
    name: 'IPv6',
    client: (port: number) => `[fd00:1::1]:${port}`,
    virtual: (port: number) => `[fd00:9::1]:${port}`,
    local: (port: number) => `[fd00:10::1]:${port}`,
    server: (port: number) => `[fd00:2::11]:${port}`,
  },
] as const
type Family = (typeof families)[number]

function ftp(f: Family, more: Partial<GivenService> = {}, weight = 1): GivenService {
  return { at: `tcp ${f.virtual(21)}`, servers: [`${f.server(2121)} ${weight}`], ...more }
}

/** A SYN that is balanced, and the answer to it. */
function balanced(f: Family, port: number, serverPort: number, sport = 1000): Step[] {
  const ends = { from: f.client(sport), flags: 'S' }
  const answer = { to: f.client(sport), flags: 'SA', ack: 1 }
  return [
    {
      at: 'ingress',
      side: 'clients',
      packet: segment({ ...ends, to: f.virtual(port) }),
      expect: { action: 'send', packet: segment({ ...ends, leg: 'to server', to: f.server(serverPort), ttl: 63 }) },
    },
    {
      at: 'ingress',
      side: 'servers',
      packet: segment({ ...answer, leg: 'from server', from: f.server(serverPort) }),
      expect: { action: 'send', packet: segment({ ...answer, leg: 'to client', from: f.virtual(port), ttl: 63 }) },
    },
  ]
}

function passes(f: Family, port: number, sport = 1000): Step {
  const packet = segment({ from: f.client(sport), to: f.virtual(port), flags: 'S' })
  return { at: 'ingress', side: 'clients', packet, expect: { action: 'pass' } }
}

function refused(f: Family, port: number): Step {
  const packet = segment({ from: f.client(1000), to: f.virtual(port), flags: 'S' })
  const expect = { action: 'send', anyPacket: true, verdicts: { REFUSE_NO_SERVER: 1 } } as const
  return { at: 'ingress', side: 'clients', packet, expect }
}

function rows(f: Family): Row[] {
  const persistent = { persistent: true }
  return [
    {
      name: `${f.name}: a persistent one takes port 20 and what needs no privilege, at the port asked for; nothing else`,
      services: [ftp(f, persistent)],
      steps: [
        ...balanced(f, 21, 2121),
        ...balanced(f, 20, 20, 1001),
        ...balanced(f, 1024, 1024, 1002),
        ...balanced(f, 65535, 65535, 1003),
        ...[19, 22, 80, 1023].map((port) => passes(f, port)),
        {
          at: 'ingress',
          side: 'clients',
          packet: datagram({ from: f.client(1000), to: f.virtual(2000) }),
          expect: { action: 'pass' },
        },
      ],
    },
    {
      name: `${f.name}: one that is not persistent takes its own port, and leaves the others to the host`,
      services: [ftp(f)],
      steps: [...balanced(f, 21, 2121), passes(f, 20), passes(f, 2000)],
    },
    {
      name: `${f.name}: without a server its own port is refused, the others are left to the host`,
      services: [ftp(f, persistent, 0)],
      steps: [refused(f, 21), passes(f, 20), passes(f, 2000)],
    },
    {
      name: `${f.name}: a service of one of the other ports takes that itself`,
      services: [ftp(f, persistent), { at: `tcp ${f.virtual(2000)}`, servers: [f.server(80)] }],
      steps: [...balanced(f, 2000, 80)],
    },
    {
      name: `${f.name}: one over UDP takes its own port only`,
      services: [{ ...ftp(f, persistent), at: `udp ${f.virtual(21)}` }],
      steps: [passes(f, 20), passes(f, 2000)],
    },
    {
      name: `${f.name}: a service that is gone takes no port any more`,
      services: [ftp(f, persistent)],
      steps: [{ ...passes(f, 2000), before: ({ table }) => void table.clear() }],
    },
    {
      name: `${f.name}: what comes from port 20 opens no connection of any service`,
      services: [
        ftp(f, persistent),
        { at: `tcp ${f.virtual(80)}`, servers: [f.server(80)] },
        { at: `udp ${f.virtual(53)}`, servers: [f.server(53)] },
      ],
      steps: [
        ...[21, 2000, 80].map((port) => passes(f, port, 20)),
        {
          at: 'ingress',
          side: 'clients',
          packet: datagram({ from: f.client(20), to: f.virtual(53) }),
          expect: { action: 'pass' },
        },
      ],
    },
    {
      name: `${f.name}: a segment of no connection to another port is the host's, if the address is`,
      services: [{ ...ftp(f, persistent), at: `tcp ${f.local(21)}` }],
      steps: [
        {
          at: 'ingress',
          side: 'clients',
          packet: segment({ from: f.client(1000), to: f.local(2000), flags: 'A', ack: 1 }),
          expect: { action: 'pass' },
        },
      ],
    },
  ]
}

/** The first port that needs no privilege is the host's to set. */
function raised(f: Family): Row {
  return {
    name: `${f.name}: ports that need privilege on this host are not FTP's`,
    services: [ftp(f, { persistent: true })],
    steps: [passes(f, 2999), ...balanced(f, 3000, 3000)],
  }
}

const firstPort = '/proc/sys/net/ipv4/ip_unprivileged_port_start'

t.test('services of FTP', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  await testRows(t, datapath, families.flatMap(rows))
  await t.test('where the host keeps ports below 3000 to itself', async (t) => {
    const before = readFileSync(firstPort)
    t.teardown(() => writeFileSync(firstPort, before))
    writeFileSync(firstPort, '3000')
    await testRows(t, datapath, families.map(raised))
  })
})
