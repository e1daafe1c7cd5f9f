/** The field's terms as types. Pure data: no handle, no clock. Addresses are canonical text; ports and marks host order. */

/** Address family, as a number one can print. */
export type Family = 4 | 6
export type Protocol = 'tcp' | 'udp' | 'sctp'

/** The 14 schedulers of the kernel's IPVS. */
export const schedulers = [
  'rr',
  'wrr',
  'lc',
  'wlc',
  'lblc',
  'lblcr',
  'dh',
  'sh',
  'sed',
  'nq',
  'fo',
  'ovf',
  'mh',
  'twos',
] as const
/** `none`: every connection is refused, but of clients that a template knows. */
export type Scheduler = (typeof schedulers)[number] | 'none'

/** How packets reach a server: NAT, IP in IP (or GUE, GRE), or by its MAC address. */
export type ForwardingMethod = 'masq' | 'tunnel' | 'droute'

/** Who made an entry. A source removes only what is its own. */
export type Source = 'command' | 'manifest' | 'kubernetes'

/** What names a virtual service: an address and port of a protocol, or a firewall mark of a family. */
export type ServiceKey =
  | {
      readonly kind: 'address'
      readonly family: Family
      readonly protocol: Protocol
      readonly address: string
      readonly port: number
    }
  | { readonly kind: 'fwmark'; readonly family: Family; readonly mark: number }

/** Persistence: seconds, and a mask: IPv4 as dotted text, IPv6 as a prefix length. */
export interface Persistence {
  readonly timeoutS: number
  readonly mask: string | number
  /**
   * Services of one family with the same group lead a client to servers of the same address. `port` 0: whatever their protocols;
   * else those of the same protocol. Absent: each by itself.
   */
  readonly group?: { readonly id: number; readonly port: number }
}

/** What becomes of a virtual service's connections beyond forwarding, by where they come from. */
export interface ServicePolicy {
  /** Whose connections get an address of this host for a source: those of the cluster's pods, the host's own, all others. */
  readonly masquerade: { readonly pods: boolean; readonly node: boolean; readonly others: boolean }
  /** What becomes of a new connection without a usable server. */
  readonly whenEmpty: 'refuse' | 'drop'
  /** The address is the host's own, and the port kept for the service. */
  readonly nodePort: boolean
  /** The address need not be anybody's here: sockets do not turn to it. */
  readonly foreign: boolean
  /** Other nodes send connections on to this one in tunnels; these get no server that a tunnel leads to. Absent: they do not. */
  readonly tunnelled?: boolean
  /** Clients elsewhere are dropped; not empty; absent: everybody may. */
  readonly sources?: readonly Prefix[]
}

/** A virtual service as somebody wants it. */
export interface ServiceSpec {
  readonly key: ServiceKey
  readonly scheduler: Scheduler
  /** Scheduler flags SCHED1, SCHED2, SCHED3 (flag-1, flag-2, flag-3). */
  readonly schedulerFlags: readonly (1 | 2 | 3)[]
  readonly persistence?: Persistence
  /** One-packet scheduling. */
  readonly onePacket: boolean
  /** Absent: forwarding is all. */
  readonly policy?: ServicePolicy
}

/** What names a real server within its service. */
export interface ServerKey {
  readonly family: Family
  readonly address: string
  readonly port: number
}

/** A real server as somebody wants it. */
export interface ServerSpec extends ServerKey {
  readonly weight: number
  readonly method: ForwardingMethod
  /** Thresholds of connections; 0: none. */
  readonly upper: number
  readonly lower: number
  readonly tunnel?: {
    readonly type: 'ipip' | 'gue' | 'gre'
    readonly port: number
    readonly checksum: 'none' | 'csum' | 'remcsum'
  }
}

/** Counters since the last zeroing. Bytes are IP lengths. */
export interface Counters {
  readonly conns: bigint
  readonly inPkts: bigint
  readonly outPkts: bigint
  readonly inBytes: bigint
  readonly outBytes: bigint
}

/** Per second, averaged over the last seconds as IPVS does. Bytes are IP lengths. */
export type Rates = Counters

/** A real server as it is in the table. */
export interface ServerView extends ServerSpec {
  readonly id: number
  readonly active: number
  readonly inactive: number
  readonly persistent: number
  readonly counters: Counters
  readonly rates: Rates
}

/** A virtual service as it is in the table; servers in the kernel's order (the newest first). */
export interface ServiceView extends ServiceSpec {
  readonly id: number
  readonly source: Source
  /** What came to the virtual address, whoever served it. */
  readonly counters: Counters
  readonly rates: Rates
  readonly servers: readonly ServerView[]
  /** Servers for clients in pods and on the host itself; absent: they get those that all others get. */
  readonly insiders?: readonly ServerView[]
}

/** The protocol of an entry of the connection table; `ip`: a persistence template of a firewall mark. */
export type ConnectionProtocol = Protocol | 'ip'

/** States as `-L -c` prints them: of TCP, UDP and SCTP; NONE and ASSURED of persistence templates. */
export type ConnectionState =
  | 'NONE'
  | 'ESTABLISHED'
  | 'SYN_SENT'
  | 'SYN_RECV'
  | 'FIN_WAIT'
  | 'TIME_WAIT'
  | 'CLOSE'
  | 'CLOSE_WAIT'
  | 'LAST_ACK'
  | 'LISTEN'
  | 'SYNACK'
  | 'UDP'
  | 'INIT1'
  | 'INIT'
  | 'C-SENT'
  | 'C-REPLIED'
  | 'C-WAIT'
  | 'COOKIE'
  | 'C-ECHOED'
  | 'S-SENT'
  | 'S-RECEIVED'
  | 'S-ACK-SENT'
  | 'REJECTED'
  | 'CLOSED'
  | 'ASSURED'

/**
 * One entry of the connection table: a connection, or a persistence template, whose client has port 0. The template of a
 * firewall mark has the mark for a virtual address, one whose server was removed has ports 65535.
 */
/** What names a connection, or a persistence template. */
export interface ConnectionKey {
  readonly family: Family
  readonly protocol: ConnectionProtocol
  readonly client: { readonly address: string; readonly port: number }
  readonly virtual: { readonly address: string; readonly port: number }
  /** A persistence template, not a connection. */
  readonly template?: true
}

export interface ConnectionView extends ConnectionKey {
  readonly state: ConnectionState
  /** Whole seconds until it expires. */
  readonly expiresS: number
  readonly server: ServerKey
  /** Another director told of it, and no packet of its own came yet or since. */
  readonly synced?: boolean
}

/** The three timeouts that `--set` changes, in seconds. */
export interface Timeouts {
  readonly tcpS: number
  readonly tcpFinS: number
  readonly udpS: number
}

/** Addresses that share their first bits. */
export interface Prefix {
  readonly family: Family
  readonly address: string
  /** Bits that count. */
  readonly length: number
}

/** What gives a packet of no connection a firewall mark, if nobody did before. What is absent is not asked for. */
export interface MarkRule {
  /** 1 to 4294967295. */
  readonly mark: number
  /** That of `from` and `to`; absent: both. */
  readonly family?: Family
  readonly from?: Prefix
  readonly to?: Prefix
  readonly protocol?: Protocol
  /** Of the destination, both included. */
  readonly ports?: { readonly first: number; readonly last: number }
  /** Name of the interface that packets come in by. */
  readonly interface?: string
}
