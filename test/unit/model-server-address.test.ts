import t from 'tap'
import { canBeServer, type RouteType } from '../../src/model/server-address.ts'
import { parseAddress } from '../../src/native/ip.ts'

function can(address: string, route: RouteType): boolean {
  const { family, bytes } = parseAddress(address)
  return canBeServer(family, bytes, () => route)
}

t.test('no server is at an unspecified address or a group, whatever the routes are', async (t) => {
  for (const address of ['0.0.0.0', '224.0.0.1', '239.9.9.9', '255.255.255.255', '::', 'ff02::1', 'ff0e::1']) {
    for (const route of ['unicast', 'local', undefined] as const) t.notOk(can(address, route), address)
  }
})

t.test('addresses of no special use, and those that only look so, may be a server', async (t) => {
  const odd = ['0.1.2.3', '127.0.0.1', '240.0.0.1', '223.0.0.1', '254.128.0.1', '255.1.2.3', '255.255.255.254']
  for (const address of [...odd, '10.2.0.1', '::1', 'fd00::1', '2001:db8::1', '::10.9.0.1', 'fec0::1']) {
    for (const route of ['unicast', 'local', undefined] as const) t.ok(can(address, route), address)
  }
})

t.test(
  "a broadcast address of one of the host's networks is no server's, nor one that is routed to a group",
  async (t) => {
    for (const route of ['broadcast', 'multicast'] as const) t.notOk(can('10.77.0.255', route), route)
  },
)

t.test("an IPv6 address that is link-local, or IPv4's, is a server's only if it is the host's own", async (t) => {
  for (const address of ['fe80::1', 'febf::1', '::ffff:10.9.0.1']) {
    t.notOk(can(address, 'unicast'), address)
    t.notOk(can(address, undefined), address)
    t.ok(can(address, 'local'), address)
  }
})
