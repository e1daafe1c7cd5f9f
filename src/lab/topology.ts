/**
 * A topology of network namespaces from a small description: namespaces, bridges, veth pairs, addresses, routes,
 * sysctls. It takes one `ip -batch` for namespaces and links and one more per namespace; sysctls are written directly.
 *
 * IPv6 duplicate address detection is off everywhere, so an address can be used as soon as it is there.
 */
import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { LbError } from '../model/errors.ts'
import { withNamespace } from '../native/setns.ts'
import { type CommandOptions, type CommandResult, must, run } from './command.ts'
import { listNamespaces, namespacePath, removeNamespaces, runPrefix } from './namespaces.ts'

export interface NamespaceSpec {
  /** The role, unique in the topology: client0, director, server2. */
  readonly name: string
  /** Forwards packets of both families. */
  readonly forwarding?: boolean
  /** Bridges to make in this namespace. */
  readonly bridges?: readonly string[]
  readonly routes?: readonly { readonly to: string; readonly via: string }[]
  /** Keys as sysctl(8) writes them, without dots in names of interfaces. */
  readonly sysctls?: Readonly<Record<string, string | number>>
  /** What else is to be done with ip(8) once links, addresses and routes are there: a line per command, without `ip`. */
  readonly lines?: readonly string[]
}

/** One end of a veth pair. */
export interface LinkEnd {
  readonly namespace: string
  /** Name of the interface, at most 15 characters. */
  readonly interface: string
  /** Addresses with prefix lengths; the first of a family is the source address towards its network. */
  readonly addresses?: readonly string[]
  /** A bridge of the same namespace that the interface joins. */
  readonly bridge?: string
  /** Its link-layer address. Default: any. */
  readonly mac?: string
}

export interface TopologySpec {
  readonly namespaces: readonly NamespaceSpec[]
  readonly links: readonly (readonly [LinkEnd, LinkEnd])[]
  /**
   * Whether senders may leave checksums to the interface (as veth does by default). XDP sees such packets with a
   * partial checksum, so tests of XDP turn it off.
   */
  readonly checksumOffload?: boolean
}

const everywhere: Readonly<Record<string, string | number>> = {
  'net.ipv6.conf.all.accept_dad': 0,
  'net.ipv6.conf.default.accept_dad': 0,
  'net.ipv6.conf.default.accept_ra': 0,
  'net.ipv6.conf.default.router_solicitations': 0,
  'net.ipv4.conf.all.rp_filter': 0,
  'net.ipv4.conf.default.rp_filter': 0,
  'net.core.somaxconn': 4096,
}

const routerSysctls: Readonly<Record<string, string | number>> = {
  'net.ipv4.ip_forward': 1,
  'net.ipv6.conf.all.forwarding': 1,
  'net.ipv4.conf.all.send_redirects': 0,
  'net.ipv4.conf.default.send_redirects': 0,
}

/** Above what the kernel gives to lo and to bridges. */
const firstIndex = 100

let topologies = 0

function addressLines(end: LinkEnd): string[] {
  return (end.addresses ?? []).map((address) => {
    return `addr add ${address} dev ${end.interface}${address.includes(':') ? ' nodad' : ''}`
  })
}

function namespaceLines(spec: NamespaceSpec, ends: readonly LinkEnd[]): string[] {
  const bridges = (spec.bridges ?? []).flatMap((name) => [
    `link add name ${name} type bridge mcast_snooping 0`,
    `link set dev ${name} up`,
  ])
  const interfaces = ends.flatMap((end) => [
    ...(end.bridge === undefined ? [] : [`link set dev ${end.interface} master ${end.bridge}`]),
    `link set dev ${end.interface} up`,
    ...addressLines(end),
  ])
  const routes = (spec.routes ?? []).map(({ to, via }) => `route add ${to} via ${via}`)
  return ['link set dev lo up', ...bridges, ...interfaces, ...routes, ...(spec.lines ?? [])]
}

/** A topology: described on construction, there after create(), gone after close(). */
export class Topology {
  readonly spec: TopologySpec
  readonly prefix: string

