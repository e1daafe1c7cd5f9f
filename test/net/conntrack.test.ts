/** Principle 4: between its two hooks the host's stack sees one valid flow, client to server, or nothing at all. */
import t from 'tap'
import { forwarded, guardCounts, startGuard, stopGuard, trackedFlows } from '../helpers/datapath-net.ts'
import { Director, real, service, virtual } from '../helpers/director.ts'
import { dnsName, needsRoot, ports, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }

const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
const families = ['ipv4', 'ipv6'] as const

/** A director whose services of both families lead to all servers of the network. */
async function direct(t: Parameters<typeof topology>[0], net: TestNet): Promise<Director> {
  const director = new Director(net.topology)
  const table = director.open()
  t.teardown(async () => table.close())
  for (const family of families) {
    const services = [
      [virtual(vips[family], 80), ports.http],
      [virtual(vips[family], 53, 'udp'), ports.dns],
      [virtual(vips[family], 7, 'tcp'), ports.echo],
      [virtual(vips[family], 7, 'udp'), ports.echo],
    ] as const
    for (const [key, port] of services) {
      table.addService(service(key))
      for (const server of net.servers) table.addServer(key, real(server[family], port))
    }
  }
  return director
}

/** Some of everything; returns what went wrong. */
async function traffic(net: TestNet, rounds: number): Promise<string[]> {
  const errors: string[] = []
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (let round = 0; round < rounds; round++) {
    for (const family of families) {
      const address = vips[family]
      const outcomes = {
        http: await client.host.call('http', { address, port: 80 }),
        dns: await client.host.call('dns', { address, port: 53, name: dnsName, type: 'A' }),
        datagram: await client.host.call('datagram', { address, port: 7, size: 900 }),
      }
      for (const [what, outcome] of Object.entries(outcomes)) {
        if ('error' in outcome) errors.push(`${what} to ${address}: ${outcome.error}`)
      }
    }
  }
  return errors
}

/** Flows that connection tracking has of our traffic, which are not what it should see. */
function strange(net: TestNet): unknown[] {
  const clients = net.clients.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6])
  const served = Object.values(ports)
  const servers = net.servers.flatMap(({ ipv4, ipv6 }) =>
    [ipv4, ipv6].flatMap((ip) => served.map((port) => `${ip} ${port}`)),
  )
  return trackedFlows(net.topology).filter(({ from, to, answersFrom, answersTo, replied }) => {
    return !(clients.includes(from) && servers.includes(to) && answersFrom === to && answersTo === from && replied)
  })
}

t.test('with netfilter in use, it sees every flow whole, from client to server', root, async (t) => {
  const net = await topology(t, { servers: 2 })
  await startGuard(net.topology)
  await direct(t, net)
  const rounds = 10
  t.same(await traffic(net, rounds), [], 'TCP and UDP of both families work')
  const flows = trackedFlows(net.topology)
  t.same(strange(net), [], 'every tracked flow goes from a client to a server, and is answered')
  t.equal(flows.filter(({ protocol }) => protocol === 'tcp').length, 2 * rounds, 'as many TCP flows as requests')
  t.equal(flows.filter(({ protocol }) => protocol === 'udp').length, 4 * rounds, 'as many UDP flows as datagrams')
  const counts = await guardCounts(net.topology)
  t.equal(counts.invalid, 0, 'nothing is invalid')
  t.equal(counts.fresh, 6 * rounds, 'each flow is new once')
})

t.test(
  'without netfilter flows pass by the stack; rules that come later break none, and see the new ones',
  root,
  async (t) => {
    const net = await topology(t, { servers: 2 })
    await direct(t, net)
    const [client] = net.clients
    if (client === undefined) throw new Error('no client')
    t.same(await traffic(net, 2), [], 'neighbours get known')
    const before = forwarded(net.topology)
    t.same(await traffic(net, 10), [])
    t.equal(forwarded(net.topology), before, 'the stack forwards nothing')

    const kept: number[] = []
    for (const family of families) {
      for (let n = 0; n < 2; n++) {
        const opened = await client.host.call('connect', { address: vips[family], port: 7 })
        if ('error' in opened) throw new Error(opened.error)
        kept.push(opened.value.id)
      }
    }
    const ping = async (text: string) => {
      const outcomes = await Promise.all(kept.map((id) => client.host.call('ping', id, text)))
      return outcomes.filter((outcome) => 'error' in outcome)
    }
    t.same(await ping('before'), [])

    await startGuard(net.topology)
    t.same(await ping('with rules'), [], 'what passed by the stack goes on doing so')
    t.equal((await guardCounts(net.topology)).fresh, 0, 'and the rules see nothing of it')
    t.same(await traffic(net, 5), [], 'new flows work too')
    const { invalid, fresh } = await guardCounts(net.topology)
    t.equal(invalid, 0, 'nothing is invalid')
    t.equal(fresh, 5 * 6, 'the rules see each of them')
    t.ok(forwarded(net.topology) > before, 'they go through the stack')
    t.same(strange(net), [])

    await stopGuard(net.topology)
    t.same(await ping('without rules again'), [], 'still nothing broke')
    t.same(await traffic(net, 2), [])
  },
)
