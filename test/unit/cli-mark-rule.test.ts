/** `--mark-rule` and `--mark-rules`. */
import t from 'tap'
import { modelOperations } from '../helpers/model-table.ts'
import { runCommand } from '../helpers/recordings.ts'

t.test('rules are listed in the words that make them', async (t) => {
  const operations = modelOperations()
  const lines = [
    '1',
    '4294967295 to 10.9.0.0/16',
    '2 from 10.1.0.0/24 to 10.9.0.1/32 proto tcp port 80 dev eth0',
    '3 to fd00:9::/64 proto udp port 1-65535',
    '4 proto sctp',
  ]
  for (const line of lines) {
    t.same(await runCommand(`--mark-rule add ${line}`.split(' '), { operations }), { rc: 0, out: '', err: '' }, line)
  }
  const list = async () => (await runCommand(['--mark-rules'], { operations })).out
  t.equal(await list(), lines.map((line) => `${line}\n`).join(''))
  for (const line of lines) {
    t.equal((await runCommand(`--mark-rule delete ${line}`.split(' '), { operations })).rc, 0, `delete ${line}`)
  }
  t.equal(await list(), '')
})

t.test('addresses lose the bits that do not count; marks may be hexadecimal; words come in any order', async (t) => {
  const operations = modelOperations()
  const line = '--mark-rule add 0xff dev eth1 port 53 proto udp to fd00:9::7/57 from fd00:1::1'
  await runCommand(line.split(' '), { operations })
  t.equal(
    (await runCommand(['--mark-rules'], { operations })).out,
    '255 from fd00:1::1/128 to fd00:9::/57 proto udp port 53 dev eth1\n',
  )
})

t.test('what is no rule is refused', async (t) => {
  const rows = [
    ['', '--mark-rule add|delete MARK [from|to|proto|port|dev VALUE]...'],
    ['change 1', '--mark-rule add|delete MARK [from|to|proto|port|dev VALUE]...'],
    ['add', 'no firewall mark: '],
    ['add 0', 'no firewall mark: 0'],
    ['add 4294967296', 'no firewall mark: 4294967296'],
    ['add 1 to', 'to: missing argument'],
    ['add 1 to 10.9.0/16', 'no prefix: 10.9.0/16'],
    ['add 1 to 10.9.0.0/33', 'no prefix: 10.9.0.0/33'],
    ['add 1 to 10.9.0.0/16 to 10.8.0.0/16', 'to: given twice'],
    ['add 1 to 10.9.0.0/16 from fd00::/8', 'a mark rule is of one address family'],
    ['add 1 proto icmp', 'no protocol for a mark rule: icmp'],
    ['add 1 port 90-80', 'no ports: 90-80'],
    ['add 1 port 65536', 'no ports: 65536'],
    ['add 1 via 10.0.0.1', 'unexpected argument via'],
  ] as const
  for (const [words, err] of rows) {
    const outcome = await runCommand(['--mark-rule', ...words.split(' ').filter((word) => word !== '')], {
      operations: modelOperations(),
    })
    t.same(outcome, { rc: 2, out: '', err: `${err}\n` }, words)
  }
  t.same(await runCommand(['--mark-rule', 'delete', '1'], { operations: modelOperations() }), {
    rc: 255,
    out: '',
    err: 'No such mark rule\n',
  })
})
