import t from 'tap'
import { Scanner, type ScannedOption } from '../../src/cli/popt.ts'

const options: readonly ScannedOption[] = [
  { long: 'add', short: 'A' },
  { long: 'numeric', short: 'n' },
  { long: 'service', short: 't', takes: 'value' },
  { long: 'persistent', short: 'p', takes: 'optional value' },
]

/** What a command line is found to hold: options as name or name=value, an error as it is told, then the other words. */
function scan(...words: string[]): string[] {
  const scanner = new Scanner(words, options)
  const found: string[] = []
  for (let next = scanner.next(); next !== undefined; next = scanner.next()) {
    if ('error' in next) return [...found, `${next.word}: ${next.error}`]
    found.push(next.value === undefined ? next.option.long : `${next.option.long}=${next.value}`)
  }
  return [...found, ...scanner.leftovers.map((word) => `(${word})`)]
}

const rows: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['short options stand in one word', ['-An'], ['add', 'numeric']],
  ['the last of them takes the next word', ['-At', 'x'], ['add', 'service=x']],
  ['a short option takes the rest of its word', ['-tx'], ['service=x']],
  ['the rest may begin with =', ['-t=x'], ['service=x']],
  ['only one = is dropped', ['-t==x'], ['service==x']],
  ['a long option takes the next word', ['--service', 'x'], ['service=x']],
  ['a long option takes what follows =', ['--service=x'], ['service=x']],
  ['an argument may be empty', ['-t', '', '--service='], ['service=', 'service=']],
  ['an argument may look like an option', ['-t', '-n'], ['service=-n']],
  ['an argument that may be missing is the next word', ['-p', '5'], ['persistent=5']],
  ['it is missing where an option follows', ['-p', '-n'], ['persistent', 'numeric']],
  ['it is missing at the end', ['-p'], ['persistent']],
  ['other words may stand anywhere', ['x', '-A', '', '-'], ['add', '(x)', '()', '(-)']],
  ['after -- every word is another word', ['-A', '--', '-n', '--'], ['add', '(-n)', '(--)']],
  ['long names are not abbreviated', ['--num'], ['--num: unknown option']],
  ['long names need two dashes', ['-add'], ['-add: unknown option']],
  ['letters are told apart by case', ['-a'], ['-a: unknown option']],
  ['the blamed word is the whole word', ['-nx'], ['numeric', '-nx: unknown option']],
  ['a missing argument is an error', ['-nt'], ['numeric', '-nt: missing argument']],
  ['an argument for an option without is an error', ['--add=x'], ['--add=x: option does not take an argument']],
  ['so it is after a short one', ['-n='], ['-n=: option does not take an argument']],
]

for (const [sentence, words, found] of rows) {
  t.test(sentence, async (t) => {
    t.same(scan(...words), found)
  })
}
