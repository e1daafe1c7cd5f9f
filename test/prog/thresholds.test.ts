/** Thresholds of a server, edited: what the kernel's IPVS then takes, recorded, and taken again. */
import t from 'tap'
import type { ServerSpec, ServiceKey } from '../../src/model/types.ts'
import { wholeRecording } from '../../tools/recordings.ts'
import { Datapath } from '../helpers/prog.ts'
import { Host } from '../helpers/prog-host.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'

/** -x and -y, datagrams sent, -x and -y of an edit, datagrams taken before it, and of four after it. */
type Row = readonly [
  upper: number,
  lower: number,
  sent: number,
  newUpper: number,
  newLower: number,
  before: number,
  after: number,
]

/** A service for each row: 10.9.0.1, 10.9.0.2 ... */
function serviceKey(row: number): ServiceKey {
  return { kind: 'address', family: 4, protocol: 'udp', address: `10.9.0.${row + 1}`, port: 80 }
}

function server(upper: number, lower: number): ServerSpec {
  return { family: 4, address: '10.2.0.11', port: 80, weight: 1, method: 'masq', upper, lower }
}

/** How many of `count` new clients' datagrams get to the server. */
function taken(host: Host, row: number, count: number, firstPort: number): number {
  const ports = Array.from({ length: count }, (_, i) => firstPort + i)
  return ports.filter((port) => host.udp(`10.1.0.1:${port}`, `10.9.0.${row + 1}:80`).at === 'server').length
}

t.test(
  'a server takes as many connections as in the kernel, before and after its thresholds change',
  {
    skip: needsRoot,
  },
  async (t) => {
    const datapath = await Datapath.open(t)
    const host = new Host(datapath, { xdp: false })
    const tally = new Tally('thresholds')
    const { rows } = readJsonRecording<{ rows: readonly Row[] }>('thresholds')
    for (const [i, row] of rows.entries()) {
      const [upper, lower, sent, newUpper, newLower, before, after] = row
      const key = serviceKey(i)
      datapath.table.addService({ key, scheduler: 'rr', schedulerFlags: [], onePacket: false })
      datapath.table.addServer(key, server(upper, lower))
      const first = taken(host, i, sent, 1000)
      datapath.table.editServer(key, server(newUpper, newLower))
      const what = `-x ${upper} -y ${lower}, ${sent} sent, then -x ${newUpper} -y ${newLower}`
      const now = `${first} taken, then ${taken(host, i, 4, 2000)}`
      t.same(tally.note(wholeRecording, i, what, now === `${before} taken, then ${after}` ? [] : [now]), [], what)
    }
    tally.end(t)
  },
)
