/** What kube-proxy leaves is removed, whichever mode it ran in, and nothing else: with rules as it and iptables write them. */
import t from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { removeSets } from '../../src/native/ipsets.ts'
import { findKubeProxy } from '../../src/native/kube-proxy.ts'
import { families, netlinkRequest, writeAttribute, writeMessage, writeNested } from '../../src/native/netlink.ts'
import { readLegacyTable, replaceLegacyTable } from '../../src/native/xtables.ts'
import { chainsOf, countEntries } from '../../src/native/xtables-table.ts'
import { cases } from '../helpers/kube-cases.ts'
import { startOldProxy, valueFrom } from '../helpers/old-proxy.ts'
import { needsRoot, ports, topology as network, waitFor } from '../helpers/topology.ts'
import { type XtChain, xtTable } from '../helpers/xtables.ts'

t.setTimeout(900_000)

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

async function director(t: Teardown): Promise<Topology> {
  const topology = new Topology({ namespaces: [{ name: 'director' }], links: [] })
  t.teardown(() => topology.close())
  await topology.create()
  return topology
}

/** Runs the removal; what it logged of it. */
async function cleanUp(topology: Topology): Promise<Record<string, unknown>> {
  const out = await topology.must('director', projectFile('bin/bpvsd'), ['--cleanup-kube-proxy'])
  const line = out.trim().split('\n').at(-1) ?? ''
  return JSON.parse(line) as Record<string, unknown>
}

function ruleset(topology: Topology): Promise<string> {
  return topology.must('director', 'nft', ['list', 'ruleset'])
}

/** Tables as iptables-nft makes them, with chains of kube-proxy's ipvs and iptables modes, of kubelet, and of somebody else. */
const iptables = (family: string): string => `
table ${family} nat {
  chain KUBE-MARK-MASQ { meta mark set meta mark or 0x4000; }
  chain KUBE-SEP-AAAA { jump KUBE-MARK-MASQ; }
  chain KUBE-SVC-BBBB { counter jump KUBE-SEP-AAAA; }
  chain KUBE-LOAD-BALANCER { jump KUBE-MARK-MASQ; }
  chain KUBE-SERVICES { tcp dport 80 jump KUBE-SVC-BBBB; jump KUBE-LOAD-BALANCER; }
  chain KUBE-POSTROUTING { masquerade fully-random; }
  chain KUBE-KUBELET-CANARY { }
  chain CNI-OWN { tcp dport 81 accept; jump KUBE-SERVICES; }
  chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 79 accept; counter jump KUBE-SERVICES; jump CNI-OWN; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; counter goto KUBE-POSTROUTING; tcp dport 78 accept; }
}
table ${family} filter {
  chain KUBE-FIREWALL { meta mark 0x8000 drop; }
  chain KUBE-FORWARD { meta mark 0x4000 accept; }
  chain FORWARD { type filter hook forward priority filter; jump KUBE-FORWARD; jump KUBE-FIREWALL; }
}
`

t.test(
  'chains of iptables go, with the rules that lead there; those of others and of kubelet stay',
  { skip: needsRoot },
  async (t) => {
    const topology = await director(t)
    for (const family of ['ip', 'ip6']) {
      await topology.must('director', 'nft', ['-f', '-'], { input: iptables(family) })
    }
    t.match(await cleanUp(topology), { tables: 0, chains: 14, interface: false })
    const left = await ruleset(topology)
    t.notMatch(left, /KUBE-(MARK|SEP|SVC|SERVICES|LOAD|POSTROUTING|FORWARD)/)
    const rules = left.split('\n').map((line) => line.trim().replace(/ counter packets \d+ bytes \d+/, ''))
    for (const rule of [
      'tcp dport 78 accept',
      'tcp dport 79 accept',
      'tcp dport 81 accept',
      'jump CNI-OWN',
      'jump KUBE-FIREWALL',
    ]) {
      t.equal(rules.filter((line) => line === rule).length, 2, rule)
    }
    t.equal(rules.filter((line) => line === 'chain KUBE-KUBELET-CANARY {').length, 2)
    t.match(await cleanUp(topology), { tables: 0, chains: 0 })
    t.equal(await ruleset(topology), left, 'a second time changes nothing')
  },
)

