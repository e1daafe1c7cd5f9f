/** Eight processes edit one table at once: no edit is lost, and what is left is consistent. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { checkTable } from '../../src/engine/check.ts'
import { KernelTable } from '../../src/engine/kernel-table.ts'
import { runPrefix } from '../../src/lab/namespaces.ts'
import type { TableHandles } from '../../src/native/handles.ts'
import { openExistingTable, openTable, unloadTable } from '../../src/native/loader.ts'
import { withNamespace } from '../../src/native/setns.ts'

const skip = process.getuid?.() === 0 ? false : 'network namespaces and BPF need root'
const worker = fileURLToPath(new URL('edit-worker.ts', import.meta.url))
const PROCESSES = 8
const DURATION_MS = 3000

/* The table passes through the verifier once: seconds, on a busy machine. */
t.setTimeout(900_000)

interface Report {
  readonly done: number
  readonly refused: number
  readonly last: string
}

/** A namespace with an empty table. */
function namespaceWithTable(t: Pick<typeof import('tap').default, 'teardown'>, name: string): string {
  const path = `/run/netns/${name}`
  t.teardown(() => {
    withNamespace(path, unloadTable)
    execFileSync('ip', ['netns', 'del', name])
  })
  execFileSync('ip', ['netns', 'add', name])
  const sizes = { services: 64, servers: 1024, cells: 2048, connections: 64 }
  withNamespace(path, () => openTable({ sizes }).close())
  return path
}

function openIn(path: string): TableHandles {
  const handles = withNamespace(path, openExistingTable)
  if (handles === undefined) throw new Error(`there is no table in ${path}`)
  return handles
}

/** Runs a worker in a namespace; kills it after `killMs`, if given. */
async function runWorker(name: string, seed: number, killMs?: number): Promise<Report | undefined> {
  const args = ['netns', 'exec', name, process.execPath, ...process.execArgv, worker, String(seed), String(DURATION_MS)]
  const child = spawn('ip', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const timer = killMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killMs)
  const [output, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  clearTimeout(timer)
  if (killMs !== undefined && code === null) return undefined
  if (code !== 0) throw new Error(`worker ${seed} ended with ${code}`)
  return JSON.parse(output) as Report
}

t.test('eight processes edit at once and the table is consistent after', { skip }, async (t) => {
  const name = `${runPrefix(process.pid)}director-a`
  const path = namespaceWithTable(t, name)
  const reports = await Promise.all(Array.from({ length: PROCESSES }, (_, i) => runWorker(name, i + 1)))
  const handles = openIn(path)
  t.teardown(() => handles.close())
  for (const [i, report] of reports.entries())
    t.ok((report?.done ?? 0) > 50, `process ${i + 1}: ${JSON.stringify(report)}`)
  t.same(checkTable(handles), [])
  const table = new KernelTable(handles)
  const seen = reports.map((report) => Number(report?.last))
  t.equal(Number(table.generation()), Math.max(...seen), 'whoever edited last saw all edits')
  table.clear()
  t.same(table.services(), [])
  t.same(checkTable(handles), [])
})

t.test(
  'processes that are killed in the middle of it leave a table that the next edit puts in order',
  { skip },
  async (t) => {
    const name = `${runPrefix(process.pid)}director-b`
    const path = namespaceWithTable(t, name)
    await Promise.all(
      Array.from({ length: PROCESSES }, (_, i) => runWorker(name, 100 + i, i % 2 === 0 ? 800 + 200 * i : undefined)),
    )
    const handles = openIn(path)
    t.teardown(() => handles.close())
    new KernelTable(handles).zero()
    t.same(checkTable(handles), [])
  },
)
