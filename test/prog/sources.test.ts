/** What the host sends from, as user space tells it to programs on kernels that do not. */
import t from 'tap'
import { must } from '../../src/lab/command.ts'
import { formatAddress } from '../../src/model/address.ts'
import { parseAddress } from '../../src/native/ip.ts'
import { Sources, type TunnelEnd } from '../../src/native/sources.ts'
import { Datapath } from '../helpers/prog.ts'
import { needsRoot } from '../helpers/topology.ts'

function end(text: string): TunnelEnd {
  const { family, bytes } = parseAddress(text)
  return { family, address: bytes }
}

t.test('the source of each tunnel is the one that the kernel would take', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const sources = new Sources(datapath.handles.dir)
  const told = (text: string): string | undefined => {
    const found = sources.get(end(text))
    return found && formatAddress(found, 0, end(text).family)
  }
  const routes = [
    'route add 10.2.14.0/24 via 10.254.2.2 src 10.254.1.1',
    'route add fd00:2::14:0/112 via fd00:fe:2::2 src fd00:fe:1::1',
    'route add unreachable 10.2.66.0/24',
    'route add unreachable fd00:2::66:0/112',
  ]
  await must('ip', ['-batch', '-'], { input: routes.map((line) => `${line}\n`).join('') })
  const expected = {
    '10.2.0.11': '10.254.2.1',
    'fd00:2::11': 'fd00:fe:2::1',
    '10.2.14.11': '10.254.1.1',
    'fd00:2::14:11': 'fd00:fe:1::1',
    '10.2.66.11': undefined,
    'fd00:2::66:11': undefined,
  }
  const texts = Object.keys(expected)
  const all = () => Object.fromEntries(texts.map((text) => [text, told(text)]))
  sources.tell(texts.map(end))
  t.same(all(), expected)

  await must('ip', ['route', 'replace', '10.2.14.0/24', 'via', '10.254.2.2'])
  await must('ip', ['route', 'replace', 'unreachable', '10.2.0.0/24'])
  t.same(all(), expected, 'nobody looked yet')
  sources.tellOnly(texts.filter((text) => text !== 'fd00:2::14:11').map(end))
  t.same(all(), { ...expected, '10.2.0.11': undefined, '10.2.14.11': '10.254.2.1', 'fd00:2::14:11': undefined })
})
