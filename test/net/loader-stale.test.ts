/** Tables of namespaces that are gone: who removes them, and who does not. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, readlinkSync } from 'node:fs'
import t from 'tap'
import { ip, netns, run, script, small } from '../helpers/loader-child.ts'
import { waitFor } from '../helpers/wait-for.ts'

const skip = process.getuid?.() === 0 ? false : 'network namespaces and BPF need root'

/* Every table that is made passes through the verifier: seconds, on a busy machine. */
t.setTimeout(900_000)

t.test(
  'tables of namespaces that are gone are removed by whoever makes the next; living ones stay',
  { skip },
  async (t) => {
    const [gone, bare, living] = [netns(t), netns(t), netns(t)]
    for (const ns of [gone, bare, living]) run(ns, `lb.openTable(${small})`)
    ip('-n', bare.name, 'link', 'del', 'a0') /* no link of this table is on an interface, yet its namespace lives */
    ip('netns', 'del', gone.name)
    await waitFor("the namespace's end", () => {
      run(netns(t), `lb.openTable(${small})`)
      return !existsSync(gone.dir)
    })
    t.ok(existsSync(bare.dir))
    t.ok(existsSync(living.dir))
  },
)

t.test('who does not see all processes removes no table: its namespace may be theirs', { skip }, async (t) => {
  const [hidden, other] = [netns(t), netns(t)]
  run(hidden, `lb.openTable(${small})`)
  ip('-n', hidden.name, 'link', 'del', 'a0')
  const holder = spawn('ip', ['netns', 'exec', hidden.name, 'sleep', '1000'], { stdio: 'ignore' })
  t.teardown(() => holder.kill('SIGKILL'))
  const inside = (): boolean => readlinkSync(`/proc/${holder.pid}/ns/net`) !== readlinkSync('/proc/self/ns/net')
  await waitFor('the process that holds the namespace', inside)
  ip('netns', 'del', hidden.name)
  const contained = [`--net=/run/netns/${other.name}`, 'unshare', '--pid', '--fork', '--mount-proc', process.execPath]
  execFileSync('nsenter', [...contained, ...script(`lb.openTable(${small})`)])
  t.ok(existsSync(other.dir), 'it made its own table among those of the host')
  t.ok(existsSync(hidden.dir))
  run(netns(t), `lb.openTable(${small})`)
  t.ok(existsSync(hidden.dir), 'who sees the process leaves it alone too')
  holder.kill('SIGKILL')
  await waitFor("the namespace's end", () => {
    run(netns(t), `lb.openTable(${small})`)
    return !existsSync(hidden.dir)
  })
})
