/** How the calling thread's network namespace would route packets to an address. */
import type { RouteType } from '../model/server-address.ts'
import { bind, check, type Signature } from './library.ts'
import { closeFd, type Fd } from './shim.ts'

interface Functions {
  bpvs_route_type(fd: Fd, family: number, address: Uint8Array): number
  bpvs_rtnl(): number
}

const c = bind<Functions>({
  bpvs_route_type: ['int', 'int', 'uint32', 'void *'],
  bpvs_rtnl: ['int'],
} satisfies Record<keyof Functions, Signature>)

/** By RTN_* */
const routeTypes: readonly RouteType[] = [undefined, 'unicast', 'local', 'broadcast', undefined, 'multicast']

/** The route of an address, 4 or 16 bytes, as it is now. NATIVE. */
export function routeType(family: 4 | 6, address: Uint8Array): RouteType {
  const fd = check(c.bpvs_rtnl(), 'socket(NETLINK_ROUTE)') as Fd
  try {
    return routeTypes[check(c.bpvs_route_type(fd, family, address), 'RTM_GETROUTE')]
  } finally {
    closeFd(fd)
  }
}
