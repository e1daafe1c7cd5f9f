import type { ServiceKey } from '../model/types.ts'

/** Names a virtual service in messages and as a key: `TCP 10.96.0.10:80`, `UDP [fd00::1]:53`, `FWM 7`. */
export function serviceText(key: ServiceKey): string {
  if (key.kind === 'fwmark') return `FWM ${key.mark}`
  const address = key.family === 6 ? `[${key.address}]` : key.address
  return `${key.protocol.toUpperCase()} ${address}:${key.port}`
}
