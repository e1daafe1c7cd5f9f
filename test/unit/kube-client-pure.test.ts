import t from 'tap'
import { Backoff } from '../../src/kube/client/backoff.ts'
import { ItemSplitter, LineSplitter } from '../../src/kube/client/json-stream.ts'
import { ReflectorPlan } from '../../src/kube/client/reflector-plan.ts'
import { random } from '../helpers/random.ts'

const list = {
  kind: 'ServiceList',
  items: [
    { metadata: { name: 'a"]}', labels: { items: '[{' } }, spec: { items: [1, [2]], text: 'ünï\\"cödé 漢字' } },
    {},
    { nested: { deep: [{ a: [] }, '}'] } },
  ],
  metadata: { resourceVersion: '42', continue: 'next', annotations: { items: '[' } },
  apiVersion: 'v1',
  other: ['items', { items: [{ not: 'this' }] }],
}

/** A text in pieces that are cut anywhere, characters included. */
function* pieces(text: string, seed: number): Generator<Buffer> {
  const bytes = Buffer.from(text)
  const pick = random(seed)
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + pick(9)
    yield bytes.subarray(at, end)
    at = end
  }
}

t.test('a list comes apart into its items and what it says of itself, wherever its bytes are cut', async (t) => {
  for (let seed = 1; seed <= 50; seed++) {
    const text = JSON.stringify(list, undefined, seed % 3)
    const splitter = new ItemSplitter()
    const items: unknown[] = []
    for (const piece of pieces(text, seed))
      items.push(...splitter.push(piece).map((item) => JSON.parse(item) as unknown))
    t.same(items, list.items)
    t.same(splitter.envelope(), { resourceVersion: '42', continueToken: 'next' })
  }
})

t.test('an empty list, and one that is null, has no items', async (t) => {
  for (const items of ['[]', 'null']) {
    const splitter = new ItemSplitter()
    t.same(splitter.push(Buffer.from(`{"items":${items},"metadata":{"resourceVersion":"7"}}`)), [])
    t.same(splitter.envelope(), { resourceVersion: '7', continueToken: '' })
  }
})

t.test('a list that ends early, says no version or is something else is refused', async (t) => {
  const rows = [
    ['{"metadata":{"resourceVersion":"7"},"items":[{}', /ended early/],
    ['', /ended early/],
    ['{"items":[]}', /no resourceVersion/],
    ['{"metadata":{},"items":[]}', /no resourceVersion/],
    ['{items}', /not JSON/],
  ] as const
  for (const [text, message] of rows) {
    const splitter = new ItemSplitter()
    splitter.push(Buffer.from(text))
    t.throws(() => splitter.envelope(), { code: 'API', message }, text)
  }
})

t.test('an object without an end is refused before it fills the memory', async (t) => {
  const chunk = Buffer.alloc(1024 * 1024, 'x')
  const feed = (splitter: ItemSplitter | LineSplitter): void => {
    for (let i = 0; i < 20; i++) splitter.push(chunk)
  }
  const items = new ItemSplitter()
  items.push(Buffer.from('{"items":[{"a":"'))
  t.throws(() => feed(items), { code: 'API', message: /an object of the list is longer than 16777216 bytes/ })
  t.throws(() => feed(new LineSplitter()), { code: 'API', message: /a line of the answer is longer/ })
  t.throws(() => feed(new ItemSplitter()), { code: 'API', message: /beside its items is longer/ })
})

t.test('lines come whole, wherever their bytes are cut; empty ones are left out', async (t) => {
  const lines = ['{"a":"ü漢"}', 'b', '', '\r', 'c'.repeat(100)]
  for (let seed = 1; seed <= 20; seed++) {
    const splitter = new LineSplitter()
    const found: string[] = []
    for (const piece of pieces(`${lines.join('\n')}\nrest`, seed)) found.push(...splitter.push(piece))
    t.same(found, ['{"a":"ü漢"}', 'b', 'c'.repeat(100)])
    t.equal(splitter.broken, true)
  }
})

