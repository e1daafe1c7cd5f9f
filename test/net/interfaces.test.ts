/** Interfaces that come and go while bpvsd runs: traffic through them is balanced as long as they are there. */
import { readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { upgradePrograms } from '../../src/native/loader.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { Director, virtual } from '../helpers/director.ts'
import { Tunnel } from '../helpers/tunnel.ts'
import { needsRoot, ports, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const index = 900

t.test('an interface is attached when it comes and forgotten when it goes', { skip: needsRoot }, async (t) => {
  const net = await topology(t, { clients: 2, servers: 2, serve: ['http'] })
  const director = new Director(net.topology)
  const manifests = new Manifests(t)
  const web = { port: 80, targetPort: ports.http }
  manifests.write({ ...web, name: 'v4', address: '10.96.0.1', servers: net.servers.map(({ ipv4 }) => ipv4) })
  manifests.write({ ...web, name: 'v6', address: 'fd00:96::1', servers: net.servers.map(({ ipv6 }) => ipv6) })
  const daemon = new Daemon(net.topology, manifests)
  await daemon.logged('ready')
  const [first, second] = [net.clients[0]!.host, net.clients[1]!.host]
  const steady = await first.call('startHttp', { address: '10.96.0.1', port: 80, ratePerSecond: 100, concurrency: 2 })

  /* The second client gets a way of its own to the services; replies go back by the client's address on it. */
  const ip = (role: string, ...lines: string[]) =>
    net.topology.must(role, 'ip', ['-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') })
  const plug = async (): Promise<void> => {
    const peer = `peer name eth1 netns ${net.topology.nameOf('client1')}`
    await ip(
      'director',
      `link add name pod0 index ${index} type veth ${peer}`,
      'link set dev pod0 up',
      'addr add 10.9.0.1/24 dev pod0',
      'addr add fd00:9::1/64 dev pod0 nodad',
    )
    await ip(
      'client1',
      'link set dev eth1 up',
      'addr add 10.9.0.2/24 dev eth1',
      'addr add fd00:9::2/64 dev eth1 nodad',
      'route add 10.96.0.0/16 via 10.9.0.1',
      'route add fd00:96::/112 via fd00:9::1',
    )
  }
  const hooks = ['cl0 egress tcx', 'cl0 ingress tcx', 'lo egress tcx', 'sv0 egress tcx', 'sv0 ingress tcx']
  const pinned = () => readdirSync(director.pins()?.path ?? '').filter((name) => name.startsWith(`link-${index}-`))
  t.same(director.hooks(), hooks)

  for (let round = 1; round <= 2; round++) {
    await plug()
    const all = [...hooks, 'pod0 egress tcx', 'pod0 ingress tcx'].sort()
    await waitFor('programs on the new interface', () => director.hooks().join() === all.join())
    for (const address of ['10.96.0.1', 'fd00:96::1']) {
      const before = director.service(virtual(address, 80)).counters.conns
      for (let n = 0; n < 4; n++) {
        const outcome = await second.call('http', { address, port: 80 })
        t.match(outcome, { value: { server: /^server[01]$/ } }, `round ${round}: ${address} through the new interface`)
        const from = 'value' in outcome ? JSON.parse(outcome.value.body).client.address : ''
        t.match(from, /^(10\.9\.0\.2|fd00:9::2)$/, 'the client is who it is')
      }
      t.ok(director.service(virtual(address, 80)).counters.conns >= before + 4n, 'the director balanced it')
    }
    t.equal(pinned().length, 2)
    await net.topology.must('director', 'ip', ['link', 'del', 'pod0'])
    await waitFor('its links to go', () => pinned().length === 0)
    t.same(director.hooks(), hooks, 'the others stay attached')
  }
  t.equal(daemon.lines.filter(({ msg, interface: name }) => msg === 'attached' && name === 'pod0').length, 4)
  const detached = () => daemon.lines.filter(({ msg, ifindex }) => msg === 'detached' && ifindex === index).length
  await waitFor('both to be told of', () => detached() === 2)
  const report = await first.call('stopLoad', steady)
  t.match(report, { failed: 0, errors: {}, sent: report.answered }, 'traffic through the other interfaces saw nothing')
  t.ok(report.answered > 0)
  t.equal(await daemon.end('SIGTERM'), 0)
})

t.test('one whose packets have no Ethernet header is attached when it comes up', { skip: needsRoot }, async (t) => {
  const net = await topology(t, { clients: 2, servers: 2, serve: ['http'] })
  const director = new Director(net.topology)
  const manifests = new Manifests(t)
  const web = { port: 80, targetPort: ports.http }
  manifests.write({ ...web, name: 'v4', address: '10.96.0.1', servers: net.servers.map(({ ipv4 }) => ipv4) })
  manifests.write({ ...web, name: 'v6', address: 'fd00:96::1', servers: net.servers.map(({ ipv6 }) => ipv6) })
  const tunnel = await Tunnel.make(
    { path: net.topology.pathOf('director'), name: 'tun0' },
    { path: net.topology.pathOf('client1'), name: 'tun0' },
  )
  t.teardown(() => tunnel.close())
  const daemon = new Daemon(net.topology, manifests)
  await daemon.logged('ready')
  const path = director.pins()?.path ?? ''
  const bare = () => readdirSync(path).filter((name) => name.startsWith('bare-'))
  const onTunnel = () => director.hooks().filter((line) => line.startsWith('tun0 '))
  t.same([onTunnel(), bare()], [[], []], 'one that is down costs nothing')

  for (const [role, host] of Object.entries({ director: 1, client1: 2 })) {
    const lines = [
      'link set dev tun0 up',
      `addr add 10.9.0.${host}/24 dev tun0`,
      `addr add fd00:9::${host}/64 dev tun0 nodad`,
    ]
    if (role === 'client1') lines.push('route add 10.96.0.0/16 dev tun0', 'route add fd00:96::/112 dev tun0')
    await net.topology.must(role, 'ip', ['-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') })
  }
  await waitFor('programs on the tunnel', () => onTunnel().length === 2)
  t.same(onTunnel(), ['tun0 egress tcx', 'tun0 ingress tcx'])
  const calls = async (when: string): Promise<void> => {
    for (const address of ['10.96.0.1', 'fd00:96::1']) {
      const outcome = await net.clients[1]!.host.call('http', { address, port: 80 })
      t.match(outcome, { value: { server: /^server[01]$/ } }, `${address} ${when}`)
      const from = 'value' in outcome ? JSON.parse(outcome.value.body).client.address : ''
      t.match(from, /^(10\.9\.0\.2|fd00:9::2)$/, 'the client is who it is')
    }
  }
  await calls('through the tunnel')

  const before = director.programs()
  for (const name of readdirSync(path).filter((name) => name.startsWith('build-'))) rmdirSync(join(path, name))
  t.equal(net.topology.within('director', upgradePrograms), true)
  t.notOk(
    director.programs().some((id) => before.includes(id)),
    'an upgrade renews its programs too',
  )
  await calls('through new programs')

  await tunnel.close()
  await waitFor('its links to go', () => onTunnel().length === 0)
  t.equal(await daemon.end('SIGTERM'), 0)
  await director.must('--unload')
  t.not(director.pins()?.present, true)
})
