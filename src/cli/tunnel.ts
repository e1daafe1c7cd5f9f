/** The `--tun-...` options of a server: which go with which type of tunnel. */
import type { Draft, Tunnel } from './draft.ts'
import type { KindName } from './options.ts'
import { usageError } from './usage-error.ts'

/** What of the draft a tunnel is made from. */
type TunnelDraft = Pick<Draft, 'kinds' | 'method' | 'tunnelType' | 'tunnelPort'>

type TunnelKind = Extract<KindName, 'tun-port' | 'tun-nocsum' | 'tun-csum' | 'tun-remcsum'>

/** In the order in which they are checked; `only`: no other `only` beside it. */
const rules: readonly (readonly [TunnelKind, Readonly<Partial<Record<Tunnel['type'], 'required' | 'only'>>>])[] = [
  ['tun-port', { gue: 'required' }],
  ['tun-nocsum', { gue: 'only', gre: 'only' }],
  ['tun-csum', { gue: 'only', gre: 'only' }],
  ['tun-remcsum', { gue: 'only' }],
]

/** The tunnel of a server, undefined when it is reached in another way. Throws LbError USAGE. */
export function readTunnel(draft: TunnelDraft): Tunnel | undefined {
  const given = draft.kinds
  if (draft.method !== 'tunnel') {
    if (given.has('tun-type') || rules.some(([kind]) => given.has(kind))) {
      throw usageError('Tunnel options conflict with forward method')
    }
    return undefined
  }
  checkRules(draft)
  const checksum = given.has('tun-csum') ? 'csum' : given.has('tun-remcsum') ? 'remcsum' : 'none'
  return { type: draft.tunnelType, port: draft.tunnelPort, checksum }
}

function checkRules(draft: TunnelDraft): void {
  const type = draft.tunnelType
  let only: string | undefined
  for (const [kind, byType] of rules) {
    const rule = byType[type]
    if (!draft.kinds.has(kind)) {
      if (rule === 'required') throw usageError(`You need to supply the '${kind}' option for the '${type}' tunnel type`)
      continue
    }
    if (rule === undefined) throw usageError(`Illegal '${kind}' option with the '${type}' tunnel type`)
    if (rule !== 'only') continue
    if (only !== undefined) {
      throw usageError(`The option '${kind}' conflicts with the '${only}' option in the '${type}' tunnel type`)
    }
    only = kind
  }
}