t.test('waits double up to a bound, within half of them at random, and begin anew after a success', async (t) => {
  const low = new Backoff({ firstMs: 100, lastMs: 1000 }, () => 0)
  t.same(
    [1, 2, 3, 4, 5, 6].map(() => low.failed()),
    [50, 100, 200, 400, 500, 500],
  )
  low.succeeded()
  t.equal(low.failed(), 50)
  const high = new Backoff({ firstMs: 100, lastMs: 1000 }, () => 1)
  t.same(
    [1, 2, 3, 4, 5].map(() => high.failed()),
    [100, 200, 400, 800, 1000],
  )
})

t.test('a wait is never shorter than the server asks for, but no server may ask for days', async (t) => {
  const backoff = new Backoff({ firstMs: 100, lastMs: 1000 }, () => 0.5)
  t.equal(backoff.failed(7000), 7050)
  t.equal(backoff.failed(86_400_000), 300_050)
})

const failed = { kind: 'failed', retryAfterMs: 0 } as const

t.test('first a streamed list, then watches, each from where the one before ended', async (t) => {
  const plan = new ReflectorPlan(() => 0)
  t.same(plan.next(), { kind: 'stream', resourceVersion: '' })
  plan.noted('5')
  t.equal(plan.listed, false)
  plan.completed('7')
  plan.noted('9')
  t.equal(plan.listed, true)
  t.equal(plan.ended({ kind: 'closed' }, 300_000), 0)
  t.same(plan.next(), { kind: 'watch', resourceVersion: '9' })
  plan.noted('11')
  t.equal(plan.ended(failed, 10), 250)
  t.same(plan.next(), { kind: 'watch', resourceVersion: '11' })
})

t.test('without streaming lists the list comes in pages, at first from the cache of the server', async (t) => {
  const plan = new ReflectorPlan(() => 0)
  t.equal(plan.ended({ kind: 'unsupported' }, 1), 0)
  t.same(plan.next(), { kind: 'page', resourceVersion: '0', limit: 500, continueToken: '' })
  t.equal(plan.ended({ kind: 'page', resourceVersion: '7', continueToken: 'x' }, 1), 0)
  t.same(plan.next(), { kind: 'page', resourceVersion: '', limit: 500, continueToken: 'x' })
  t.equal(plan.ended(failed, 1), 250)
  t.same(plan.next(), { kind: 'page', resourceVersion: '', limit: 500, continueToken: 'x' }, 'the same page again')
  t.equal(plan.ended({ kind: 'page', resourceVersion: '7', continueToken: '' }, 1), 0)
  t.same(plan.next(), { kind: 'watch', resourceVersion: '7' })
})

t.test('a watch that has expired lists from what is known; if that is refused, from the newest', async (t) => {
  for (const streams of [true, false]) {
    const plan = new ReflectorPlan(() => 0)
    if (!streams) plan.ended({ kind: 'unsupported' }, 1)
    plan.completed('7')
    plan.noted('8')
    t.equal(plan.ended({ kind: 'expired' }, 1), 0)
    t.equal(plan.listed, false)
    const again = { kind: 'page', resourceVersion: '8', limit: 0, continueToken: '' }
    t.same(plan.next(), streams ? { kind: 'stream', resourceVersion: '8' } : again)
    t.equal(plan.ended({ kind: 'expired' }, 1), 250, 'not in a tight circle')
    const newest = { kind: 'page', resourceVersion: '', limit: 500, continueToken: '' }
    t.same(plan.next(), streams ? { kind: 'stream', resourceVersion: '' } : newest)
  }
})

t.test('pages that expire before the last are asked for all at once', async (t) => {
  const plan = new ReflectorPlan(() => 0)
  plan.ended({ kind: 'unsupported' }, 1)
  plan.ended({ kind: 'page', resourceVersion: '7', continueToken: 'x' }, 1)
  plan.ended({ kind: 'expired' }, 1)
  t.same(plan.next(), { kind: 'page', resourceVersion: '', limit: 0, continueToken: '' })
})

t.test('watches that end at once are made ever more slowly; one that brings something, once a second', async (t) => {
  const plan = new ReflectorPlan(() => 1)
  plan.completed('7')
  t.equal(plan.ended({ kind: 'closed' }, 10), 990)
  t.same(
    [1, 2, 3].map(() => plan.ended({ kind: 'closed' }, 10)),
    [500, 1000, 2000],
  )
  t.equal(plan.failures, 3)
  plan.noted('8')
  t.equal(plan.ended({ kind: 'closed' }, 10), 990)
  t.equal(plan.ended({ kind: 'closed' }, 10), 500)
})
