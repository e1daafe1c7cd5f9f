/** The JSON schema of a virtual service's policy, and what it shares with others. */

export const address = { type: 'string', minLength: 2, maxLength: 45, description: 'An IPv4 or IPv6 address.' } as const
export const port = { type: 'integer', minimum: 0, maximum: 65535 } as const
export const protocol = { type: 'string', enum: ['tcp', 'udp', 'sctp'] } as const
export const family = { enum: [4, 6], type: 'integer' } as const

const boolean = { type: 'boolean' } as const
export const policy = {
  type: 'object',
  description: 'What becomes of connections beyond forwarding: of services of Kubernetes. Left out: nothing does.',
  required: ['masquerade', 'whenEmpty', 'nodePort', 'foreign'],
  properties: {
    masquerade: {
      type: 'object',
      description: 'Whose connections get an address of the host for a source.',
      required: ['pods', 'node', 'others'],
      properties: { pods: boolean, node: boolean, others: boolean },
    },
    whenEmpty: {
      type: 'string',
      enum: ['refuse', 'drop'],
      description: 'What becomes of a connection that there is no server for.',
    },
    nodePort: { ...boolean, description: "The address is the host's own." },
    foreign: { ...boolean, description: "The address need not be anybody's here." },
    tunnelled: {
      ...boolean,
      description: 'Other nodes send connections on to this one in tunnels. Left out: they do not.',
    },
    sources: {
      type: 'array',
      items: {
        type: 'object',
        required: ['family', 'address', 'length'],
        properties: { family, address, length: { type: 'integer', minimum: 0, maximum: 128 } },
      },
      description: 'Only clients in these may come. Left out: all may.',
    },
  },
} as const
