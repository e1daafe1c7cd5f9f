/**
 * JSON schemas of the admin API: requests are checked and answers written by them, and the OpenAPI document is made of
 * them. What has a name in `components` is referred to by it there.
 */
import { schedulers } from '../../model/types.ts'

/** A JSON schema, as far as it is looked into here. */
export type Schema = Readonly<Record<string, unknown>>

const greatestWeight = 0x7fffffff
const month = 31 * 24 * 60 * 60

const address = { type: 'string', minLength: 2, maxLength: 45, description: 'An IPv4 or IPv6 address.' } as const
const port = { type: 'integer', minimum: 0, maximum: 65535 } as const
const family = { enum: [4, 6], type: 'integer' } as const
const protocol = { type: 'string', enum: ['tcp', 'udp', 'sctp'] } as const
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
    servers: { type: 'array', items: server, description: 'The newest first.' },
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

/** By the names that the OpenAPI document gives them. */
export const components = {
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
  Tunnel: tunnel,
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
