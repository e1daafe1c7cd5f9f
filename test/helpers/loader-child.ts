/** Children of the tests of loading: each opens a table in a namespace, under `ip netns exec`, where /sys is not the host's. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { runPrefix } from '../../src/lab/namespaces.ts'
import { findTablesDir } from '../../src/native/bpffs.ts'
import { unloadTable } from '../../src/native/loader.ts'
import { withNamespace } from '../../src/native/setns.ts'
import { netnsCookie } from '../../src/native/shim.ts'

const loader = new URL('../../src/native/loader.ts', import.meta.url).href
const interfaces = new URL('../../src/native/interfaces.ts', import.meta.url).href
const abi = new URL('../../src/abi/generated.ts', import.meta.url).href
let names = 0

/** Options of openTable(): little room. */
export const small = '{ sizes: { services: 64, servers: 64, cells: 256, connections: 64 } }'

interface Teardown {
  teardown(handler: () => void): unknown
}

export interface Netns {
  readonly name: string
  readonly cookie: string
  readonly dir: string
}

export function ip(...args: string[]): void {
  execFileSync('ip', args)
}

/** What a child does: its code has the loader's functions, and prints JSON by say(). */
export function script(code: string): string[] {
  const head =
    `import * as lb from '${loader}'\nimport * as nif from '${interfaces}'\nimport * as abi from '${abi}'\n` +
    `const say = (value) => console.log(JSON.stringify(value, (_, v) => typeof v === 'bigint' ? String(v) : v))\n`
  return [...process.execArgv, '--input-type=module', '-e', head + code]
}

/** Runs code in a namespace; returns what it said. */
export function run(ns: Netns, code: string): unknown {
  const { status, stdout, stderr } = spawnSync('ip', ['netns', 'exec', ns.name, process.execPath, ...script(code)], {
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`child failed (${status}): ${stderr}`)
  return stdout.trim() === '' ? undefined : JSON.parse(stdout.trim())
}

export function start(ns: Netns, code: string): ChildProcess {
  return spawn('ip', ['netns', 'exec', ns.name, process.execPath, ...script(code)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

/** A namespace with a pair of interfaces, a0 and a1; it and its table go when the test ends. */
export function netns(t: Teardown): Netns {
  const name = `${runPrefix(process.pid)}director${names++}`
  t.teardown(() => {
    if (!existsSync(`/run/netns/${name}`)) return
    withNamespace(`/run/netns/${name}`, unloadTable)
    ip('netns', 'del', name)
  })
  ip('netns', 'add', name)
  ip('-n', name, 'link', 'set', 'lo', 'up')
  ip('-n', name, 'link', 'add', 'a0', 'type', 'veth', 'peer', 'name', 'a1')
  const cookie = withNamespace(`/run/netns/${name}`, netnsCookie).toString()
  return { name, cookie, dir: join(findTablesDir() ?? '/sys/fs/bpf/bpvs', cookie) }
}
