/**
 * Named network namespaces of a run: their names, who lives in them, and their removal. A name carries the pid of the
 * run that made it (bpvs-PID-ROLE, or bpvs-PID.N-ROLE for its N-th topology), so what a killed run left is found.
 */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { LbError } from '../model/errors.ts'
import { run } from './command.ts'
import { projectFile } from './project.ts'

const netnsDir = '/run/netns'
/** Where tables are pinned: the host's bpffs, as it is seen from here or, in a mount namespace of our own, from init. */
const pinDirectories = ['/sys/fs/bpf/bpvs', '/proc/1/root/sys/fs/bpf/bpvs']

/** Namespaces whose role starts with this word hold tables, which are unloaded before the namespace goes. */
export const directorRole = 'director'

/** What all names of a run start with, up to the role. */
export function runPrefix(pid: number, serial = 0): string {
  return serial === 0 ? `bpvs-${pid}-` : `bpvs-${pid}.${serial}-`
}

/** Path by which setns(2) reaches a named namespace. */
export function namespacePath(name: string): string {
  return `${netnsDir}/${name}`
}

/** Names of existing namespaces that `matches` accepts. */
export function listNamespaces(matches: (name: string) => boolean): string[] {
  return existsSync(netnsDir) ? readdirSync(netnsDir).filter(matches) : []
}

/** The pid in a namespace's name, or undefined when the name is not one of ours. */
export function ownerOf(name: string): number | undefined {
  const match = /^bpvs-(\d+)(?:\.\d+)?-/.exec(name)
  return match === null ? undefined : Number(match[1])
}

function identity(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path)
    return `${dev}:${ino}`
  } catch {
    return undefined
  }
}

/** Processes (by their main thread) that live in one of the namespaces. */
export function processesIn(names: readonly string[]): number[] {
  const wanted = new Set(names.map((name) => identity(namespacePath(name))).filter((id) => id !== undefined))
  if (wanted.size === 0) return []
  const pids = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
  return pids.filter((pid) => {
    const id = identity(`/proc/${pid}/ns/net`)
    return id !== undefined && wanted.has(id) && pid !== process.pid
  })
}

/** Whether a process with this pid exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function endProcesses(names: readonly string[]): Promise<void> {
  const deadline = Date.now() + 30_000
  for (let pids = processesIn(names); pids.length > 0; pids = processesIn(names)) {
    if (Date.now() > deadline) {
      throw new LbError('NATIVE', `processes ${pids.join(', ')} in ${names.join(', ')} do not end`, { pids })
    }
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It ended by itself since it was listed.
      }
    }
    await delay(5)
  }
}

/** Whether there are tables at all; if not, unloading can be spared. */
function hasTables(): boolean {
  return pinDirectories.some((directory) => {
    try {
      return readdirSync(directory).length > 0
    } catch {
      return false
    }
  })
}

/** Removes programs, links, maps and pins of the namespaces that may have some; returns what went wrong. */
async function unloadTables(names: readonly string[]): Promise<string[]> {
  const bpvsadm = projectFile('bin/bpvsadm')
  if (!hasTables() || !existsSync(bpvsadm)) return []
  const directors = names.filter((name) => name.replace(/^bpvs-[\d.]+-/, '').startsWith(directorRole))
  // The kernel waits for every processor with each hook that it takes a program off, which lasts on a busy machine.
  const unload = (name: string) => run('ip', ['netns', 'exec', name, bpvsadm, '--unload'], { timeoutMs: 180_000 })
  const results = await Promise.all(directors.map(async (name) => ({ name, ...(await unload(name)) })))
  return results
    .filter(({ status }) => status !== 0)
    .map(({ name, status, signal, stderr }) => `unloading the table of ${name}: ${status ?? signal}: ${stderr.trim()}`)
}

/**
 * Ends the processes in the namespaces, unloads their tables and removes them. Names that do not exist are passed
 * over, so it may be called again, and after a creation that failed half way. NATIVE when something stays.
 */
export async function removeNamespaces(names: readonly string[]): Promise<void> {
  const present = listNamespaces((name) => names.includes(name))
  if (present.length === 0) return
  await endProcesses(present)
  const troubles = await unloadTables(present)
  const input = present.map((name) => `netns del ${name}\n`).join('')
  const result = await run('ip', ['-force', '-batch', '-'], { input })
  const left = listNamespaces((name) => present.includes(name))
  if (left.length > 0) troubles.push(`cannot remove namespaces ${left.join(', ')}: ${result.stderr.trim()}`)
  if (troubles.length > 0) throw new LbError('NATIVE', troubles.join('\n'), { left })
}

/** The one temporary directory that a run may make. */
export function runDirectory(pid: number): string {
  return join(tmpdir(), `bpvs-${pid}-files`)
}

/** Removes what one run made, whatever it had got to: namespaces with all that is in them, and its directory. */
export async function removeRun(pid: number): Promise<void> {
  rmSync(runDirectory(pid), { recursive: true, force: true })
  await removeNamespaces(listNamespaces((name) => ownerOf(name) === pid))
}

function isOfDeadRun(name: string): boolean {
  const pid = ownerOf(name)
  return pid !== undefined && !isAlive(pid)
}

/** Removes what runs left that are no more, and returns the names of their namespaces. */
export async function sweepRuns(): Promise<string[]> {
  const names = listNamespaces(isOfDeadRun)
  await removeNamespaces(names).catch((error: unknown) => {
    // Another run that sweeps at the same time ends what this one runs in the namespaces, and unloads their tables itself.
    if (listNamespaces((name) => names.includes(name)).length > 0) throw error
  })
  for (const name of readdirSync(tmpdir()).filter((entry) => entry.endsWith('-files') && isOfDeadRun(entry))) {
    rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
  return names
}
