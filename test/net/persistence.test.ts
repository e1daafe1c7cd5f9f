/** Real clients that return to their servers, and services by mark whose packets NAT does not touch. */
import t, { type Test } from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Director, endpoint } from '../helpers/director.ts'
import { needsRoot, ports, type TestHost, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const families = ['ipv4', 'ipv6'] as const
type Family = (typeof families)[number]
const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const others = { ipv4: '10.96.0.2', ipv6: 'fd00:96::2' } as const
const mark = { ipv4: '-f 7', ipv6: '-f 7 -6' } as const

/** A service with all servers, by their own port or another. */
async function serve(net: TestNet, service: string, family: Family, options: string, port: number, method = '-m') {
  const director = new Director(net.topology)
  await director.must(`-A ${service} -s rr ${options}`.trimEnd())
  for (const server of net.servers) {
    await director.must(`-a ${service} -r ${endpoint({ address: server[family], port })} ${method}`)
  }
}

/** Who answers: over HTTP, over echo's UDP. */
async function http({ host }: TestHost, address: string): Promise<string> {
  const outcome = await host.call('http', { address, port: ports.http })
  return 'value' in outcome ? outcome.value.server : outcome.error
}
async function echo({ host }: TestHost, address: string): Promise<string> {
  const outcome = await host.call('datagram', { address, port: ports.echo, size: 10 })
  return 'value' in outcome ? outcome.value : outcome.error
}

/** One server's name, however often it is asked for. */
async function always(t: Test, what: string, ask: () => Promise<string>): Promise<string> {
  const names = new Set<string>()
  for (let i = 0; i < 4; i++) names.add(await ask())
  t.equal(names.size, 1, `${what}: always ${[...names].join(', ')}`)
  const [name = ''] = names
  t.match(name, /^server\d$/)
  return name
}

/** Has netfilter mark what goes to the virtual addresses. */
async function markThem(net: TestNet): Promise<void> {
  const chain = 'add chain inet marks pre { type filter hook prerouting priority -150; }'
  const rules = [
    `add rule inet marks pre ip daddr { ${vips.ipv4}, ${others.ipv4} } meta mark set 7`,
    `add rule inet marks pre ip6 daddr { ${vips.ipv6}, ${others.ipv6} } meta mark set 7`,
  ]
  await net.topology.must('director', 'nft', [['add table inet marks', chain, ...rules].join('; ')])
}

t.test('a client returns to its server, at one port, and others are sent to the next', root, async (t) => {
  const net = await topology(t, { clients: 3, servers: 3, serve: ['http'] })
  for (const family of families) {
    const service = `-t ${endpoint({ address: vips[family], port: 80 })}`
    await serve(net, service, family, '-p 300', ports.http)
    const ask = (client: TestHost) => async () => {
      const outcome = await client.host.call('http', { address: vips[family], port: 80 })
      return 'value' in outcome ? outcome.value.server : outcome.error
    }
    const names = []
    for (const client of net.clients) names.push(await always(t, `${family} ${client.name}`, ask(client)))
    t.equal(new Set(names).size, 3, 'each client has a server of its own')
  }
  const listing = await new Director(net.topology).must('-Ln --persistent-conn')
  t.equal(listing.match(/-> \S+ +1 +1 +0 +4 /g)?.length, 6, listing)
})

t.test('clients of one network share a server', root, async (t) => {
  const net = await topology(t, { clients: 2, servers: 2, serve: ['http'] })
  for (const family of families) {
    const mask = family === 'ipv4' ? '255.255.255.0' : '64'
    await serve(
      net,
      `-t ${endpoint({ address: vips[family], port: ports.http })}`,
      family,
      `-p 300 -M ${mask}`,
      ports.http,
    )
    const names = await Promise.all(
      net.clients.map((client) => always(t, `${family} ${client.name}`, () => http(client, vips[family]))),
    )
    t.equal(new Set(names).size, 1, 'the same for all')
  }
})

t.test('a service of any port takes a client to one server at all of them', root, async (t) => {
  const net = await topology(t, { servers: 3, serve: ['http', 'echo'] })
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (const family of families) {
    await serve(net, `-t ${vips[family].replace(/^(.*:.*)$/, '[$1]')}:0`, family, '-p 300', 0)
    const one = await always(t, `${family} HTTP`, () => http(client, vips[family]))
    const connected = await client.host.call('connect', { address: vips[family], port: ports.echo })
    t.match(connected, { value: { server: one } }, 'echo, over TCP')
  }
})

t.test('a service by mark takes a client to one server at all its addresses, over TCP and UDP', root, async (t) => {
  const net = await topology(t, { servers: 3, serve: ['http', 'echo'] })
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  await markThem(net)
  for (const family of families) {
    await serve(net, mark[family], family, '-p 300', 0)
    const one = await always(t, `${family} HTTP`, () => http(client, vips[family]))
    t.equal(await http(client, others[family]), one, 'at the other address')
    t.equal(await echo(client, vips[family]), one, 'over UDP')
    t.equal(await echo(client, others[family]), one, 'over UDP, at the other address')
  }
})

const methods = [
  ['direct routing', '-g'],
  ['ipip', '-i'],
  ['gue', '-i --tun-type gue --tun-port 6080'],
  ['gre', '-i --tun-type gre'],
] as const

t.test('behind marks of netfilter servers are reached by direct routing and in tunnels', root, async (t) => {
  const net = await topology(t, { servers: 2, serve: ['http'] })
  const director = new Director(net.topology)
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  await markThem(net)
  const decap = ['bpf', 'da', 'obj', projectFile('build/bpf/decap.bpf.o'), 'sec', 'tc']
  for (const { name, host } of net.servers) {
    for (const family of families) {
      await net.topology.must(name, 'ip', ['addr', 'add', vips[family], 'dev', 'lo'])
      // Datagrams are answered from the address that they came to.
      await host.call('serveEcho', { name, port: ports.echo, address: vips[family] })
    }
    await net.topology.must(name, 'tc', ['qdisc', 'add', 'dev', 'eth0', 'clsact'])
    await net.topology.must(name, 'tc', ['filter', 'add', 'dev', 'eth0', 'ingress', ...decap])
  }
  for (const [what, method] of methods) {
    await director.must('-C')
    for (const family of families) {
      await serve(net, mark[family], family, '', 0, method)
      const asked = [await http(client, vips[family]), await http(client, vips[family])]
      t.same(new Set(asked), new Set(net.servers.map(({ name }) => name)), `${what}, ${family}: HTTP, in turn`)
      t.match(await echo(client, vips[family]), /^server\d$/, `${what}, ${family}: a datagram`)
    }
  }
})
