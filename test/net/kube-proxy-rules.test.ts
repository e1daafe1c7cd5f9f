/** What kube-proxy leaves is removed, whichever mode it ran in, and nothing else: with rules as it and iptables write them. */
import t from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Topology } from '../../src/lab/topology.ts'
import { cases } from '../helpers/kube-cases.ts'
import { needsRoot } from '../helpers/topology.ts'

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