t.test('the tables of the nftables mode go, as recorded, and other tables stay', { skip: needsRoot }, async (t) => {
  const topology = await director(t)
  const { nft } = cases.find((each) => each.nft.ip?.includes('service-ips') === true && each.nft.ip6 !== undefined) ?? {
    nft: undefined,
  }
  if (nft === undefined) throw new Error('no recorded table')
  await topology.must('director', 'nft', ['-f', '-'], {
    input: `${nft.ip}\n${nft.ip6}\ntable ip mine {\n}\n`,
  })
  t.match(await ruleset(topology), /^table ip6 kube-proxy \{$/m)
  t.match(await cleanUp(topology), { tables: 2, chains: 0 })
  const left = await ruleset(topology)
  t.notMatch(left, 'kube-proxy')
  t.match(left, /^table ip mine \{$/m)
})

t.test('kube-ipvs0 goes; where there is nothing, nothing is removed', { skip: needsRoot }, async (t) => {
  const topology = await director(t)
  t.match(await cleanUp(topology), { tables: 0, chains: 0, ipvsServices: false, interface: false })
  await topology.must('director', 'ip', ['link', 'add', 'kube-ipvs0', 'type', 'veth', 'peer', 'name', 'other'])
  t.match(await cleanUp(topology), { interface: true })
  t.notMatch(await topology.must('director', 'ip', ['link']), 'kube-ipvs0')
})

t.test(
  "chains of iptables-legacy go, with the rules that lead there; others' stay, with their counters",
  { skip: needsRoot },
  async (t) => {
    const topology = await director(t)
    const chains: readonly XtChain[] = [
      { name: 'PREROUTING', hook: 0, rules: [{ to: 'KUBE-SERVICES' }] },
      { name: 'INPUT', hook: 1, rules: [] },
      { name: 'FORWARD', hook: 2, rules: [] },
      { name: 'OUTPUT', hook: 3, rules: [{ to: 'KUBE-SERVICES' }, { to: 'MINE' }] },
      { name: 'POSTROUTING', hook: 4, rules: [{ to: 'KUBE-POSTROUTING' }] },
      { name: 'KUBE-SERVICES', rules: [{ to: 'KUBE-SVC-AAAA' }] },
      { name: 'KUBE-SVC-AAAA', rules: [{ to: 'RETURN' }] },
      { name: 'KUBE-POSTROUTING', rules: [] },
      { name: 'KUBE-KUBELET-CANARY', rules: [] },
      { name: 'MINE', rules: [{ to: 'RETURN' }] },
    ]
    for (const family of [4, 6] as const) {
      topology.within('director', () => {
        const { validHooks, table } = readLegacyTable(family, 'mangle')
        replaceLegacyTable({ name: 'mangle', validHooks, table: xtTable(family, chains) }, countEntries(table))
      })
      await topology.must('director', 'ping', ['-c1', family === 4 ? '127.0.0.1' : '::1'])
    }
    t.ok(topology.within('director', () => findKubeProxy()).includes('iptables-legacy'))
    t.match(await cleanUp(topology), { legacyChains: 6, chains: 0 })
    for (const family of [4, 6] as const) {
      const { table } = topology.within('director', () => readLegacyTable(family, 'mangle'))
      t.same(chainsOf(table), ['KUBE-KUBELET-CANARY', 'MINE'])
      const counters = table.entries.readBigUInt64LE((table.hooks[3] ?? 0) + (family === 4 ? 96 : 152))
      t.equal(counters, 2n, 'of the rule that leads to MINE: question and answer')
    }
    t.notOk(topology.within('director', () => findKubeProxy()).includes('iptables-legacy'))
  },
)

t.test('its sets go when no rule names them any more, and other sets stay', { skip: needsRoot }, async (t) => {
  const topology = await director(t)
  const names = ['KUBE-CLUSTER-IP', 'KUBE-6-LOOP-BACK', 'MINE']
  topology.within('director', () => {
    for (const name of names) createSet(name)
  })
  t.match(await cleanUp(topology), { sets: 2 })
  t.equal(
    topology.within('director', () => removeSets(/./)),
    1,
    'which is MINE',
  )
})

/** Makes a set of addresses (hash:ip). */
function createSet(name: string): void {
  const byte = (type: number, value: number): Buffer => writeAttribute(type, Buffer.from([value]))
  const message = writeMessage(
    (6 << 8) | 2 /* IPSET_CMD_CREATE */,
    'creation',
    Buffer.alloc(4),
    ...[byte(1, 6), writeAttribute(2, name), writeAttribute(3, 'hash:ip'), byte(4, 0), byte(5, 2)],
    writeNested(7),
  )
  netlinkRequest(families.netfilter, 'IPSET_CMD_CREATE', message)
}

t.test(
  'connections that its tables translate go on when these are gone, as long as there are any',
  { skip: needsRoot },
  async (t) => {
    const net = await network(t, { servers: 1, serve: ['echo'] })
    const [client, server] = [net.clients[0], net.servers[0]]
    if (client === undefined || server === undefined) throw new Error('no hosts')
    const services = (['ipv4', 'ipv6'] as const).map((family) => ({
      address: family === 'ipv4' ? '10.96.0.1' : 'fd00:96::1',
      port: 7,
      protocol: 'tcp' as const,
      server: { address: server[family], port: ports.echo },
    }))
    await startOldProxy(net.topology, services)
    const ids: number[] = []
    for (const { address, port } of services) {
      ids.push(valueFrom(await client.host.call('connect', { address, port })).id)
    }
    t.match(await cleanUp(net.topology), { tables: 2, left: 2, ended: 0 })
    for (const id of ids) t.equal(valueFrom(await client.host.call('ping', id, 'still there')), 'server0')
    t.match(await ruleset(net.topology), /^table ip6 bpvs-handover \{$/m)
    for (const id of ids) await client.host.call('disconnect', id, true)
    await waitFor(
      'the connections to be forgotten',
      async () => {
        return (await cleanUp(net.topology)).left === 0
      },
      60_000,
    )
    t.equal(await ruleset(net.topology), '')
  },
)

t.test('so do those that iptables-legacy translates', { skip: needsRoot }, async (t) => {
  const net = await network(t, { servers: 1, serve: ['echo'] })
  const [client, server] = [net.clients[0], net.servers[0]]
  if (client === undefined || server === undefined) throw new Error('no hosts')
  const chains: readonly XtChain[] = [
    { name: 'PREROUTING', hook: 0, rules: [{ to: 'KUBE-SERVICES' }] },
    { name: 'INPUT', hook: 1, rules: [] },
    { name: 'OUTPUT', hook: 3, rules: [{ to: 'KUBE-SERVICES' }] },
    { name: 'POSTROUTING', hook: 4, rules: [] },
    { name: 'KUBE-SERVICES', rules: [{ to: 'KUBE-SVC-AAAA' }] },
    { name: 'KUBE-SVC-AAAA', rules: [{ address: '10.96.0.1', server: server.ipv4, port: ports.echo }] },
  ]
  net.topology.within('director', () => {
    const { validHooks, table } = readLegacyTable(4, 'nat')
    replaceLegacyTable({ name: 'nat', validHooks, table: xtTable(4, chains) }, countEntries(table))
  })
  const { id } = valueFrom(await client.host.call('connect', { address: '10.96.0.1', port: ports.echo }))
  t.match(await cleanUp(net.topology), { legacyChains: 2, left: 1 })
  t.equal(valueFrom(await client.host.call('ping', id, 'still there')), 'server0')
})
