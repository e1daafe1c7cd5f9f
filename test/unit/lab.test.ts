import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { parseLogLine } from '../../src/lab/bpvsd.ts'
import { decodeDns, encodeDns, encodeQuery } from '../../src/lab/dns-codec.ts'
import { editEndpoints, withEndpoint, withoutEndpoint } from '../../src/lab/edit.ts'
import { ownerOf, runPrefix } from '../../src/lab/namespaces.ts'
import { parseLabOptions } from '../../src/lab/options.ts'
import { projectFile } from '../../src/lab/project.ts'
import { colourStyle, plainStyle, styleFor } from '../../src/lab/style.ts'
import { emptyReport, mergeReports, percentile, Tally } from '../../src/lab/tally.ts'
import { followTargets, type LabTarget } from '../../src/lab/targets.ts'
import { type LabState, renderLines, renderScreen } from '../../src/lab/view.ts'

t.test('a tally counts outcomes, and starts anew after a reset', async (t) => {
  const tally = new Tally()
  for (const ms of [1, 1, 1, 100]) {
    tally.sent()
    tally.answered('a', ms)
  }
  tally.sent()
  tally.failed('TIMEOUT')
  const report = tally.report(true)
  t.match(report, { sent: 5, answered: 4, failed: 1, servers: { a: 4 }, errors: { TIMEOUT: 1 } })
  t.same(tally.report(false), emptyReport())
})

t.test('a percentile is right to 4.5 percent, over merged reports too', async (t) => {
  const reports = [1, 2].map((part) => {
    const tally = new Tally()
    for (let ms = part; ms <= 100; ms += 2) tally.answered('a', ms)
    return tally.report(false)
  })
  const merged = mergeReports(reports)
  t.equal(merged.servers.a, 100)
  for (const share of [0.01, 0.5, 0.99, 1]) {
    const value = percentile(merged, share) ?? 0
    t.ok(value >= share * 100 && value <= share * 100 * 1.045, `${share}: ${value}`)
  }
  t.equal(percentile(emptyReport(), 0.5), undefined, 'there is none without answers')
})

t.test('a DNS message survives encoding and decoding', async (t) => {
  const message = {
    id: 0xbeef,
    isResponse: true,
    rcode: 0,
    question: { name: 'who.lab.test', type: 28 },
    answers: [
      { name: 'who.lab.test', type: 'AAAA', ttlS: 5, data: 'fd00:244:1::21' },
      { name: 'who.lab.test', type: 'A', ttlS: 3600, data: '10.244.1.21' },
    ],
    additional: [{ name: 'id.server', type: 'TXT', ttlS: 0, data: 'dns-1' }],
  } as const
  t.same(decodeDns(encodeDns(message)), message)
})

t.test('a DNS query has the bytes of RFC 1035', async (t) => {
  const expected = '1234 0100 0001 0000 0000 0000 03777777 04746573 74 00 0001 0001'.replaceAll(' ', '')
  t.equal(encodeQuery(0x1234, 'www.test', 'A').toString('hex'), expected)
})

t.test('a compressed name is followed; bytes that are no message are refused', async (t) => {
  const header = '1234 8180 0001 0001 0000 0000 01610000010001'
  const compressed = Buffer.from(`${header} c00c 0001 0001 00000005 0004 c0000201`.replaceAll(' ', ''), 'hex')
  t.match(decodeDns(compressed), { answers: [{ name: 'a', type: 'A', data: '192.0.2.1' }] })
  const loop = Buffer.from('1234 0100 0001 0000 0000 0000 c00c 0001 0001'.replaceAll(' ', ''), 'hex')
  for (const bytes of [loop, Buffer.alloc(0), compressed.subarray(0, 20)]) {
    t.throws(() => decodeDns(bytes), { code: 'INVALID', message: /not a DNS message/ })
  }
})

t.test('names of namespaces tell whose they are', async (t) => {
  t.equal(ownerOf(`${runPrefix(4711)}director`), 4711)
  t.equal(ownerOf(`${runPrefix(4711, 3)}director`), 4711)
  for (const foreign of ['bpvs-', 'bpvs-x1-director', 'cni-4711-director', '4711']) t.equal(ownerOf(foreign), undefined)
})

t.test('the command line of the lab', async (t) => {
  t.same(parseLabOptions([]), { run: 'live', manifests: undefined })
  t.same(parseLabOptions(['--once', '--manifests', 'x']), { run: 'once', manifests: 'x' })
  t.match(parseLabOptions(['-h']), { run: 'help' })
  t.throws(() => parseLabOptions(['--twice']), { code: 'USAGE', message: /--twice.*Usage: npm start/s })
})

t.test('colours are for terminals whose owner did not decline them', async (t) => {
  t.equal(styleFor({ isTTY: true }, {}), colourStyle)
  t.equal(styleFor({ isTTY: true }, { NO_COLOR: '1' }), plainStyle)
  t.equal(styleFor({}, {}), plainStyle)
})

t.test('a log line is reduced to what happened', async (t) => {
  const line = {
    level: 'info',
    time: 1,
    pid: 2,
    hostname: 'h',
    name: 'bpvsd',
    msg: 'applied',
    services: 5,
    err: { message: 'x' },
  }
  t.same(parseLogLine(JSON.stringify(line)), { level: 'info', text: 'applied services=5 err=x' })
  const bad = { level: 'error', msg: 'bad manifest', file: 'a.yaml', line: 3, problem: 'a.yaml:3: no port' }
  t.same(parseLogLine(JSON.stringify(bad)), { level: 'error', text: 'bad manifest: a.yaml:3: no port' })
  t.same(parseLogLine('Segmentation fault'), { level: 'error', text: 'Segmentation fault' })
})

