/**
 * JSON schemas of the admin API: requests are checked and answers written by them, and the OpenAPI document is made of
 * them. What has a name in `components` is referred to by it there.
 */
import { bypassModes, handoverModes, tunables } from '../../model/settings.ts'
import { schedulers } from '../../model/types.ts'
import { connection, connectionList } from './connection-schema.ts'
import { address, family, policy, port, protocol } from './policy-schema.ts'

/** A JSON schema, as far as it is looked into here. */
export type Schema = Readonly<Record<string, unknown>>

const greatestWeight = 0x7fffffff
const month = 31 * 24 * 60 * 60

const mark = { type: 'integer', minimum: 1, maximum: 0xffffffff, description: 'Firewall mark.' } as const
const threshold = {
  type: 'integer',
  minimum: 0,
  maximum: greatestWeight,
  description: 'Connections; 0: none.',
} as const
const weight = { type: 'integer', minimum: 0, maximum: greatestWeight } as const
const method = {
  type: 'string',
  enum: ['masq', 'tunnel', 'droute'],
  description: "NAT, a tunnel, or direct routing. The port of a server that is not behind NAT is the service's.",
} as const
const scheduler = { type: 'string', enum: [...schedulers, 'none'] } as const
const schedulerFlags = {
  type: 'array',
  items: { type: 'integer', enum: [1, 2, 3] },
  uniqueItems: true,
  description: 'flag-1 to flag-3: with sh and mh 1 is fallback, and 2 is port.',
} as const
const onePacket = { type: 'boolean', description: 'One-packet scheduling (UDP).' } as const

const persistence = {
  type: 'object',
  additionalProperties: false,
  required: ['timeoutS'],
  properties: {
    timeoutS: { type: 'integer', minimum: 1, maximum: month, description: 'Seconds.' },
    mask: {
      type: ['string', 'integer'],
      description: "Of clients' addresses: dotted for IPv4, a prefix length for IPv6. Left out: all bits.",
    },
    group: {
      type: 'object',
      additionalProperties: false,
      required: ['id', 'port'],
      properties: { id: { type: 'integer', minimum: 1, maximum: 0xffffffff }, port },
      description:
        'Services of a family with the same group lead a client to servers of the same address; with a port other than 0, those of the same protocol. Left out: each by itself.',
    },
  },
} as const

const tunnel = {
  type: 'object',
  additionalProperties: false,
  required: ['type'],
  properties: {
    type: { type: 'string', enum: ['ipip', 'gue', 'gre'] },
    port: { ...port, default: 0, description: 'Of GUE.' },
    checksum: { type: 'string', enum: ['none', 'csum', 'remcsum'], default: 'none' },
  },
} as const

const server = {
  type: 'object',
  required: ['name', 'family', 'address', 'port', 'weight', 'method', 'upper', 'lower'],
  properties: {
    name: { type: 'string', description: 'In URLs.' },
    family,
    address,
    port,
    weight,
    method,
    upper: threshold,
    lower: threshold,
    tunnel,
  },
} as const

const newServer = {
  type: 'object',
  additionalProperties: false,
  required: ['address'],
  properties: {
    address,
    port: { ...port, description: "Left out: the service's." },
    weight: { ...weight, default: 1 },
    method: { ...method, default: 'droute' },
    upper: { ...threshold, default: 0 },
    lower: { ...threshold, default: 0 },
    tunnel,
  },
} as const

const serverChange = {
  type: 'object',
  additionalProperties: false,
  properties: { weight, method, upper: threshold, lower: threshold, tunnel },
} as const

const service = {
  type: 'object',
  required: ['name', 'family', 'scheduler', 'schedulerFlags', 'onePacket', 'source', 'owner', 'servers'],
  properties: {
    name: { type: 'string', description: 'In URLs.' },
    family,
    protocol,
    address,
    port,
    mark,
    scheduler,
    schedulerFlags,
    persistence,
    onePacket,
    source: {
      type: 'string',
      enum: ['command', 'manifest', 'kubernetes'],
      description: 'Who made it. What this API makes is of `command`, as what bpvsadm makes.',
    },
    owner: {
      type: ['string', 'null'],
      description:
        'namespace/name of the Service that it is kept as: changes by others do not last. null: nobody keeps it.',
    },
    policy,
    servers: { type: 'array', items: server, description: 'The newest first.' },
    insiders: {
      type: 'array',
      items: server,
      description: 'Servers for clients in pods and on the host itself. Left out: they get those of all.',
    },
  },
} as const

const newService = {
  type: 'object',
  additionalProperties: false,
  properties: {
    protocol,
    address,
    port,
    mark,
    family: { ...family, description: 'Of a firewall mark; left out: 4.' },
    scheduler: { ...scheduler, default: 'wlc' },
    schedulerFlags: { ...schedulerFlags, default: [] },
    persistence,
    onePacket: { ...onePacket, default: false },
  },
  oneOf: [
    { required: ['protocol', 'address', 'port'], properties: { mark: false, family: false } },
    { required: ['mark'], properties: { protocol: false, address: false, port: false } },
  ],
} as const

const serviceChange = {
  type: 'object',
  additionalProperties: false,
  properties: { scheduler, schedulerFlags, persistence: { anyOf: [persistence, { type: 'null' }] }, onePacket },
} as const

const problem = {
  type: 'object',
  description: 'RFC 9457. `code` is stable.',
  required: ['type', 'title', 'status', 'code'],
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string' },
    detail: { type: 'string' },
    context: { type: 'object', additionalProperties: true, description: 'What and where.' },
  },
} as const

