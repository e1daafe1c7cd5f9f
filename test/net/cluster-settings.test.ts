/** What a table has of its namespace when it is made, and what it can be told of a cluster in the kernel. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { runPrefix } from '../../src/lab/namespaces.ts'
import { PodLinks } from '../../src/native/link-maps.ts'
import { openTable, unloadTable } from '../../src/native/loader.ts'
import { withNamespace } from '../../src/native/setns.ts'

const skip = process.getuid?.() === 0 ? false : 'network namespaces and BPF need root'

/* The table passes through the verifier once: seconds, on a busy machine. */
t.setTimeout(900_000)

t.test('ports of masqueraded connections keep away from those of the namespace', { skip }, async (t) => {
  const name = `${runPrefix(process.pid)}ports`
  const path = `/run/netns/${name}`
  t.teardown(() => {
    withNamespace(path, unloadTable)
    execFileSync('ip', ['netns', 'del', name])
  })
  execFileSync('ip', ['netns', 'add', name])
  const set = (key: string, value: string) =>
    execFileSync('ip', ['netns', 'exec', name, 'sysctl', '-qw', `net.ipv4.${key}=${value}`])
  set('ip_local_port_range', '20000 59999')
  set('ip_local_reserved_ports', '5000-5010,61000')
  const sizes = { services: 64, servers: 64, cells: 128, connections: 64 }
  const handles = withNamespace(path, () => openTable({ sizes }))
  t.teardown(() => handles.close())
  const table = new KernelTable(handles)
  t.same(table.settings().masqueradePorts, { first: 5011, last: 19999 })
  table.changeSettings({ masqueradePorts: { first: 62000, last: 63000 } })
  t.same(table.settings().masqueradePorts, { first: 62000, last: 63000 })

  const links = new PodLinks(handles.dir)
  for (const wanted of [[3, 5], [5, 7], [], [2]]) {
    const before = table.generation()
    table.setPods({ networks: [], links: wanted })
    t.same(links.list().sort(), wanted)
    table.setPods({ networks: [], links: wanted })
    t.equal(table.generation(), before + 1n, 'the second time nothing changes')
  }
})
