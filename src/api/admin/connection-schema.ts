/** JSON schemas of connections and templates. */
import { address, family, port, protocol } from './policy-schema.ts'

const end = { type: 'object', required: ['address', 'port'], properties: { address, port } } as const
export const connection = {
  type: 'object',
  required: ['name', 'family', 'protocol', 'state', 'expiresS', 'client', 'virtual', 'server'],
  properties: {
    name: { type: 'string', description: 'In URLs.' },
    family,
    protocol: { type: 'string', enum: [...protocol.enum, 'ip'], description: 'ip: a template of a firewall mark.' },
    state: { type: 'string', description: 'As `bpvsadm -L -c` names it.' },
    expiresS: { type: 'integer', description: 'Seconds.' },
    client: end,
    virtual: end,
    server: end,
    template: { type: 'boolean', description: 'A persistence template: where a client goes, not a connection.' },
    synced: { type: 'boolean', description: 'Another director told of it.' },
  },
} as const

export const connectionList = {
  type: 'object',
  required: ['connections'],
  properties: {
    connections: { type: 'array', items: connection, description: 'Templates of persistence among them.' },
    next: { type: 'integer', description: '`after` of the next page; left out: this is the last.' },
  },
} as const

/** Query of connections: a filter, and a page. */
export const connectionQuery = {
  type: 'object',
  additionalProperties: false,
  properties: {
    protocol: { type: 'string', enum: ['tcp', 'udp', 'sctp', 'ip'] },
    state: { type: 'string', minLength: 1, maxLength: 16 },
    client: { ...address, description: "The client's address." },
    virtual: { ...address, description: 'The virtual address.' },
    server: { ...address, description: "The server's address." },
    port: { type: 'integer', minimum: 0, maximum: 65535, description: 'The virtual port.' },
    limit: { type: 'integer', minimum: 1, maximum: 10000, default: 1000, description: 'Most connections of a page.' },
    after: { type: 'integer', minimum: 0, default: 0, description: '`next` of the page before.' },
  },
} as const
