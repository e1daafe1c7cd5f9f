import t from 'tap'
import {
  formatPortRange,
  largestGap,
  metBy,
  parsePortList,
  parsePortRange,
  type PortRange,
  requireFree,
  usualNodePorts,
} from '../../src/model/masquerade-ports.ts'
import { seeded } from '../helpers/table-specs.ts'

const ephemeral = { what: 'net.ipv4.ip_local_port_range', first: 32768, last: 60999 }

function gap(...taken: readonly PortRange[]): string {
  const found = largestGap(taken)
  return found === undefined ? 'none' : formatPortRange(found)
}

t.test('ports are the largest range from 1024 on that nobody else uses', async (t) => {
  t.equal(gap(ephemeral, usualNodePorts), '1024-29999', 'of a host as Debian sets it up')
  t.equal(gap(), '1024-65535')
  t.equal(gap({ first: 1024, last: 65535 }), 'none')
  t.equal(gap({ first: 1, last: 65535 }), 'none')
  t.equal(gap({ first: 1024, last: 65000 }, usualNodePorts), '65001-65535')
  t.equal(gap({ first: 1024, last: 65534 }), '65535')
  t.equal(gap({ first: 10000, last: 20000 }, { first: 15000, last: 16000 }), '20001-65535', 'ranges may overlap')
  t.equal(gap({ first: 50000, last: 65535 }, { first: 0, last: 1023 }), '1024-49999')
  t.equal(gap({ first: 2024, last: 64535 }), '1024-2023', 'of two as large the lower one')
  t.equal(gap(ephemeral, usualNodePorts, { first: 8080, last: 8080 }), '8081-29999')
})

t.test('whatever is taken, the range meets none of it and cannot be wider', async (t) => {
  const random = seeded(4)
  for (let round = 0; round < 200; round++) {
    const taken = Array.from({ length: random(12) }, () => {
      const first = random(65536)
      return { first, last: Math.min(65535, first + random(20000)) }
    })
    const found = largestGap(taken)
    const free = (port: number) =>
      port >= 1024 && port <= 65535 && metBy({ first: port, last: port }, taken) === undefined
    let longest = 0
    for (let port = 1024, run = 0; port <= 65535; port++) {
      run = free(port) ? run + 1 : 0
      longest = Math.max(longest, run)
    }
    t.equal(found === undefined ? 0 : found.last - found.first + 1, longest)
    if (found === undefined) continue
    t.notOk(metBy(found, taken))
    t.notOk(free(found.first - 1) || free(found.last + 1))
  }
})

t.test('lists and ranges are read as the kernel and people write them', async (t) => {
  t.same(parsePortList('8080,9000-9010\n'), [
    { first: 8080, last: 8080 },
    { first: 9000, last: 9010 },
  ])
  t.same(parsePortList(''), [])
  t.same(parsePortRange('1024-29999'), { first: 1024, last: 29999 })
  t.same(parsePortRange(' 5000 '), { first: 5000, last: 5000 })
  for (const wrong of ['', '80', '1023-2000', '3000-2000', '2000-65536', 'x', '1-2-3', '2000-', '-2000']) {
    t.throws(() => parsePortRange(wrong), {
      code: 'INVALID',
      message: `"${wrong}" is no range of ports from 1024 to 65535`,
    })
  }
})

t.test('a range that meets what is taken is refused, with the names of both', async (t) => {
  t.throws(() => requireFree({ first: 20000, last: 40000 }, [usualNodePorts, ephemeral]), {
    code: 'INVALID',
    message: "ports 20000-40000 meet the usual range of Kubernetes' node ports, 30000-32767",
  })
  t.throws(() => requireFree({ first: 60999, last: 61000 }, [usualNodePorts, ephemeral]), {
    message: 'ports 60999-61000 meet net.ipv4.ip_local_port_range, 32768-60999',
  })
  requireFree({ first: 61000, last: 65535 }, [usualNodePorts, ephemeral])
})
