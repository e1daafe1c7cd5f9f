/**
 * Runs the recorded command lines of the real ipvsadm against a model of the kernel's table, and compares standard
 * output, standard error, exit status and the table afterwards, to the byte. (test/recordings/README.md says where the
 * recordings are from.)
 */
import t from 'tap'
import { syncRoles } from '../../src/sync/options.ts'
import type { Operations } from '../../src/cli/session.ts'
import { ModelTable, modelOperations } from '../helpers/model-table.ts'
import {
  type CommandStep,
  hostsResolver,
  type Recording,
  readRecording,
  runCommand,
  type Scenario,
  splitArguments,
} from '../helpers/recordings.ts'

/** A recorded answer that bpvsadm does not give, by intent. `found`: what differs, in `compare`'s words. */
interface Difference {
  readonly where: RegExp
  readonly found: readonly string[]
  readonly why: string
}

/** All known ones; each must occur. They are described in docs/bpvsadm.md. */
const differences: readonly Difference[] = [
  {
    where: /^(commands service_fwmark -A -f 4294967295|grammar numbers -A -f '(2147483648|4294967295)')$/,
    found: ['table'],
    why: 'a mark above 2147483647 is saved as it is, not as the negative number that -R refuses',
  },
  {
    where: /^(listing rich_idle|grammar names_and_order) (-S|-S -n|-Sn|--save|--save --numeric)$/,
    found: ['stdout'],
    why: 'the same',
  },
  {
    where: /^grammar (sched_flags .*flag-3|listing_2 -[LS])/,
    found: ['stdout', 'table'],
    why: 'flag-3 of an sh or mh service is listed and saved; ipvsadm leaves it out, and alone it saves a bare -b that -R refuses',
  },
  {
    where: /^grammar sched_flags .* ,,,$/,
    found: ['status', 'stderr', 'table'],
    why: 'ipvsadm dies of SIGSEGV on a -b of nothing but commas',
  },
  {
    where: /^grammar popt -A -t "!#:\+" /,
    found: ['status', 'stderr', 'table'],
    why: "popt's !#:+, which takes the next free word, is not supported",
  },
  {
    where: /^grammar kernel_and_order -A .* -s none$/,
    found: ['status', 'stderr', 'table'],
    why: 'a service without scheduler is refused: it could not take a connection',
  },
  {
    where: /^grammar kernel_and_order -a .* -r 127\.255\.255\.255:80 -m$/,
    found: ['status', 'stderr', 'table'],
    why: "broadcast addresses of the host's networks are not recognised as such",
  },
  {
    where: /^grammar restore -R < .*x{4097}/,
    found: ['stderr'],
    why: 'ipvsadm cuts words of its input after 4,097 characters',
  },
]

/** Scenarios of listing.json in which no packet flows. */
const idle = ['empty', 'rich_idle', 'sorting']

/** The order of services is the kernel's hash order, or depends on it: compared as a set. */
function isUnordered(scenario: Scenario, args: string): boolean {
  return args.includes('--nosort') || (scenario.name === 'names_and_order' && /-L|-S/.test(args))
}

/** What remains when order does not count: the lines that begin a service, with what belongs to it, sorted. */
function withoutOrder(text: string): string {
  return text
    .split(/^(?=[A-Z]|-A)/m)
    .sort()
    .join('')
}

class Replay {
  matched = 0
  readonly explained = new Map<Difference, number>()
  readonly unexplained: object[] = []
  readonly #name: string
  readonly #recording: Recording

  constructor(name: string) {
    this.#name = name
    this.#recording = readRecording(name)
  }

  async run(): Promise<void> {
    let table = new ModelTable({ missing: ['twos'] })
    for (const scenario of this.#recording.scenarios) {
      if (this.#name === 'listing' && !idle.includes(scenario.name)) continue
      if (scenario.continues === true) table.clear()
      else table = new ModelTable({ missing: ['twos'] })
      await this.#runScenario(scenario, modelOperations({ table, interfaces: ['lo', 'd0', 'd1'] }))
    }
  }

  async #runScenario(scenario: Scenario, operations: Operations): Promise<void> {
    const resets = scenario.desc.includes('the table is reset')
    const base: string[][] = []
    let seenBase = false
    for (const step of scenario.steps) {
      if (step.do === 'table') seenBase = true
      if (step.do !== 'ipvsadm') continue
      if (resets && seenBase) await this.#reset(operations, base)
      else if (resets) base.push(splitArguments(step.args))
      await this.#runStep(scenario, step, operations)
    }
  }

  async #reset(operations: Operations, base: readonly string[][]): Promise<void> {
    for (const role of syncRoles) await operations.syncDaemons.stop(role)
    for (const args of [['-C'], ...base]) await runCommand(args, { operations })
  }

  async #runStep(scenario: Scenario, step: CommandStep, operations: Operations): Promise<void> {
    const args = splitArguments(step.args)
    const resolver = hostsResolver(this.#recording.etc_hosts ?? '127.0.0.1 localhost\n::1 localhost\n')
    const privileged = step.uid === undefined
    const now = await runCommand(args, { operations, resolver, privileged, stdin: step.stdin ?? '' })
    const words = typeof step.args === 'string' ? step.args : step.args.join(' ')
    const order = isUnordered(scenario, words) ? withoutOrder : (text: string): string => text
    const compared: [string, unknown, unknown][] = [
      ['status', step.rc, now.rc],
      ['stdout', order(step.out), order(now.out)],
      ['stderr', Buffer.from(step.err, 'latin1').toString(), now.err],
    ]
    if (step.save_after !== undefined) {
      compared.push(['table', step.save_after, (await runCommand(['-S', '-n'], { operations })).out])
    }
    if (step.list_after !== undefined) {
      compared.push(['listing', step.list_after, (await runCommand(['-Ln'], { operations })).out])
    }
    const input = step.stdin === undefined ? '' : ` < ${step.stdin}`
    this.#judge(`${this.#name} ${scenario.name} ${words}${input}`, compared)
  }

  #judge(where: string, compared: readonly [string, unknown, unknown][]): void {
    const wrong = compared.filter(([, recorded, now]) => recorded !== now)
    const known = differences.find((difference) => difference.where.test(where))
    if (wrong.length === 0) this.matched++
    else if (known !== undefined && wrong.every(([what]) => known.found.includes(what))) {
      this.explained.set(known, (this.explained.get(known) ?? 0) + 1)
    } else this.unexplained.push({ where, wrong: wrong.map(([what, recorded, now]) => ({ what, recorded, now })) })
  }
}

const met = new Set<Difference>()
for (const name of ['commands', 'listing', 'grammar']) {
  await t.test(`${name}: every recorded command line is answered as ipvsadm answered it`, async (t) => {
    const replay = new Replay(name)
    await replay.run()
    const explained = [...replay.explained.values()].reduce((sum, count) => sum + count, 0)
    t.comment(`${replay.matched} matched, ${explained} differ by intent, ${replay.unexplained.length} unmatched`)
    t.same(replay.unexplained, [])
    t.ok(replay.matched > 300, 'the recording was there to compare with')
    for (const difference of replay.explained.keys()) met.add(difference)
  })
}

t.test('every difference by intent occurs in the recordings', async (t) => {
  t.same(
    differences.filter((difference) => !met.has(difference)).map((difference) => difference.why),
    [],
  )
})