/** A temporary copy of the examples. */
function examples(t: { teardown(handler: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-lab-test-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  cpSync(projectFile('examples'), directory, { recursive: true })
  return directory
}

function targetsOf(directory: string): readonly LabTarget[] {
  let found: readonly LabTarget[] = []
  followTargets(directory, (targets) => {
    found = targets
  })()
  return found
}

t.test('what to call follows from the manifests', async (t) => {
  const targets = targetsOf(examples(t))
  t.match(
    targets.find(({ label }) => label === 'TCP 10.96.0.80:80'),
    { application: 'http', family: 4, servers: ['10.244.1.11', '10.244.1.12', '10.244.1.13'], sticky: false },
  )
  t.match(
    targets.find(({ label }) => label === 'TCP [fd00:96::80]:80'),
    { application: 'http', family: 6 },
  )
  t.match(
    targets.find(({ label }) => label === 'UDP 10.96.0.53:53'),
    { application: 'dns', protocol: 'udp' },
  )
  t.match(
    targets.find(({ label }) => label === 'TCP 10.96.0.53:53'),
    { application: 'dns', protocol: 'tcp' },
  )
})

t.test('an edit takes an endpoint out of a manifest or puts one in, and leaves other files alone', async (t) => {
  const directory = examples(t)
  const serversOf = (address: string) => targetsOf(directory).find((target) => target.address === address)?.servers
  const untouched = readFileSync(join(directory, 'dns.yaml'), 'utf8')
  editEndpoints(directory, withoutEndpoint('10.244.1.12'))
  t.same(serversOf('10.96.0.80'), ['10.244.1.11', '10.244.1.13'])
  editEndpoints(directory, withEndpoint('10.244.1.14', '10.244.1.11'))
  t.same(serversOf('10.96.0.80'), ['10.244.1.11', '10.244.1.13', '10.244.1.14'])
  editEndpoints(directory, withEndpoint('10.244.1.33', '10.244.1.31'))
  t.same(serversOf('10.96.0.81'), ['10.244.1.31', '10.244.1.32', '10.244.1.33'], 'also in a List')
  t.equal(readFileSync(join(directory, 'dns.yaml'), 'utf8'), untouched)
  writeFileSync(join(directory, 'notes.txt'), 'kind: EndpointSlice')
  editEndpoints(directory, () => [])
  t.same(serversOf('10.96.0.80'), [])
  t.equal(readFileSync(join(directory, 'notes.txt'), 'utf8'), 'kind: EndpointSlice')
})

const state: LabState = {
  uptimeS: 65,
  clients: 3,
  bpvsd: { text: 'pid 42', well: true },
  listing: ['IP Virtual Server', ...Array.from({ length: 40 }, (_, i) => `TCP  10.96.0.${i}:80`)],
  recent: { ...emptyReport(), sent: 60, answered: 60, servers: { 'web-1': 40, 'web-2': 20 } },
  recentS: 2,
  sent: 12_345,
  failed: 6,
  inService: new Set(['10.244.1.11', '10.244.1.12']),
  log: [{ level: 'error', text: 'bad manifest: web.yaml:3: no port' }],
  manifest: 'examples/web.yaml',
}

t.test('the screen fits its window, whatever its size', async (t) => {
  for (const columns of [40, 80, 93, 200]) {
    for (const rows of [5, 24, 60]) {
      const lines = renderScreen(state, { columns, rows }, plainStyle)
      t.ok(lines.length <= rows, `${columns}x${rows}: ${lines.length} rows`)
      t.ok(Math.max(...lines.map((line) => line.length)) <= columns, `${columns}x${rows}: no line is too long`)
    }
  }
})

t.test('the screen shows rates per server, totals, what bpvsd said and what did not fit', async (t) => {
  const text = renderScreen(state, { columns: 80, rows: 30 }, plainStyle).join('\n')
  t.match(text, /bpvs lab {2}1:05 .*bpvsd pid 42/)
  t.match(text, /web-1 +10\.244\.1\.11 +█+ +20\/s/)
  t.match(text, /web-2 +10\.244\.1\.12 +█+ +10\/s/)
  t.match(text, /web-4 +10\.244\.1\.14 +in no manifest/)
  t.match(text, /30 answers\/s/)
  t.match(text, /no errors {2}\(12,345 requests sent, 6 failed since the start\)/)
  t.match(text, /bpvsd: bad manifest: web\.yaml:3: no port/)
  t.match(text, /Edit examples\/web\.yaml: traffic follows at once\. Ctrl-C ends\./)
  const shown = text.match(/^ TCP/gm)?.length ?? 0
  t.match(text, `… ${40 - shown} more lines`)
})

t.test('errors are shown by kind, the most frequent first', async (t) => {
  const recent = { ...state.recent, failed: 3, errors: { TIMEOUT: 1, ECONNRESET: 2 } }
  const text = renderScreen({ ...state, recent }, { columns: 100, rows: 40 }, plainStyle).join('\n')
  t.match(text, /3 errors: ECONNRESET 2, TIMEOUT 1/)
  t.match(
    renderLines({ ...state, recent }).join('\n'),
    /1:05 {2}30 answers.*web-1 20\/s {2}web-2 10\/s\n +3 errors: ECONNRESET 2, TIMEOUT 1$/,
  )
})
