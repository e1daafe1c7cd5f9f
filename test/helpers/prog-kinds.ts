/** Packets for tests of services that are not found by a whole endpoint: by firewall mark, and of port 0. */
import { datagram, end, segment } from './prog-flow.ts'
import type { Expectation, Step } from './prog-rows.ts'

export const families = {
  IPv4: {
    client: '10.1.0.1:1000',
    mark: 'mark 7',
    virtual: (port: number) => `10.9.0.1:${port}`,
    foreign: (port: number) => `10.9.0.2:${port}`,
    /** An address of the director's own. */
    local: (port: number) => `10.10.0.1:${port}`,
    server: (port: number) => `10.2.0.11:${port}`,
    other: (port: number) => `10.2.0.12:${port}`,
    frag: { type: 3, code: 4, rest: 1400 },
  },
  IPv6: {
    client: '[fd00:1::1]:1000',
    mark: 'mark6 7',
    virtual: (port: number) => `[fd00:9::1]:${port}`,
    foreign: (port: number) => `[fd00:9::2]:${port}`,
    local: (port: number) => `[fd00:10::1]:${port}`,
    server: (port: number) => `[fd00:2::11]:${port}`,
    other: (port: number) => `[fd00:2::12]:${port}`,
    frag: { type: 2, code: 0, rest: 1400 },
  },
} as const
export type Family = keyof typeof families
export type Net = (typeof families)[Family]

export const syn = { flags: 'S' } as const
export const untouched: Expectation = { action: 'pass' }

/** The address of an end. */
export function bare(text: string): string {
  return end(text).address
}

export interface Way {
  readonly at: Step['at']
  readonly mark?: number
}

/** A SYN from the client, and where it has to go: "server address:port", or nowhere of ours. */
export function opens(way: Way, net: Net, to: string, server?: string): Step {
  const packet = segment({ from: net.client, to, ...syn })
  if (server === undefined) return { ...way, side: 'clients', packet, expect: untouched }
  const sent = segment({ leg: 'to server', from: net.client, to: server, ttl: 63, ...syn })
  return { ...way, side: 'clients', packet, expect: { action: 'send', packet: sent } }
}

/** The server's answer to that, and as whose it has to reach the client. */
export function answers(at: Step['at'], net: Net, server: string, virtual?: string): Step {
  const packet = segment({ leg: 'from server', from: server, to: net.client, flags: 'SA' })
  if (virtual === undefined) return { at, side: 'servers', packet, expect: untouched }
  const sent = segment({ leg: 'to client', from: virtual, to: net.client, ttl: 63, flags: 'SA' })
  return { at, side: 'servers', packet, expect: { action: 'send', packet: sent } }
}

/** The same for a datagram. */
export function asks(way: Way, net: Net, to: string, server: string): Step {
  const packet = datagram({ from: net.client, to })
  const sent = datagram({ leg: 'to server', from: net.client, to: server, ttl: 63 })
  return { ...way, side: 'clients', packet, expect: { action: 'send', packet: sent } }
}
