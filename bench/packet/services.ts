/** The services that the packet bench sends to. */
import type { DesiredService } from '../../src/engine/table.ts'
import type { Family, ServerSpec } from '../../src/model/types.ts'
import { serverAddress, serverNumbers } from './network.ts'

/** Port of all services. */
export const SERVICE_PORT = 80
/** Port of the first service's only server; no other server has it. */
export const FIRST_SERVER_PORT = 8080
/** Number of the service that has several servers. */
export const WIDE_SERVICE = 1

const WIDE_SERVER_PORT = 7001
const NEXT_SERVER_PORT = 10000

/** Address of a service by its number, from 0. */
export function serviceAddress(family: Family, n: number): string {
  const low = n + 1
  return family === 4
    ? `10.96.${low >> 8}.${low & 255}`
    : `fd00:96::${(low >> 16).toString(16)}:${(low & 0xffff).toString(16)}`
}

function server(family: Family, number: number, port: number): ServerSpec {
  const address = serverAddress(family, number)
  return { family, address, port, weight: 1, method: 'masq', upper: 0, lower: 0 }
}

function serversOf(family: Family, n: number): ServerSpec[] {
  if (n === 0) return [server(family, serverNumbers[0], FIRST_SERVER_PORT)]
  if (n === WIDE_SERVICE) return serverNumbers.map((number) => server(family, number, WIDE_SERVER_PORT))
  const port = NEXT_SERVER_PORT + Math.floor(n / serverNumbers.length)
  return [server(family, serverNumbers[n % serverNumbers.length] ?? serverNumbers[0], port)]
}

/** `count` services of each family, every one with its own server; round robin. */
export function describeServices(families: readonly Family[], count: number): DesiredService[] {
  return families.flatMap((family) =>
    Array.from({ length: count }, (_, n): DesiredService => {
      const address = serviceAddress(family, n)
      return {
        service: {
          key: { kind: 'address', family, protocol: 'tcp', address, port: SERVICE_PORT },
          scheduler: 'rr',
          schedulerFlags: [],
          onePacket: false,
        },
        servers: serversOf(family, n),
      }
    }),
  )
}