  constructor(spec: TopologySpec, prefix = runPrefix(process.pid, topologies++)) {
    this.spec = spec
    this.prefix = prefix
    const known = new Set(spec.namespaces.map(({ name }) => name))
    for (const end of spec.links.flat()) {
      if (known.has(end.namespace)) continue
      throw new LbError('INVALID', `topology: interface ${end.interface}: no namespace ${end.namespace}`, { end })
    }
  }

  /** Full name of a namespace, as `ip netns` knows it. */
  nameOf(role: string): string {
    return `${this.prefix}${role}`
  }

  /** Path of a namespace for setns(2). */
  pathOf(role: string): string {
    return namespacePath(this.nameOf(role))
  }

  /** Builds everything. PERMISSION when not root, NATIVE naming the command that failed; close() then tidies up. */
  async create(): Promise<void> {
    if (process.getuid?.() !== 0) throw new LbError('PERMISSION', 'network namespaces need root', { call: 'ip netns' })
    const names = this.#names()
    // A run that is no more had the same pid and left these.
    await removeNamespaces(listNamespaces((name) => names.includes(name)))
    await must('ip', ['-batch', '-'], { input: names.map((name) => `netns add ${name}\n`).join('') })
    for (const spec of this.spec.namespaces) this.#writeSysctls(spec)
    await must('ip', ['-batch', '-'], { input: this.spec.links.map((link, i) => this.#linkLine(link, i)).join('') })
    const results = await Promise.allSettled(this.spec.namespaces.map((spec) => this.#configure(spec)))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  /** Ends the processes in the namespaces and removes these. May be called at any time, and more than once. */
  close(): Promise<void> {
    return removeNamespaces(this.#names())
  }

  /** Runs a command in a namespace to its end; a status other than 0 is for the caller to judge. */
  exec(role: string, file: string, args: readonly string[], options?: CommandOptions): Promise<CommandResult> {
    return run('ip', ['netns', 'exec', this.nameOf(role), file, ...args], options)
  }

  /** Runs a command that has to succeed in a namespace and returns its output. NATIVE with what it said. */
  must(role: string, file: string, args: readonly string[], options?: CommandOptions): Promise<string> {
    return must('ip', ['netns', 'exec', this.nameOf(role), file, ...args], options)
  }

  /** Starts a process in a namespace. Its pid is the command's own: ip replaces itself. */
  spawn(role: string, file: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    return spawn('ip', ['netns', 'exec', this.nameOf(role), file, ...args], options)
  }

  /** Runs synchronous code on the calling thread within a namespace. */
  within<T>(role: string, work: () => T): T {
    return withNamespace(this.pathOf(role), work)
  }

  #names(): string[] {
    return this.spec.namespaces.map(({ name }) => this.nameOf(name))
  }

  #writeSysctls(spec: NamespaceSpec): void {
    const values = { ...everywhere, ...(spec.forwarding === true ? routerSysctls : {}), ...spec.sysctls }
    this.within(spec.name, () => {
      for (const [key, value] of Object.entries(values)) {
        writeFileSync(`/proc/sys/${key.replaceAll('.', '/')}`, String(value))
      }
    })
  }

  /**
   * Both ends get indexes that nothing else has: the kernel takes a veth whose peer has its own index for a device of
   * no particular hurry, and notices up to a second late that it may send (linkwatch, all versions).
   */
  #linkLine([a, b]: readonly [LinkEnd, LinkEnd], ordinal: number): string {
    const index = firstIndex + 2 * ordinal
    const [mine, theirs] = [a, b].map(({ mac }) => (mac === undefined ? '' : ` address ${mac}`))
    const peer = `peer name ${b.interface}${theirs} index ${index + 1} netns ${this.nameOf(b.namespace)}`
    return `link add name ${a.interface}${mine} index ${index} netns ${this.nameOf(a.namespace)} type veth ${peer}\n`
  }

  async #configure(spec: NamespaceSpec): Promise<void> {
    const ends = this.spec.links.flat().filter(({ namespace }) => namespace === spec.name)
    const input = `${namespaceLines(spec, ends).join('\n')}\n`
    await must('ip', ['-n', this.nameOf(spec.name), '-batch', '-'], { input })
    if (this.spec.checksumOffload !== false) return
    for (const end of ends) {
      await this.must(spec.name, 'ethtool', ['-K', end.interface, 'tx-checksumming', 'off'])
    }
  }
}
