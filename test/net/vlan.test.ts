/** Frames with a VLAN tag beside them, as a card hands them over. (test/vm/vlan.py has VLAN interfaces.) */
import t from 'tap'
import { projectFile } from '../../src/lab/project.ts'
import { Director, endpoint } from '../helpers/director.ts'
import { needsRoot, ports, topology } from '../helpers/topology.ts'

/* The table passes through the verifier first: seconds, on a busy machine. */
t.setTimeout(900_000)

const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const

t.test("a tagged frame is its VLAN's interface's, and none of the trunk's", { skip: needsRoot }, async (t) => {
  const net = await topology(t, { servers: 1, serve: ['echo'] })
  const director = new Director(net.topology)
  const [client] = net.clients
  const [server] = net.servers
  if (client === undefined || server === undefined) throw new Error('no hosts')
  const filter = ['filter', 'replace', 'dev', 'eth0', 'egress', 'handle', '1', 'prio', '1']
  const tag = ['bpf', 'da', 'obj', projectFile('build/bpf/vlan.bpf.o'), 'sec', 'tc']
  await net.topology.must('client0', 'tc', ['qdisc', 'add', 'dev', 'eth0', 'clsact'])
  for (const family of ['ipv4', 'ipv6'] as const) {
    const service = endpoint({ address: vips[family], port: ports.echo })
    await director.must(`-A -u ${service} -s rr`)
    await director.must(`-a -u ${service} -r ${endpoint({ address: server[family], port: ports.echo })} -m`)
    const target = { address: vips[family], port: ports.echo, size: 10 }
    t.match(await client.host.call('datagram', target), { value: server.name }, family)
    await net.topology.must('client0', 'tc', [...filter, ...tag])
    t.match(await client.host.call('datagram', { ...target, timeoutMs: 300 }), { error: /./ }, `${family}, tagged`)
    await net.topology.must('client0', 'tc', ['filter', 'del', 'dev', 'eth0', 'egress'])
    t.match(await client.host.call('datagram', target), { value: server.name })
    t.match(await director.must(`-Ln -u ${service} --stats`), /-> \S+ +2 +2 +2 /, 'two came, the tagged one did not')
  }
})