const serviceList = {
  type: 'object',
  required: ['services'],
  properties: {
    services: { type: 'array', items: service },
    next: { type: 'integer', description: '`after` of the next page; left out: this is the last.' },
  },
} as const

const serverList = {
  type: 'object',
  required: ['servers'],
  properties: { servers: { type: 'array', items: server, description: 'The newest first.' } },
} as const

/** 64 bits: more than a number of JSON holds for everybody. */
const count = { type: 'string', pattern: '^[0-9]+$' } as const
const counters = {
  type: 'object',
  description: '64 bits each, as decimal text. Bytes are IP lengths.',
  required: ['conns', 'inPkts', 'outPkts', 'inBytes', 'outBytes'],
  properties: { conns: count, inPkts: count, outPkts: count, inBytes: count, outBytes: count },
} as const

const stats = {
  type: 'object',
  required: ['counters', 'rates'],
  properties: { counters, rates: { ...counters, description: 'Per second, over the last seconds, as decimal text.' } },
} as const

const load = { type: 'integer', minimum: 0 } as const
const serverStats = {
  type: 'object',
  required: ['name', 'active', 'inactive', 'persistent', 'counters', 'rates'],
  properties: {
    name: { type: 'string' },
    active: load,
    inactive: load,
    persistent: { ...load, description: 'Persistence templates.' },
    ...stats.properties,
  },
} as const

const serviceStats = {
  type: 'object',
  required: ['name', 'counters', 'rates', 'servers'],
  properties: {
    name: { type: 'string' },
    ...stats.properties,
    servers: { type: 'array', items: serverStats },
    insiders: { type: 'array', items: serverStats },
  },
} as const

const seconds = { type: 'integer', minimum: 1, maximum: month } as const
const timeouts = {
  type: 'object',
  description: 'Seconds.',
  required: ['tcpS', 'tcpFinS', 'udpS'],
  properties: { tcpS: seconds, tcpFinS: seconds, udpS: seconds },
} as const

const timeoutsChange = {
  type: 'object',
  additionalProperties: false,
  properties: { tcpS: seconds, tcpFinS: seconds, udpS: seconds },
} as const

const settingsProperties = {
  bypass: { type: 'string', enum: bypassModes, description: "Whether connections bypass the host's stack." },
  handover: {
    type: 'string',
    enum: handoverModes,
    description:
      'Another balancer of this host: none; what is none of our connections may be its (from); new connections are its (to).',
  },
  tunables: {
    type: 'object',
    description: "IPVS's sysctls net.ipv4.vs.*, as far as they apply.",
    additionalProperties: false,
    properties: Object.fromEntries(
      tunables.map(({ name, most, effect }) => {
        return [name, { type: 'integer', minimum: 0, maximum: most, description: effect }]
      }),
    ),
  },
} as const
const masqueradePorts = {
  type: 'object',
  description: 'Ports that masqueraded connections are sent from. Left out: there are none.',
  required: ['first', 'last'],
  properties: { first: port, last: port },
} as const
const settings = {
  type: 'object',
  required: ['bypass', 'handover', 'tunables'],
  properties: { ...settingsProperties, masqueradePorts },
} as const
const settingsChange = { type: 'object', additionalProperties: false, properties: settingsProperties } as const

const hookList = {
  type: 'object',
  required: ['hooks'],
  properties: {
    hooks: {
      type: 'array',
      items: {
        type: 'object',
        required: ['ifindex', 'interface', 'hook', 'mode'],
        properties: {
          ifindex: { type: 'integer' },
          interface: { type: 'string' },
          hook: { type: 'string' },
          mode: { type: 'string', description: 'How it is attached.' },
        },
      },
    },
  },
} as const

const verdictList = {
  type: 'object',
  description: 'Packets refused, dropped or otherwise noted, by reason.',
  required: ['verdicts'],
  properties: { verdicts: { type: 'object', additionalProperties: count } },
} as const

const health = {
  type: 'object',
  required: ['healthy', 'table'],
  properties: {
    healthy: { type: 'boolean', description: 'As /livez says: nothing waits for long to be programmed.' },
    table: { type: 'boolean', description: 'There is a table.' },
  },
} as const

const free = { type: 'object', additionalProperties: true } as const
const configuration = {
  type: 'object',
  description: 'What is in force.',
  required: ['bpvs', 'kubeProxy'],
  properties: { bpvs: free, kubeProxy: free },
} as const

const versionAnswer = {
  type: 'object',
  required: ['version'],
  properties: { version: { type: 'string' } },
} as const

/** By the names that the OpenAPI document gives them. */
export const components = {
  Configuration: configuration,
  Connection: connection,
  ConnectionList: connectionList,
  Counters: counters,
  Health: health,
  HookList: hookList,
  NewServer: newServer,
  NewService: newService,
  Persistence: persistence,
  Problem: problem,
  Server: server,
  ServerChange: serverChange,
  ServerList: serverList,
  Service: service,
  ServiceChange: serviceChange,
  ServiceList: serviceList,
  ServerStats: serverStats,
  ServiceStats: serviceStats,
  Settings: settings,
  SettingsChange: settingsChange,
  Stats: stats,
  Timeouts: timeouts,
  TimeoutsChange: timeoutsChange,
  Tunnel: tunnel,
  VerdictList: verdictList,
  Version: versionAnswer,
} as const satisfies Readonly<Record<string, Schema>>

/** Query of a list in pages. */
export const pageQuery = {
  type: 'object',
  additionalProperties: false,
  properties: {
    limit: { type: 'integer', minimum: 1, maximum: 10000, default: 1000, description: 'Most services of a page.' },
    after: { type: 'integer', minimum: 0, default: 0, description: '`next` of the page before.' },
  },
} as const
