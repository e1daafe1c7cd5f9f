import t from 'tap'
import { LbState } from '../../src/abi/generated.ts'
import { writeAddress } from '../../src/model/address.ts'
import type { Family } from '../../src/model/types.ts'
import { idOf, keyOf, memoryTable, serverOf, serviceOf } from '../helpers/table-specs.ts'
import type { MemoryTable } from '../helpers/table-specs.ts'

interface Entry {
  readonly family?: Family
  readonly client?: string
  readonly port?: number
  readonly state?: number
  readonly protocol?: number
  /** Ticks from now. */
  readonly left?: number
}

/** The tick of the fake clock: jiffies64 >> 4, of which 32 bits count. */
const NOW = Number(BigInt.asUintN(32, 5_000_000_000n >> 4n))

function withServer(): MemoryTable {
  const memory = memoryTable()
  memory.table.addService(serviceOf(1))
  memory.table.addServer(keyOf(1), serverOf(1))
  memory.table.setTimeouts({ tcpS: 900, tcpFinS: 120, udpS: 300 })
  return memory
}

/** Writes entry `i` as the datapath would. */
function put({ maps, table }: MemoryTable, i: number, entry: Entry = {}): void {
  const {
    family = 4,
    client = '10.1.0.1',
    port = 1000 + i,
    state = LbState.TCP_ESTABLISHED,
    protocol = 6,
    left = 100,
  } = entry
  const address = new Uint8Array(16)
  writeAddress(address, 0, client, family)
  maps.conns.setCaddr(i, address)
  writeAddress(address, 0, family === 4 ? '10.9.0.1' : 'fd00:9::1', family)
  maps.conns.setVaddr(i, address)
  maps.conns.setCport(i, port)
  maps.conns.setVport(i, 80)
  maps.conns.setDport(i, 8080)
  maps.conns.setProto(i, protocol)
  maps.conns.setServer(i, idOf(table, 1, 1))
  maps.conns.setState(i, state)
  maps.conns.setExpires(i, (NOW + left) >>> 0)
  maps.conns.setAf(i, family)
  maps.connPools.setHigh(0, Math.max(maps.connPools.high(0), i + 1))
}

t.test('a connection shows client, virtual service, server and state', async (t) => {
  const memory = withServer()
  put(memory, 0)
  put(memory, 1, { family: 6, client: 'fd00:1::5', protocol: 17, state: LbState.UDP_NORMAL })
  t.same(
    [...memory.table.connections()],
    [
      {
        family: 4,
        protocol: 'tcp',
        state: 'ESTABLISHED',
        expiresS: 6,
        client: { address: '10.1.0.1', port: 1000 },
        virtual: { address: '10.9.0.1', port: 80 },
        server: { family: 4, address: '10.2.0.1', port: 8080 },
      },
      {
        family: 6,
        protocol: 'udp',
        state: 'UDP',
        expiresS: 6,
        client: { address: 'fd00:1::5', port: 1001 },
        virtual: { address: 'fd00:9::1', port: 80 },
        server: { family: 4, address: '10.2.0.1', port: 8080 },
      },
    ],
  )
})

t.test('free, expired and never used entries are not shown', async (t) => {
  const memory = withServer()
  for (let i = 0; i < 4; i++) put(memory, i)
  memory.maps.conns.setAf(1, 0)
  memory.maps.conns.setExpires(2, NOW)
  memory.maps.connPools.setHigh(0, 3)
  t.same(
    Array.from(memory.table.connections(), ({ client }) => client.port),
    [1000],
  )
})

t.test('a connection just kept alive shows one second less than its timeout, as the kernel', async (t) => {
  // 900 s of 250 jiffies in ticks of 16, rounded up by one.
  const full = ((900 * 250) >> 4) + 1
  for (const [left, seconds] of [
    [full, 899],
    [full - 1, 899],
    [full - 20, 898],
    [1, 0],
  ] as const) {
    const memory = withServer()
    put(memory, 0, { left })
    t.same(
      Array.from(memory.table.connections(), ({ expiresS }) => expiresS),
      [seconds],
      `${left} ticks`,
    )
  }
})

t.test('ticks may wrap around', async (t) => {
  const memory = withServer()
  memory.handles.jiffies = 0xffff_ffffn << 4n
  put(memory, 0)
  memory.maps.conns.setExpires(0, 63)
  t.same(
    Array.from(memory.table.connections(), ({ expiresS }) => expiresS),
    [4],
  )
})

t.test('the size of the connection table is what it was made with', async (t) => {
  t.equal(memoryTable({ connections: 64 }).table.connectionSlots, 64)
})
