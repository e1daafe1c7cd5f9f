/**
 * bpvsd's options, once: this JSON schema gives the type of the configuration, its defaults, the flags and environment
 * variables, `--help` and the table in docs/bpvsd.md (a test holds the two together).
 */
import { bypassModes } from '../model/settings.ts'
import { schedulers } from '../model/types.ts'

/** The part of JSON schema that options use. `flag` is what stands for the value in `--help`. */
export interface PropertySchema {
  readonly type: 'string' | 'integer' | 'array'
  readonly description: string
  readonly flag: string
  readonly default?: string | number | readonly string[]
  readonly enum?: readonly string[]
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
}

export const configSchema = {
  type: 'object',
  additionalProperties: false,
  properties: {
    manifests: {
      type: 'string',
      minLength: 1,
      flag: 'DIR',
      description: 'Directory with Services and EndpointSlices (.yaml, .yml, .json), in place of the Kubernetes API.',
    },
    interfaces: {
      type: 'array',
      flag: 'PATTERN,...',
      default: ['*'],
      description: 'Interfaces to attach to, by name; * stands for any characters.',
    },
    excludeInterfaces: {
      type: 'array',
      flag: 'PATTERN,...',
      default: [],
      description: 'Interfaces to leave alone though they match.',
    },
    xdp: {
      type: 'string',
      enum: ['auto', 'native', 'generic', 'off'],
      flag: 'MODE',
      default: 'auto',
      description:
        'XDP: where the driver has it and the device is a real one (auto), demanded, in generic mode, or not at all.',
    },
    scheduler: {
      type: 'string',
      enum: schedulers,
      flag: 'NAME',
      default: 'rr',
      description: 'Scheduler of the services of Kubernetes and of manifests.',
    },
    bypass: {
      type: 'string',
      enum: bypassModes,
      flag: 'MODE',
      description:
        "Whether connections bypass the host's stack: where netfilter has no hooks (auto), never, always. Unset: left as it is.",
    },
    socket: {
      type: 'string',
      enum: ['off', 'host', 'all'],
      flag: 'SCOPE',
      default: 'off',
      description:
        "Sockets that are balanced as they call a service: none, those of the host's network namespace, those of pods too.",
    },
    socketProtocols: {
      type: 'string',
      enum: ['all', 'tcp'],
      flag: 'PROTOCOLS',
      default: 'all',
      description: 'Whether sockets of UDP are balanced too, or left to their packets.',
    },
    socketGroup: {
      type: 'string',
      minLength: 1,
      flag: 'GROUP',
      description:
        'Control group (cgroup v2) whose sockets are balanced, as in /proc/PID/cgroup. Unset: the root of all groups.',
    },
    socketLeave: {
      type: 'array',
      flag: 'GROUP,...',
      default: [],
      description: 'Control groups whose sockets, and those of groups in them, are left alone.',
    },
    takeover: {
      type: 'string',
      enum: ['auto', 'on', 'off'],
      flag: 'MODE',
      default: 'auto',
      description:
        "Whether packets of none of bpvs's connections may be of another proxy's: as long as something of kube-proxy is there, and connections that it left; always; never.",
    },
    takeoverLimitS: {
      type: 'integer',
      minimum: 0,
      maximum: 2147483647,
      flag: 'SECONDS',
      default: 86400,
      description: 'How long connections of a kube-proxy whose rules are gone are left alone.',
    },
    cleanupWaitS: {
      type: 'integer',
      minimum: 0,
      maximum: 2147483647,
      flag: 'SECONDS',
      default: 0,
      description:
        "How long --cleanup lets bpvs's connections, and --cleanup-kube-proxy those of the kernel's IPVS, go on before it ends them.",
    },
    masqueradePorts: {
      type: 'string',
      minLength: 1,
      flag: 'FIRST-LAST',
      description:
        'Ports that masqueraded connections are sent from; nobody else may use them. Unset: the largest range from 1024 on that the kernel gives to nobody and that node ports are not in.',
    },
    sysctls: {
      type: 'array',
      flag: 'NAME=VALUE,...',
      default: [],
      description: 'Tunables of IPVS (docs/bpvsadm.md lists them) to set at the start; others are left as they are.',
    },
    adminSocket: {
      type: 'string',
      flag: 'PATH',
      default: '/run/bpvs/admin.sock',
      description: 'Unix socket of the admin API (docs/admin-api.md); root alone may use it. Empty: no admin API.',
    },
    adminListen: {
      type: 'string',
      minLength: 1,
      flag: 'HOST:PORT',
      description: 'Where the admin API is served over TCP too, with TLS. Unset: nowhere.',
    },
    adminCert: { type: 'string', minLength: 1, flag: 'FILE', description: 'Certificate of adminListen (PEM).' },
    adminKey: { type: 'string', minLength: 1, flag: 'FILE', description: 'Its private key (PEM).' },
    adminTokenFile: {
      type: 'string',
      minLength: 1,
      flag: 'FILE',
      description: 'Bearer token that lets clients of adminListen in.',
    },
    adminClientCa: {
      type: 'string',
      minLength: 1,
      flag: 'FILE',
      description: 'CA whose certificates let clients of adminListen in (PEM).',
    },
    logLevel: {
      type: 'string',
      enum: ['trace', 'debug', 'info', 'warn', 'error', 'fatal'],
      flag: 'LEVEL',
      default: 'info',
      description: 'Least level of the log lines (JSON, standard output).',
    },
    repairIntervalMs: {
      type: 'integer',
      minimum: 100,
      maximum: 3600000,
      flag: 'MS',
      default: 1000,
      description: 'How often to see whether somebody changed what bpvsd owns, and to put it right.',
    },
    drainLimitS: {
      type: 'integer',
      minimum: 0,
      maximum: 2147483647,
      flag: 'SECONDS',
      default: 3600,
      description:
        'How long a server that is no longer wanted may keep its TCP connections, with weight 0. 0: it goes at once.',
    },
    rescanIntervalMs: {
      type: 'integer',
      minimum: 1000,
      maximum: 3600000,
      flag: 'MS',
      default: 30000,
      description: 'How often to look for changes that the kernel tells nothing of (links, network file systems).',
    },
    maxManifestBytes: {
      type: 'integer',
      minimum: 1,
      maximum: 1073741824,
      flag: 'N',
      default: 67108864,
      description: 'Largest manifest file that is read.',
    },
    maxServices: {
      type: 'integer',
      minimum: 1,
      maximum: 1048576,
      flag: 'N',
      default: 16384,
      description: 'Room for virtual services, when the table is made.',
    },
    maxServers: {
      type: 'integer',
      minimum: 1,
      maximum: 4194304,
      flag: 'N',
      default: 65536,
      description: 'Room for real servers, when the table is made.',
    },
    maxConnections: {
      type: 'integer',
      minimum: 1,
      maximum: 67108864,
      flag: 'N',
      default: 229376,
      description: 'Room for connections, when the table is made.',
    },
  },
} as const satisfies {
  readonly type: 'object'
  readonly additionalProperties: false
  readonly properties: Readonly<Record<string, PropertySchema>>
}

type Properties = typeof configSchema.properties
type ValueOf<P> = P extends { readonly enum: readonly (infer E)[] }
  ? E
  : P extends { readonly type: 'integer' }
    ? number
    : P extends { readonly type: 'array' }
      ? readonly string[]
      : string

export type ConfigKey = keyof Properties

/** The configuration, complete and frozen. Without a default (`manifests`) an option may be absent. */
export type Config = {
  readonly [K in ConfigKey as Properties[K] extends { readonly default: unknown } ? K : never]: ValueOf<Properties[K]>
} & {
  readonly [K in ConfigKey as Properties[K] extends { readonly default: unknown } ? never : K]?: ValueOf<Properties[K]>
}

/** All options in the order of `--help`. */
export const configEntries = Object.entries(configSchema.properties) as readonly (readonly [
  ConfigKey,
  PropertySchema,
])[]

/** excludeInterfaces -> --exclude-interfaces */
export function flagName(key: string): string {
  return `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
}

/** excludeInterfaces -> BPVS_EXCLUDE_INTERFACES */
export function environmentName(key: string): string {
  return `BPVS_${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}
