/**
 * Names of hosts and ports, both ways, as the C library finds them for ipvsadm: hosts through the system's resolver
 * (/etc/hosts, DNS), ports in /etc/services. Parsing and formatting are pure and ask a NameBook, which answers from
 * memory; what is missing there is looked up between two tries.
 */
import { readFileSync } from 'node:fs'
import type { Protocol } from '../model/types.ts'
import type { NamedProtocol, NameLookup } from './format-name.ts'

/** The lookups that need the system. Undefined: there is no such name, or the lookup failed. */
export interface Resolver {
  /** The first IPv4 address of a host name. */
  address(name: string): Promise<string | undefined>
  /** The name of an address. */
  name(address: string): Promise<string | undefined>
  /** The text of /etc/services; empty when there is none. */
  services(): string
}

/** Thrown by a NameBook that does not know a host yet. */
export class HostWanted extends Error {
  readonly host: string

  constructor(host: string) {
    super(`host ${host} has not been looked up`)
    this.host = host
  }
}

interface PortName {
  readonly port: number
  readonly protocol: string
  readonly names: readonly string[]
}

/** What is known of names so far. */
export class NameBook implements NameLookup {
  readonly #resolver: Resolver
  readonly #addresses = new Map<string, string | undefined>()
  readonly #names = new Map<string, string | undefined>()
  #ports: readonly PortName[] | undefined

  constructor(resolver: Resolver) {
    this.#resolver = resolver
  }

  /** IPv4 address of a host, undefined when it has none. Throws HostWanted when `learnAddress` was not called for it. */
  address(name: string): string | undefined {
    if (!this.#addresses.has(name)) throw new HostWanted(name)
    return this.#addresses.get(name)
  }

  async learnAddress(name: string): Promise<void> {
    this.#addresses.set(name, name === '' ? undefined : await this.#resolver.address(name))
  }

  /** Name of an address; undefined also when `learnNames` was not called for it. */
  host(address: string): string | undefined {
    return this.#names.get(address)
  }

  /** Looks up the names of all addresses at once. */
  async learnNames(addresses: Iterable<string>): Promise<void> {
    const wanted = [...new Set(addresses)].filter((address) => !this.#names.has(address))
    await Promise.all(wanted.map(async (address) => this.#names.set(address, await this.#resolver.name(address))))
  }

  /** Number of a named port. */
  portNumber(name: string, protocol: Protocol): number | undefined {
    return this.#portNames().find((entry) => entry.protocol === protocol && entry.names.includes(name))?.port
  }

  port(port: number, protocol: NamedProtocol): string | undefined {
    return this.#portNames().find((entry) => entry.protocol === protocol && entry.port === port)?.names[0]
  }

  #portNames(): readonly PortName[] {
    this.#ports ??= parseServices(this.#resolver.services())
    return this.#ports
  }
}

/** Entries of /etc/services: name, port/protocol, aliases. */
function parseServices(text: string): PortName[] {
  return text.split('\n').flatMap((line) => {
    const [name, port, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/)
    const match = /^([0-9]+)\/([a-z0-9]+)$/.exec(port ?? '')
    if (name === undefined || match === null) return []
    return [{ port: Number(match[1]), protocol: match[2] ?? '', names: [name, ...aliases] }]
  })
}

/** The resolver of this host. */
export function systemResolver(): Resolver {
  return {
    address: async (name) => {
      const { lookup } = await import('node:dns/promises')
      return await lookup(name, { family: 4 }).then(
        (found) => found.address,
        () => undefined,
      )
    },
    name: async (address) => {
      const { lookupService } = await import('node:dns/promises')
      const found = await lookupService(address, 0).then(
        (answer) => answer.hostname,
        () => undefined,
      )
      return found === address ? undefined : found
    },
    services: readServices,
  }
}

function readServices(): string {
  try {
    return readFileSync('/etc/services', 'utf8')
  } catch {
    return ''
  }
}
