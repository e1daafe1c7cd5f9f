/** Addresses in a configuration, as Go's net package reads them. */
import { isIP } from 'node:net'

/** 4 or 6; 0 for what is no prefix such as 10.0.0.0/8. */
export function cidrFamily(text: string): 0 | 4 | 6 {
  const [, address = '', bits = ''] = /^([^/]*)\/(\d{1,3})$/.exec(text) ?? []
  const family = isIP(address)
  if ((family !== 4 && family !== 6) || address.includes('%')) return 0
  return Number(bits) <= (family === 4 ? 32 : 128) ? family : 0
}

/** Host and port of `10.0.0.1:80` or `[::]:80`; undefined for anything else. */
export function splitHostPort(text: string): { readonly host: string; readonly port: string } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:[\]]*)):([^:]*)$/.exec(text) ?? []
  const host = bracketed ?? plain
  return host === undefined || port === undefined ? undefined : { host, port }
}
