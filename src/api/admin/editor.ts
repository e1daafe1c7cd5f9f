/**
 * What the admin API does to the table, by bpvsadm's rules: anybody may change anything, what is made is of `command`, and
 * what a source owns it puts right again.
 */
import type { Table } from '../../engine/table.ts'
import { LbError } from '../../model/errors.ts'
import type {
  Persistence,
  ServerKey,
  ServerSpec,
  ServerView,
  ServiceKey,
  ServiceSpec,
  ServiceView,
} from '../../model/types.ts'
import { readAddress } from './names.ts'

type Wished<T> = Pick<Persistence, 'timeoutS' | 'group'> & { readonly mask?: T }

/** Body of a new service, of the schema NewService. */
export type NewService = Pick<ServiceSpec, 'scheduler' | 'schedulerFlags' | 'onePacket'> & {
  readonly persistence?: Wished<Persistence['mask']>
} & (
    | { readonly protocol: 'tcp' | 'udp' | 'sctp'; readonly address: string; readonly port: number }
    | { readonly mark: number; readonly family?: 4 | 6 }
  )

/** Of the schema ServiceChange: what is left out stays. */
export type ServiceChange = Partial<Pick<ServiceSpec, 'scheduler' | 'schedulerFlags' | 'onePacket'>> & {
  readonly persistence?: Wished<Persistence['mask']> | null
}

/** Of the schema NewServer. */
export type NewServer = Pick<ServerSpec, 'address' | 'weight' | 'method' | 'upper' | 'lower' | 'tunnel'> & {
  readonly port?: number
}

/** Of the schema ServerChange: what is left out stays. */
export type ServerChange = Partial<Pick<ServerSpec, 'weight' | 'method' | 'upper' | 'lower' | 'tunnel'>>

/** INVALID: the address. */
export function newServiceSpec(body: NewService): ServiceSpec {
  const { scheduler, schedulerFlags, persistence, onePacket } = body
  const key = keyOf(body)
  const asked = persistence === undefined ? {} : { persistence: wholePersistence(key, persistence) }
  return { key, scheduler, schedulerFlags, onePacket, ...asked }
}

/** NO_SERVICE. */
export function findService(table: Table, key: ServiceKey): ServiceView {
  const service = table.service(key)
  if (service === undefined) throw new LbError('NO_SERVICE')
  return service
}

/** NO_SERVER. */
export function findServer({ servers }: ServiceView, { address, port }: ServerKey): ServerView {
  const server = servers.find((each) => each.address === address && each.port === port)
  if (server === undefined) throw new LbError('NO_SERVER')
  return server
}

/** A service as it is, but for what is to change. */
export function changedService(view: ServiceView, change: ServiceChange): ServiceSpec {
  const { key, scheduler, schedulerFlags, onePacket } = { ...view, ...change }
  const { persistence } = change
  const kept = persistence === undefined ? view.persistence : (persistence ?? undefined)
  const asked = kept === undefined ? {} : { persistence: wholePersistence(key, kept) }
  return { key, scheduler, schedulerFlags, onePacket, ...asked }
}

/** INVALID: the address. A server that is not behind NAT has its service's port. */
export function newServerSpec(service: ServiceKey, body: NewServer): ServerSpec {
  const { weight, method, upper, lower, tunnel } = body
  const ownPort = service.kind === 'fwmark' ? 0 : service.port
  const forced = method !== 'masq' && service.kind === 'address'
  const port = forced ? ownPort : (body.port ?? ownPort)
  return { ...addressOf(body.address), port, weight, method, upper, lower, ...tunnelOf(method, tunnel) }
}

/** A server as it is, but for what is to change. */
export function changedServer(view: ServerView, change: ServerChange): ServerSpec {
  const { family, address, port, weight, method, upper, lower } = { ...view, ...change }
  const tunnel = change.tunnel ?? (method === 'tunnel' ? view.tunnel : undefined)
  return { family, address, port, weight, method, upper, lower, ...tunnelOf(method, tunnel) }
}

/** A tunnel is IP in IP unless something else is asked for; other methods have none. */
function tunnelOf(method: ServerSpec['method'], tunnel: ServerSpec['tunnel']): Pick<ServerSpec, 'tunnel'> {
  if (method === 'tunnel') return { tunnel: tunnel ?? { type: 'ipip', port: 0, checksum: 'none' } }
  if (tunnel !== undefined) throw new LbError('INVALID', 'Only the method tunnel has a tunnel', { method })
  return {}
}

function keyOf(body: NewService): ServiceKey {
  if ('mark' in body) return { kind: 'fwmark', family: body.family ?? 4, mark: body.mark }
  const { protocol, port } = body
  return { kind: 'address', protocol, ...addressOf(body.address), port }
}

function addressOf(text: string): Pick<ServerKey, 'family' | 'address'> {
  const read = readAddress(text)
  if (read === undefined) throw new LbError('INVALID', 'Not an IP address', { address: text })
  return read
}

function wholePersistence({ family }: ServiceKey, { mask, ...rest }: Wished<Persistence['mask']>): Persistence {
  return { ...rest, mask: mask ?? (family === 4 ? '255.255.255.255' : 128) }
}
