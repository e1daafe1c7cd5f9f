import t from 'tap'
import { LbError } from '../../src/model/errors.ts'
import { createLog, errorFields, type LogLevel } from '../../src/observe/log.ts'
import { News } from '../../src/observe/news.ts'

function logged(level: LogLevel, write: (log: ReturnType<typeof createLog>) => void): Record<string, unknown>[] {
  const lines: string[] = []
  write(createLog('test', level, { write: (line) => lines.push(line) }))
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>)
}

t.test('a log line is one JSON object with level, time, name, fields and message', async (t) => {
  const [line] = logged('info', (log) => log.info({ services: 3, big: 5n }, 'applied'))
  t.match(line, { level: 'info', name: 'test', pid: process.pid, services: 3, big: 5, msg: 'applied' })
  t.match(line?.time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
})

t.test('what is below the level is not logged', async (t) => {
  const lines = logged('warn', (log) => {
    log.info({}, 'a')
    log.warn({}, 'b')
    log.error({}, 'c')
  })
  t.same(
    lines.map(({ msg }) => msg),
    ['b', 'c'],
  )
})

t.test('an error of ours is logged with code, detail and cause; another with its stack', async (t) => {
  const cause = new Error('below')
  const [line] = logged('info', (log) =>
    log.error({ err: new LbError('NATIVE', 'bpf failed', { errno: 12 }, cause) }, 'x'),
  )
  t.match(line, { err: { code: 'NATIVE', message: 'bpf failed', errno: 12, cause: { message: 'below' } } })
  t.notMatch(line, { err: { stack: String } })
  t.match(errorFields(cause), { type: 'Error', message: 'below', stack: /observe\.test/ })
  t.same(errorFields('text'), { message: 'text' })
})

t.test('news are told once, and so is their end', async (t) => {
  const news = new News<number>()
  t.same(
    news.update([
      ['a', 1],
      ['b', 2],
    ]),
    { found: [1, 2], solved: [] },
  )
  t.same(
    news.update([
      ['b', 2],
      ['c', 3],
    ]),
    { found: [3], solved: [1] },
  )
  news.forget()
  t.same(news.update([['c', 3]]), { found: [3], solved: [] })
})
