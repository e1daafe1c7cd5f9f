/** Services by firewall mark, with marks as IPVS's users set them: by netfilter, at prerouting. */
import t from 'tap'
import { guardCounts, startGuard, synsSentAgain } from '../helpers/datapath-net.ts'
import { Director, endpoint } from '../helpers/director.ts'
import { dnsName, needsRoot, ports, type TestNet, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const root = { skip: needsRoot }
const families = ['ipv4', 'ipv6'] as const
type Family = (typeof families)[number]

/** Virtual addresses: the director's own, and ones that are only routed to it. */
const vips = {
  own: { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' },
  routed: { ipv4: '10.97.0.1', ipv6: 'fd00:97::1' },
} as const
const flags = { ipv4: '-f 1', ipv6: '-f 1 -6' } as const

interface Scene {
  readonly net: TestNet
  readonly director: Director
  readonly client: TestNet['clients'][number]
}

/** A director whose netfilter marks what goes to the virtual addresses with 1; bpvsadm has made nothing yet. */
async function scene(t: Parameters<typeof topology>[0], rules: readonly string[] = markAddresses): Promise<Scene> {
  const net = await topology(t, { servers: 2 })
  const director = new Director(net.topology)
  const [client] = net.clients
  if (client === undefined) throw new Error('no client')
  for (const family of families)
    await net.topology.must('director', 'ip', ['addr', 'add', vips.own[family], 'dev', 'lo'])
  const chain = 'add chain inet marks pre { type filter hook prerouting priority -150; }'
  const lines = ['add table inet marks', chain, ...rules.map((rule) => `add rule inet marks pre ${rule}`)]
  await net.topology.must('director', 'nft', [lines.join('; ')])
  return { net, director, client }
}

const markAddresses = [
  'ip daddr { 10.96.0.1, 10.97.0.1 } meta mark set 1',
  'ip6 daddr { fd00:96::1, fd00:97::1 } meta mark set 1',
]

/** The services by mark with their servers, by the command. */
async function direct({ net, director }: Scene, port: number, options = ''): Promise<void> {
  for (const family of families) {
    await director.must(`-A ${flags[family]} -s rr${options}`)
    for (const server of net.servers) {
      await director.must(`-a ${flags[family]} -r ${endpoint({ address: server[family], port })} -m`)
    }
  }
}

/** The server that answered, or why none did. */
async function asked({ client }: Scene, what: 'http' | 'dns', address: string): Promise<string> {
  const outcome =
    what === 'http'
      ? await client.host.call('http', { address, port: ports.http })
      : await client.host.call('dns', { address, port: ports.dns, name: dnsName, type: 'A' })
  return 'error' in outcome ? outcome.error : 'answered'
}

/** Everybody's answers over both protocols, to what is sent once; what went wrong. */
async function trouble(all: Scene, addresses: Readonly<Record<Family, string>>, rounds = 2): Promise<string[]> {
  const errors: string[] = []
  for (const family of families) {
    for (const what of ['http', 'dns'] as const) {
      for (let round = 0; round < rounds; round++) {
        const outcome = await asked(all, what, addresses[family])
        if (outcome !== 'answered') errors.push(`${what} ${addresses[family]}: ${outcome}`)
      }
    }
  }
  const again = synsSentAgain(all.net.topology, 'client0')
  return again === 0 ? errors : [...errors, `${again} SYNs were sent again`]
}

t.test('TCP and UDP reach the servers of a service by mark in turn, and every flow is valid', root, async (t) => {
  const all = await scene(t)
  await startGuard(all.net.topology)
  await direct(all, 0)
  for (const [kind, addresses] of Object.entries(vips)) {
    t.same(await trouble(all, addresses, 4), [], `${kind} addresses, both families`)
  }
  for (const what of ['http', 'dns'] as const) {
    const served = Object.values(await all.net.counts(what)).map(({ requests }) => requests)
    t.same(served, [8, 8], `${what}: in turn, and nothing was sent twice`)
  }
  t.equal((await guardCounts(all.net.topology)).invalid, 0, 'no flow that netfilter sees is invalid')
})

t.test('a mark that the translated packet gets too, and a strict source check, change nothing', root, async (t) => {
  const all = await scene(t, [`meta l4proto { tcp, udp } th dport { ${ports.http}, ${ports.dns} } meta mark set 1`])
  await all.net.topology.must('director', 'sysctl', ['-qw', 'net.ipv4.conf.all.rp_filter=1'])
  await startGuard(all.net.topology)
  await direct(all, 0)
  t.same(await trouble(all, vips.own), [])
  t.same(await trouble(all, vips.routed), [])
  t.equal((await guardCounts(all.net.topology)).invalid, 0)
})

t.test("what is marked and not for a server is the stack's, as ever", root, async (t) => {
  const all = await scene(t)
  await direct(all, 0)
  for (const address of Object.values(vips.own)) {
    await all.net.topology.must('client0', 'ping', ['-c1', '-W20', address])
    t.pass(`the director answers echo requests to ${address}`)
    await all.net.topology.must('director', 'ping', ['-c1', '-W20', '-m1', address])
    t.pass('its own too, marked as they are')
  }
  for (const family of families) {
    for (const { [family]: address } of all.net.servers) {
      await all.director.must(`-e ${flags[family]} -r ${endpoint({ address, port: 0 })} -m -w 0`)
    }
    for (const address of [vips.own[family], vips.routed[family]]) {
      const outcome = await all.client.host.call('http', { address, port: ports.http, timeoutMs: 700 })
      t.match(outcome, { error: /ECONNREFUSED|timeout/i }, `${address}: refused without a usable server`)
    }
  }
  t.match(await all.director.must('--verdicts'), /REFUSE_NO_SERVER +[1-9]/)
})

t.test("rules of the table's own mark packets where netfilter does nothing", root, async (t) => {
  const all = await scene(t, [])
  await all.net.topology.must('director', 'nft', ['flush ruleset'])
  await direct(all, 0)
  const lines = Object.values(vips).flatMap((vip) => families.map((family) => `1 to ${vip[family]} dev cl0`))
  for (const line of lines) await all.director.must(`--mark-rule add ${line}`)
  t.same(await trouble(all, vips.own), [])
  t.same(await trouble(all, vips.routed), [])
  for (const line of lines) await all.director.must(`--mark-rule delete ${line}`)
  t.equal(await all.director.must('--mark-rules'), '')
  const refused = await all.director.adm('--mark-rule add 1 dev nowhere')
  t.match(refused, { status: 255, stderr: 'No such interface: nowhere\n' })
})

t.test('with one-packet scheduling each datagram goes to the next server', root, async (t) => {
  const all = await scene(t)
  await direct(all, 0, ' -o')
  const send = `for i in 1 2 3 4; do echo x > /dev/udp/${vips.own.ipv4}/${ports.echo}; done`
  await all.net.topology.must('client0', 'bash', ['-c', send])
  const stats = async () => (await all.director.must('-Ln --stats')).match(/-> 10\.244\.1\.\d+:0 +\d+/g) ?? []
  t.same(
    (await stats()).map((line) => line.replace(/.* /, '')),
    ['2', '2'],
  )
  t.equal((await all.director.must('-Lnc')).trim().split('\n').length, 2, 'and leaves no connection')
})

const rules = ({ net }: Scene, family: Family): Promise<string> =>
  net.topology.must('director', 'ip', [family === 'ipv4' ? '-4' : '-6', 'rule'])
const links = async ({ net }: Scene): Promise<string> => net.topology.must('director', 'ip', ['-br', 'link'])

/** All that services by mark need of the namespace. */
async function traces(all: Scene): Promise<string> {
  const parts = [await rules(all, 'ipv4'), await rules(all, 'ipv6'), (await links(all)).replace(/^bpvs.*<.*\n/gm, '$&')]
  return parts.join('')
}

t.test('rules and veth are there as long as a service by mark, and nothing of them stays', root, async (t) => {
  const all = await scene(t)
  const { director } = all
  const before = await traces(all)
  await director.must('-A -t 10.98.0.1:80')
  t.equal(await traces(all), before, 'other services need none')
  const withBoth = async (): Promise<void> => {
    await director.must('-A -f 1')
    await director.must('-A -f 4294967295 -6')
  }
  await withBoth()
  t.match(
    await rules(all, 'ipv4'),
    /^0:\s+from all iif bpvs1 goto 1.*\n0:\s+from all fwmark 0x1 lookup 181.*\n1:\s+from all lookup local/,
  )
  t.match(await rules(all, 'ipv6'), /fwmark 0xffffffff lookup 181/)
  await director.must('-D -f 1')
  t.equal(
    await rules(all, 'ipv4'),
    before.slice(0, (await rules(all, 'ipv4')).length),
    'a family without any is as it was',
  )
  t.match(await links(all), /bpvs0/, 'the other still has its own')
  await director.must('-D -f 4294967295 -6')
  t.equal(await traces(all), before, 'after -D')
  await withBoth()
  await director.must('-C')
  t.equal(await traces(all), before, 'after -C')
  await withBoth()
  await director.must('--unload')
  t.equal(await traces(all), before, 'after --unload')
})

t.test('a writer that died in between leaves nothing that the next one does not put right', root, async (t) => {
  const all = await scene(t)
  await direct(all, 0)
  const whole = await rules(all, 'ipv4')
  const cut = ['rule add pref 0 lookup local', 'rule del pref 0 fwmark 1', 'link del bpvs0', 'rule del pref 1']
  for (const line of cut) await all.net.topology.must('director', 'ip', line.split(' '))
  t.not(await rules(all, 'ipv4'), whole)
  await all.director.must('-A -f 2')
  await all.director.must('-D -f 2')
  t.equal(await rules(all, 'ipv4'), whole)
  t.same(await trouble(all, vips.own), [])
  t.match(await all.director.must('--hooks'), /bpvs0 +\d+ +egress/)
  t.notMatch(await all.director.must('--hooks'), /bpvs1/, 'what comes back from the veth meets no program')
})
