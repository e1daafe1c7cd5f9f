import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { listNamespaces, namespacePath, ownerOf, removeRun, runDirectory, runPrefix } from '../../src/lab/namespaces.ts'
import { projectFile } from '../../src/lab/project.ts'
import { findTablesDir, tableName } from '../../src/native/bpffs.ts'
import { withNamespace } from '../../src/native/setns.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

const root = { skip: needsRoot }
/** A machine that does other things too takes its time to start a dozen of threads. */
const deadlineMs = 120_000

interface LabProcess {
  readonly child: ChildProcess
  readonly pid: number
  output: string
  readonly ended: Promise<unknown[]>
}

interface Teardown {
  teardown(handler: () => Promise<void>): void
}

/** Starts the lab as `npm start` does, but for the setup. */
function lab(t: Teardown, args: readonly string[]): LabProcess {
  const child = spawn(process.execPath, [projectFile('src/lab/main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = child.pid ?? 0
  const process_ = { child, pid, output: '', ended: once(child, 'exit') }
  t.teardown(async () => {
    child.kill('SIGKILL')
    await process_.ended
    await removeRun(pid)
  })
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      process_.output += text
    })
  }
  return process_
}

function namespacesOf(pid: number): string[] {
  return listNamespaces((name) => ownerOf(name) === pid)
}

/** Where the table of a lab's director is pinned. */
function tableOf({ pid }: LabProcess): string {
  const name = withNamespace(namespacePath(`${runPrefix(pid)}director`), tableName)
  return join(findTablesDir() ?? '', name)
}

/** Waits until a lab shows traffic. */
function running(started: LabProcess): Promise<true> {
  const shown = () => {
    if (started.child.exitCode !== null) throw new Error(`the lab ended: ${started.output}`)
    return /\d answers\/s.*web-1 \d+\/s/.test(started.output)
  }
  return waitFor('the lab shows traffic', shown, deadlineMs)
}

/** Waits until nothing of a run is left. */
function gone({ pid }: LabProcess): Promise<boolean> {
  return waitFor(
    `nothing of run ${pid} is left`,
    () => namespacesOf(pid).length === 0 && !existsSync(runDirectory(pid)),
    deadlineMs,
  )
}

t.test('npm start -- --once: all of its steps pass, and nothing is left', root, async (t) => {
  const once = lab(t, ['--once'])
  const [status] = await once.ended
  t.equal(status, 0, 'it exits with 0', { output: once.output })
  t.match(once.output, /passed in \d+\.\d s/)
  t.notMatch(once.output, /FAIL/)
  t.match(once.output, /IP Virtual Server version/, 'the listing is shown')
  t.same(namespacesOf(once.pid), [])
  t.notOk(existsSync(runDirectory(once.pid)), 'the copy of the manifests is gone')
})

t.test('a lab that is asked to end removes everything and exits with 0', root, async (t) => {
  const live = lab(t, [])
  await running(live)
  const table = tableOf(live)
  t.ok(existsSync(table), 'there is a table while it runs')
  live.child.kill('SIGINT')
  const [status] = await live.ended
  t.equal(status, 0, 'it exits with 0', { output: live.output })
  t.match(live.output, /requests sent, 0 failed .*everything is removed again/)
  t.same(namespacesOf(live.pid), [])
  t.notOk(existsSync(table), 'the table is unloaded')
})

t.test('a lab that is killed leaves nothing: its watchdog tidies up', root, async (t) => {
  const live = lab(t, [])
  await running(live)
  const table = tableOf(live)
  t.ok(existsSync(table), 'there is a table while it runs')
  live.child.kill('SIGKILL')
  await live.ended
  t.ok(await gone(live), 'its namespaces go')
  t.notOk(existsSync(table), 'the table is unloaded')
})

t.test('a lab that is interrupted while it builds the network leaves nothing', root, async (t) => {
  const live = lab(t, [])
  await waitFor('the first namespaces are there', () => namespacesOf(live.pid).length > 0, deadlineMs)
  live.child.kill('SIGTERM')
  const [status] = await live.ended
  t.equal(status, 0, 'it exits with 0', { output: live.output })
  t.same(namespacesOf(live.pid), [])
})

t.test('a directory without manifests fails with the reason, and leaves nothing', root, async (t) => {
  const once = lab(t, ['--once', '--manifests', projectFile('docs')])
  const [status] = await once.ended
  t.equal(status, 1)
  t.match(once.output, /FAIL {2}bpvsd is ready: .*no virtual service to call/)
  t.same(namespacesOf(once.pid), [])
})
