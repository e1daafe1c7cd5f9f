/** Services and servers as the admin API shows them, and the tags that name a state of them. Pure. */
import { createHash } from 'node:crypto'
import { LbError } from '../../model/errors.ts'
import type { ServerSpec, ServerView, ServiceKey, ServiceView } from '../../model/types.ts'
import { formatServerName, formatServiceName } from './names.ts'

/** Who keeps a service: the namespace and name of an object of Kubernetes. Undefined: nobody. */
export type OwnerOf = (key: ServiceKey) => string | undefined

export type ShownServer = ServerSpec & { readonly name: string }

export interface ShownService extends Readonly<Record<string, unknown>> {
  readonly name: string
  readonly servers: readonly ShownServer[]
}

/** No counters: what is shown changes only with edits. */
export function showService(view: ServiceView, ownerOf: OwnerOf): ShownService {
  const { key, scheduler, schedulerFlags, persistence, onePacket, policy, insiders, source } = view
  const { kind: _, ...names } = key
  return {
    name: formatServiceName(key),
    ...names,
    scheduler,
    schedulerFlags,
    ...(persistence === undefined ? {} : { persistence }),
    onePacket,
    source,
    owner: source === 'command' ? null : (ownerOf(key) ?? null),
    ...(policy === undefined ? {} : { policy }),
    servers: view.servers.map(showServer),
    ...(insiders === undefined ? {} : { insiders: insiders.map(showServer) }),
  }
}

export function showServer({ family, address, port, weight, method, upper, lower, tunnel }: ServerView): ShownServer {
  const name = formatServerName({ family, address, port })
  return { name, family, address, port, weight, method, upper, lower, ...(tunnel === undefined ? {} : { tunnel }) }
}

/** A strong entity tag: another for every other content. */
export function entityTag(shown: object): string {
  return `"${createHash('sha256').update(JSON.stringify(shown)).digest('base64url').slice(0, 22)}"`
}

/** Whether a list of tags (If-Match, If-None-Match) has `tag`. Weak tags are compared as `weak` says. */
export function namesTag(list: string, tag: string, weak: boolean): boolean {
  return list.split(',').some((each) => {
    const text = each.trim()
    return text === '*' || text === tag || (weak && text === `W/${tag}`)
  })
}

/** CHANGED: the request was meant for another state than the one of `tag`. */
export function checkTag(ifMatch: string | undefined, tag: string): void {
  if (ifMatch !== undefined && !namesTag(ifMatch, tag, false)) throw new LbError('CHANGED')
}
