/**
 * XDP, in native mode on veth and in generic mode: what leaves the host again is forwarded before there is a packet
 * buffer; what stays, and what XDP can't do, works through tcx as if XDP were not there.
 */
import t from 'tap'
import { Host } from '../../src/lab/host.ts'
import { Daemon, Manifests } from '../helpers/daemon.ts'
import { Director, total, virtual } from '../helpers/director.ts'
import { countRuns, readRuns } from '../helpers/run-counts.ts'
import { needsRoot, ports, type TestNet, topology, waitFor } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const vips = ['10.96.0.1', 'fd00:96::1'] as const
const rounds = 25

/** The director's own server is behind these. */
const localVips = ['10.96.0.2', 'fd00:96::2'] as const
/** No server is behind these. */
const emptyVips = ['10.96.0.3', 'fd00:96::3'] as const

async function scene(t: Parameters<typeof topology>[0], mode: 'native' | 'generic') {
  const net = await topology(t, { clients: 1, servers: 2, checksumOffload: false })
  /* A veth takes frames from XDP only if its peer polls, which it does for GRO or for a program of its own. */
  for (const name of ['clients-up', 'servers-up'])
    await net.topology.must('switch', 'ethtool', ['-K', name, 'gro', 'on'])
  const own = await Host.start('director', net.topology.pathOf('director'))
  t.teardown(() => own.close())
  await own.call('serveHttp', { name: 'director', port: ports.http })
  const manifests = new Manifests(t)
  const web = { port: 80, targetPort: ports.http }
  const echo = { port: 7, targetPort: ports.echo, protocol: 'UDP' as const }
  for (const [i, family] of (['ipv4', 'ipv6'] as const).entries()) {
    const servers = net.servers.map((server) => server[family])
    const self = [family === 'ipv4' ? '10.244.1.1' : 'fd00:244:1::1']
    manifests.write({ ...web, name: `web${family}`, address: vips[i]!, servers })
    manifests.write({ ...echo, name: `echo${family}`, address: vips[i]!, servers })
    manifests.write({ ...web, name: `local${family}`, address: localVips[i]!, servers: self })
    manifests.write({ ...web, name: `empty${family}`, address: emptyVips[i]!, servers: [] })
  }
  const daemon = new Daemon(net.topology, manifests, '--xdp', mode)
  await daemon.logged('ready')
  return { net, daemon, manifests, director: new Director(net.topology) }
}

/** Requests of all kinds to one address; returns what was wrong with their answers. */
async function requests(net: TestNet, address: string): Promise<string[]> {
  const { host, ipv4, ipv6 } = net.clients[0]!
  const wrong: string[] = []
  for (let n = 0; n < rounds; n++) {
    const http = await host.call('http', { address, port: 80 })
    const seen = 'value' in http ? JSON.parse(http.value.body).client.address : http.error
    if (seen !== (address.includes(':') ? ipv6 : ipv4)) wrong.push(`HTTP ${n}: ${seen}`)
    const echo = await host.call('datagram', { address, port: 7, size: n * 50 })
    if (!('value' in echo) || !/^server[01]$/.test(echo.value)) wrong.push(`echo ${n}: ${JSON.stringify(echo)}`)
  }
  const bulk = await host.call('http', { address, port: 80, path: '/bytes/300000' })
  if (!('value' in bulk) || bulk.value.body.length !== 300_000) wrong.push('bulk')
  return wrong
}

for (const mode of ['native', 'generic'] as const) {
  t.test(`${mode} XDP forwards requests and replies; tcx does the rest`, { skip: needsRoot }, async (t) => {
    const { net, director, daemon, manifests } = await scene(t, mode)
    const on = (name: string) => [`${name} egress tcx`, `${name} ingress tcx`, `${name} xdp xdp-${mode}`]
    const hooks = [...on('cl0'), 'lo egress tcx', ...on('sv0')]
    t.same(director.hooks(), hooks)
    countRuns(t)
    const counted = () => {
      const keys = vips.flatMap((vip) => [virtual(vip, 80), virtual(vip, 7, 'udp')])
      const { inPkts, outPkts } = total(keys.map((key) => director.service(key).counters))
      return Number(inPkts + outPkts)
    }
    /* Before there are connections: a server's answer to a port that is a connection's client would be that connection's. */
    const client = net.clients[0]!.host
    for (const { ipv4, ipv6, name } of net.servers) {
      for (const address of [ipv4, ipv6]) {
        const direct = await client.call('http', { address, port: ports.http })
        t.match(direct, { value: { server: name } }, `${address}: what is no service passes`)
      }
    }
    /* The first packets go by the stack, which learns the neighbours. */
    for (const vip of vips) t.same(await requests(net, vip), [], `${vip}: answers to the first requests`)

    const before = { runs: await readRuns(director), packets: counted() }
    for (const vip of vips) t.same(await requests(net, vip), [], `${vip}: answers`)
    const packets = counted() - before.packets
    const after = { runs: await readRuns(director) }
    const ran = (hook: 'xdp' | 'ingress' | 'egress') => after.runs[hook] - before.runs[hook]
    t.comment(`${packets} packets: XDP ran ${ran('xdp')} times, ingress ${ran('ingress')}, egress ${ran('egress')}`)
    t.ok(packets > 400)
    t.ok(ran('xdp') >= packets, 'every packet met XDP')
    t.ok(ran('ingress') <= packets / 20, 'and hardly one came further')
    t.ok(ran('egress') <= packets / 20)

    for (const address of localVips) {
      const local = await client.call('http', { address, port: 80 })
      t.match(local, { value: { server: 'director' } }, `${address}: a server on the director itself`)
    }
    t.ok((await readRuns(director)).ingress > after.runs.ingress, 'is reached by way of tcx')
    for (const address of emptyVips) {
      t.same(await client.call('http', { address, port: 80 }), { error: 'ECONNREFUSED' }, `${address}: refusal`)
    }
    t.same(director.check(), [])

    t.equal(await daemon.end('SIGTERM'), 0)
    const plain = new Daemon(net.topology, manifests, '--xdp', 'off')
    await plain.logged('ready')
    const without = hooks.filter((hook) => !hook.includes(' xdp '))
    await waitFor('XDP to be taken off', () => director.hooks().join() === without.join())
    const taken = await readRuns(director)
    for (const vip of vips) t.same(await requests(net, vip), [], `${vip}: answers without XDP`)
    t.equal((await readRuns(director)).xdp, taken.xdp)
    t.equal(await plain.end('SIGTERM'), 0)
  })
}
