/**
 * Runs the recorded command lines of the real ipvsadm against a model of the kernel's table, and compares standard
 * output, standard error, exit status and the table afterwards, to the byte. (test/recordings/README.md says where the
 * recordings are from.)
 */
import t from 'tap'
import { foreignTunables } from '../../src/model/settings.ts'
import { syncRoles } from '../../src/sync/options.ts'
import type { Operations } from '../../src/cli/session.ts'
import { ModelTable, modelOperations } from '../helpers/model-table.ts'
import {
  type CommandStep,
  hostsResolver,
  type ReadStep,
  type Recording,
  readRecording,
  runCommand,
  type Scenario,
  splitArguments,
} from '../helpers/recordings.ts'
import { Tally } from '../helpers/tally.ts'

/** Scenarios without packets; those with some are in test/prog/recorded.test.ts. */
const played: Readonly<Record<string, (scenario: string) => boolean>> = {
  commands: () => true,
  grammar: () => true,
  listing: (scenario) => ['empty', 'rich_idle', 'sorting'].includes(scenario),
  extra2: (scenario) => scenario === 'restore_oddities',
  proc: (scenario) => ['proc_empty', 'proc_sysctl', 'proc_services'].includes(scenario),
}

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

/** What a file of /proc holds, in the order of services as above; servers were added in the order of the listing. */
function withoutAnyOrder(text: string): string {
  return text
    .split(/^(?=[A-Z])/m)
    .map((block) => block.split('\n').sort().join('\n'))
    .sort()
    .join('')
}

/** What differs, of things by their names. */
function differing(compared: readonly (readonly [what: string, recorded: unknown, now: unknown])[]): string[] {
  return compared.flatMap(([what, recorded, now]) => {
    return recorded === now ? [] : [`${what}: ${JSON.stringify(now)}, recorded ${JSON.stringify(recorded)}`]
  })
}

class Replay {
  readonly #recording: Recording
  readonly #tally: Tally

  constructor(name: string, tally: Tally) {
    this.#recording = readRecording(name)
    this.#tally = tally
  }

  async run(isPlayed: (scenario: string) => boolean): Promise<void> {
    let table = new ModelTable({ missing: ['twos'] })
    for (const scenario of this.#recording.scenarios) {
      if (!isPlayed(scenario.name)) continue
      if (scenario.continues === true) table.clear()
      else table = new ModelTable({ missing: ['twos'] })
      await this.#runScenario(scenario, modelOperations({ table, interfaces: ['lo', 'd0', 'd1'] }))
    }
  }

  async #runScenario(scenario: Scenario, operations: Operations): Promise<void> {
    const resets = scenario.desc?.includes('the table is reset') ?? false
    const base: string[][] = []
    let seenBase = false
    for (const [i, step] of scenario.steps.entries()) {
      if (step.do === 'table') seenBase = true
      if (step.do === 'read') await this.#runRead(scenario, i, step, operations)
      if (step.do !== 'ipvsadm') continue
      if (resets && seenBase) await this.#reset(operations, base)
      else if (resets) base.push(splitArguments(step.args))
      await this.#runStep(scenario, i, step, operations)
    }
  }

  async #reset(operations: Operations, base: readonly string[][]): Promise<void> {
    for (const role of syncRoles) await operations.syncDaemons.stop(role)
    for (const args of [['-C'], ...base]) await runCommand(args, { operations })
  }

  async #runStep(scenario: Scenario, at: number, step: CommandStep, operations: Operations): Promise<void> {
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
    this.#tally.note(scenario.name, at, `${words}${input}`, differing(compared))
  }

  /** A file of /proc/net, or what sysctl told of IPVS's. */
  async #runRead(scenario: Scenario, at: number, step: ReadStep, operations: Operations): Promise<void> {
    const file = step.file ?? step.path.replace('/proc/net/', '')
    const recorded = step.file === undefined ? step.out : step.text
    if (file !== 'sysctl') {
      const { out } = await runCommand(['--proc', file], { operations })
      this.#tally.note(scenario.name, at, file, differing([[file, withoutAnyOrder(recorded), withoutAnyOrder(out)]]))
      return
    }
    const { out } = await runCommand(['--sysctl'], { operations })
    const lines = recorded.split('\n').filter((line) => !out.split('\n').includes(line))
    const missing = lines.map((line) => line.replace(/^net\.ipv4\.vs\.| =.*$/g, ''))
    const unknown = missing.filter((name) => !Object.hasOwn(foreignTunables, name))
    this.#tally.note(scenario.name, at, file, unknown.length > 0 ? unknown : ['foreign tunables'])
  }
}

for (const [name, isPlayed] of Object.entries(played)) {
  await t.test(`${name}: every recorded command line is answered as ipvsadm answered it`, async (t) => {
    const tally = new Tally(name)
    await new Replay(name, tally).run(isPlayed)
    tally.end(t)
  })
}
