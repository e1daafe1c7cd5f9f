/** A director that balances the sockets of a control group of the test's own, with a process in that group. */
import type { Scheduler, ServerSpec, ServiceKey, ServiceSpec } from '../../src/model/types.ts'
import { syncSockets } from '../../src/native/loader.ts'
import type { SocketPolicy } from '../../src/native/socket-hooks.ts'
import { Director, real, service } from './director.ts'
import { makeGroup, SocketUser, type SocketView } from './socket-user.ts'
import { ports, type TestNet, topology } from './topology.ts'

export const vips = { ipv4: '10.96.0.1', ipv6: 'fd00:96::1' } as const
export const families = ['ipv4', 'ipv6'] as const
export type FamilyName = (typeof families)[number]

interface Teardown {
  teardown(handler: () => Promise<void> | void): void
}

export class SocketScene {
  readonly net: TestNet
  readonly director: Director
  readonly group: string
  readonly user: SocketUser
  readonly #t: Teardown

  private constructor(t: Teardown, net: TestNet, group: string, user: SocketUser) {
    this.#t = t
    this.net = net
    this.director = new Director(net.topology)
    this.group = group
    this.user = user
  }

  /** Three echo servers, a table, and the programs for sockets as the policy wants them. */
  static async start(t: Teardown, policy: Partial<SocketPolicy> = {}): Promise<SocketScene> {
    const group = makeGroup(t)
    const net = await topology(t, { serve: ['echo'] })
    const director = new Director(net.topology)
    director.open().close()
    const user = await SocketUser.start(t, net.topology, 'director', group)
    const made = new SocketScene(t, net, group, user)
    made.balance(policy)
    return made
  }

  /** Changes whose sockets are balanced. */
  balance(policy: Partial<SocketPolicy>): boolean {
    return this.director.within(() => syncSockets({ scope: 'host', protocols: 'all', group: this.group, ...policy }))
  }

  /** Another process in the group, in any namespace. */
  another(role: string, group = this.group): Promise<SocketUser> {
    return SocketUser.start(this.#t, this.net.topology, role, group)
  }

  /** The echo servers as servers of a service. */
  servers(family: FamilyName, spec: Partial<ServerSpec> = {}): ServerSpec[] {
    return this.net.servers.map((server) => ({ ...real(server[family], ports.echo), ...spec }))
  }

  /** Makes a service; with the servers in this order. */
  serve(key: ServiceKey, servers: readonly ServerSpec[], scheduler: Scheduler = 'rr', more: Partial<ServiceSpec> = {}) {
    this.director.table((table) => {
      table.addService({ ...service(key, scheduler), ...more })
      for (const server of servers) table.addServer(key, server)
    })
  }

  /** "active inactive" of a service's servers, in the order of the topology. */
  loads(key: ServiceKey, family: FamilyName): string[] {
    const { servers } = this.director.service(key)
    return this.net.servers.map((each) => {
      const found = servers.find(({ address }) => address === each[family])
      return found === undefined ? '-' : `${found.active} ${found.inactive}`
    })
  }

  /** Lines of `-Lnc` without templates: "TCP 15:00 ESTABLISHED client virtual server". */
  async connections(): Promise<string[]> {
    const [, , ...lines] = (await this.director.must('-Lnc')).trim().split('\n')
    return lines.map((line) => line.split(/ +/).join(' '))
  }

  /** Who is behind a TCP socket: the echo server's name, or the error of connect(). */
  async called(address: string, port: number, user = this.user): Promise<{ id: number; name: string }> {
    const { id, error } = await user.stream(address, port)
    if (error !== undefined) return { id, name: error }
    return { id, name: (await user.received(id)).received[0]?.text.trim() ?? '' }
  }

  /** The answer to a datagram: the server's name, and who the socket says it came from; or the error of sendmsg(). */
  async asked(id: number, address?: string, port?: number): Promise<{ name: string; from: string }> {
    const before: SocketView = await this.user.send(id, 'x', address, port)
    if (before.error !== undefined) return { name: before.error, from: '' }
    this.#answers.set(id, (this.#answers.get(id) ?? 0) + 1)
    const { received } = await this.user.received(id, this.#answers.get(id))
    const { text = '', from = '' } = received.at(-1) ?? {}
    return { name: text.replace(/\s*x$/, ''), from }
  }

  readonly #answers = new Map<number, number>()
}
