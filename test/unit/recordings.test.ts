/** The count of replayed recordings, and the differences by intent that it knows. */
import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import {
  formatRecordings,
  formatScenarioCount,
  listScenarios,
  missingScenarios,
  parseScenarioCount,
  type ScenarioCount,
} from '../../tools/recordings.ts'
import { differences } from '../helpers/differences.ts'

const counts: readonly ScenarioCount[] = [
  { recording: 'states', scenario: 'tcp/life', matched: 30, unmatched: 0, explained: {} },
  {
    recording: 'extra',
    scenario: 'last one: gone, deleted',
    matched: 1,
    unmatched: 2,
    explained: { ftp: 3, 'no-flags': 40 },
  },
  { recording: 'extra', scenario: 'open', matched: 4, unmatched: 0, explained: { ftp: 1 } },
]

t.test('what a test tells of a scenario is read from its TAP, at any depth', async (t) => {
  for (const count of counts) {
    for (const indent of ['', '        ']) {
      t.same(parseScenarioCount(`${indent}# ${formatScenarioCount(count)}`), count)
    }
  }
  for (const line of [
    'ok 1 - recording a/b: 1 matched, 0 unmatched',
    '# recording a/b: some matched',
    '# Subtest: x',
  ]) {
    t.equal(parseScenarioCount(line), undefined, line)
  }
})

t.test('the table has a row for each recording and one for all', async (t) => {
  t.same(formatRecordings(counts), [
    'recording  scenarios  matched  unmatched  by intent',
    'extra              2        5          2         44',
    'states             1       30          0          0',
    'all                3       35          2         44',
  ])
  t.same(formatRecordings([]), [])
})

t.test('a recorded scenario that no test counted is missing', async (t) => {
  const scenarios = listScenarios('test/recordings')
  t.ok(scenarios.length > 500, `${scenarios.length} scenarios are recorded`)
  for (const name of ['states/tcp_table', 'thresholds/all']) t.ok(scenarios.includes(name), name)
  t.same(missingScenarios(['extra/open', 'extra/closed', 'states/tcp/life'], counts), ['extra/closed'])
})

t.test('docs/differences.md tells of every recorded answer that differs, and of no other', async (t) => {
  const text = readFileSync(new URL('../../docs/differences.md', import.meta.url), 'utf8')
  const section = text.split(/^##+ /m).find((part) => part.startsWith('Recorded answers that differ'))
  const told = [...(section ?? '').matchAll(/^\| `([\w-]+)` \|/gm)].map(([, name]) => name)
  t.same(told.sort(), [...new Set(differences.map(({ name }) => name))].sort())
})

t.test('docs/differences.md names tests that there are', async (t) => {
  const text = readFileSync(new URL('../../docs/differences.md', import.meta.url), 'utf8')
  const named = [...text.matchAll(/`((?:prog|net|unit|cli|kube)\/[\w-]+)`/g)].map(([, name = '']) => name)
  t.ok(named.length > 40, `${named.length} are named`)
  t.same(
    named.filter((name) => !existsSync(new URL(`../${name}.test.ts`, import.meta.url))),
    [],
  )
})

t.test('every difference is one of a scenario that is recorded', async (t) => {
  const scenarios = new Set(listScenarios('test/recordings'))
  t.same(
    differences.filter(({ recording, scenario }) => !scenarios.has(`${recording}/${scenario}`)),
    [],
  )
})

t.test('the table of recordings in their README has each of them', async (t) => {
  const text = readFileSync(new URL('../recordings/README.md', import.meta.url), 'utf8')
  const names = new Set(listScenarios('test/recordings').map((name) => name.split('/')[0] ?? ''))
  const expanded = text.replace(/`([\w-]+)\{([\w,]+)\}(\.json\.gz)`/g, (_, head: string, list: string, tail: string) =>
    list
      .split(',')
      .map((each) => `\`${head}${each}${tail}\``)
      .join(' '),
  )
  t.same(
    [...names].filter((name) => !expanded.includes(`\`${name}.json.gz\``)),
    [],
  )
})
