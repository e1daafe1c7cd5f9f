/** Does what a command line says, on the table it is given: everything of bpvsadm but the process itself. */
import { errorCodes, LbError } from '../model/errors.ts'
import type { Command, ListCommand } from './command.ts'
import { formatConnections, formatDaemons, formatTimeouts } from './format-connections.ts'
import { formatService, TableListing, type ListedService, type ListingStyle } from './format-listing.ts'
import { numericNames, type NameLookup } from './format-name.ts'
import { formatHooks, formatPorts, formatSyncDaemons, formatTunables, formatVerdicts } from './format-own.ts'
import { formatSave } from './format-save.ts'
import { HostWanted, NameBook, type Resolver } from './names.ts'
import { formatMarkRules } from './mark-rule.ts'
import type { OwnCommandName } from './options.ts'
import { parse, tryHelp } from './parse.ts'
import { splitLine, splitLines } from './restore.ts'
import { Session, type Operations } from './session.ts'
import { ownUsageText, usageText, versionText } from './usage.ts'

/** What a command line runs in. */
export interface Environment {
  /** What the program was called as, for messages. */
  readonly program: string
  /** Whether the caller may touch the table at all. */
  readonly privileged: boolean
  /** Called when a command needs it, at most once. */
  readonly operations: () => Promise<Operations>
  readonly resolver: Resolver
  /** Standard input, in pieces of text. */
  readonly stdin: () => AsyncIterable<string>
  readonly stdout: (text: string) => void
  readonly stderr: (text: string) => void
}

const refused =
  "Can't initialize ipvs: Permission denied (you must be root)\n" +
  'Are you sure that IP Virtual Server is built in the kernel or as module?\n'

/** Runs one command line (without the program's name). Returns the exit status; throws only what is no LbError. */
export async function run(words: readonly string[], environment: Environment): Promise<number> {
  if (!environment.privileged) {
    environment.stderr(refused)
    return errorCodes.PERMISSION.exit
  }
  const runner = new Runner(environment)
  try {
    return await runner.runLine(words)
  } catch (error) {
    return report(error, environment)
  } finally {
    runner.close()
  }
}

/** Prints an LbError and returns its exit status. */
function report(error: unknown, environment: Environment): number {
  if (!(error instanceof LbError)) throw error
  environment.stderr(`${error.message}\n`)
  return typeof error.detail.exit === 'number' ? error.detail.exit : errorCodes[error.code].exit
}

/** Commands of our own that take no words. */
type OwnListing = Exclude<
  OwnCommandName,
  'mark-rule' | 'bpvs-help' | 'sysctl' | 'bypass' | 'handover' | 'masquerade-ports' | 'proc'
>
type TableCommand = Exclude<Command, { do: 'restore' | 'help' | 'version' | 'bpvs-help' }>

class Runner {
  readonly #environment: Environment
  readonly #names: NameBook
  #session: Session | undefined

  constructor(environment: Environment) {
    this.#environment = environment
    this.#names = new NameBook(environment.resolver)
  }

  close(): void {
    this.#session?.close()
  }

  async runLine(words: readonly string[]): Promise<number> {
    const command = await this.#parse(words)
    if (command.do === 'restore') return await this.#restore()
    return await this.#execute(command)
  }

  /** Parses; whenever a host's address is wanted, looks it up and parses again. */
  async #parse(words: readonly string[]): Promise<Command> {
    for (;;) {
      try {
        return parse(words, this.#environment.program, this.#names)
      } catch (error) {
        if (!(error instanceof HostWanted)) throw error
        await this.#names.learnAddress(error.host)
      }
    }
  }

  /**
   * One command a line. What the table refuses is told and the next line goes on; a wrong line is the end, and so are
   * help and version. The status is that of the last line.
   */
  async #restore(): Promise<number> {
    let status = 0
    for await (const line of splitLines(this.#environment.stdin())) {
      const words = splitLine(line)
      if (words.length === 0) continue
      const command = await this.#restorable(words)
      if (typeof command === 'number') status = command
      else if (command.do === 'help' || command.do === 'version') return await this.#execute(command)
      else status = await this.#attempt(() => this.#execute(command))
    }
    return status
  }

  /** The command of a line, or the status of one that popt could not read. */
  async #restorable(words: readonly string[]): Promise<Exclude<Command, { do: 'restore' }> | number> {
    let command: Command | undefined
    const status = await this.#attempt(async () => {
      command = await this.#parse(words)
      return 0
    })
    if (command?.do === 'restore') throw tryHelp(this.#environment.program)
    return command ?? status
  }

  /** Tells of an error that does not end a restore. */
  async #attempt(action: () => Promise<number>): Promise<number> {
    try {
      return await action()
    } catch (error) {
      if (error instanceof LbError && error.detail.final === true) throw error
      return report(error, this.#environment)
    }
  }

  async #execute(command: Exclude<Command, { do: 'restore' }>): Promise<number> {
    switch (command.do) {
      case 'help':
        this.#environment.stdout(usageText(this.#environment.program))
        return 0
      case 'version':
        this.#environment.stdout(versionText)
        return 0
      case 'bpvs-help':
        this.#environment.stdout(ownUsageText(this.#environment.program))
        return 0
      default: {
        this.#session ??= new Session(await this.#environment.operations())
        return await this.#act(command, this.#session)
      }
    }
  }

  async #act(command: TableCommand, session: Session): Promise<number> {
    switch (command.do) {
      case 'list':
        await this.#list(command, session)
        return 0
      case 'save':
        await this.#save(command.numeric, session)
        return 0
      case 'sysctl':
        this.#environment.stdout(formatTunables(session.tunables(command.requests)))
        return 0
      case 'bypass':
        if (command.mode === undefined) this.#environment.stdout(`${session.settings().bypass}\n`)
        else session.changeSettings({ bypass: command.mode })
        return 0
      case 'handover':
        if (command.mode === undefined) this.#environment.stdout(`${session.settings().handover}\n`)
        else session.changeSettings({ handover: command.mode })
        return 0
      case 'masquerade-ports':
        if (command.ports === undefined) this.#environment.stdout(formatPorts(session.settings().masqueradePorts))
        else session.setMasqueradePorts(command.ports)
        return 0
      case 'proc':
        for (const text of session.proc(command.file)) this.#environment.stdout(text)
        return 0
      case 'hooks':
      case 'verdicts':
      case 'sync-daemons':
      case 'check':
      case 'unload':
      case 'mark-rules':
        return this.#own(command.do, session.operations)
      case 'mark-rule':
        session.operations.markRules[command.edit](command.rule)
        return 0
      default:
        await session.change(command)
        return 0
    }
  }

  #own(command: OwnListing, operations: Operations): number {
    const { stdout } = this.#environment
    switch (command) {
      case 'hooks':
        stdout(formatHooks(operations.hooks()))
        return 0
      case 'verdicts':
        stdout(formatVerdicts(operations.verdicts()))
        return 0
      case 'mark-rules':
        stdout(formatMarkRules(operations.markRules.list()))
        return 0
      case 'sync-daemons':
        stdout(formatSyncDaemons(operations.syncDaemons.list()))
        return 0
      case 'unload':
        stdout(operations.unload() ? '' : 'nothing of bpvs is loaded in this network namespace\n')
        return 0
      case 'check': {
        const problems = operations.check()
        stdout(problems.length === 0 ? 'the table is consistent\n' : problems.map((problem) => `${problem}\n`).join(''))
        return problems.length === 0 ? 0 : 1
      }
    }
  }

  async #list(command: ListCommand, session: Session): Promise<void> {
    const { stdout } = this.#environment
    switch (command.what) {
      case 'timeouts':
        stdout(formatTimeouts(session.timeouts()))
        return
      case 'daemons':
        stdout(formatDaemons(session.daemons()))
        return
      case 'connections':
        return await this.#listConnections(command, session)
      case 'service':
        return await this.#listService(command, session)
      case 'table':
        return await this.#listTable(command, session)
    }
  }

  /** With names, all services are read first, and the names of their addresses after. */
  async #listTable(command: ListCommand, session: Session): Promise<void> {
    const services = command.numeric ? [] : session.services()
    const listing = new TableListing(await this.#style(command, services))
    if (command.numeric) session.eachService((service) => listing.add(service))
    else for (const service of services) listing.add(service)
    for (const piece of inPieces(listing.pieces())) this.#environment.stdout(piece)
  }

  /** A service that does not exist is the one failure with exit status 1, and ends a restore. */
  async #listService(command: ListCommand, session: Session): Promise<void> {
    const service = command.service === undefined ? undefined : session.service(command.service)
    if (service === undefined) throw new LbError('NO_SERVICE', undefined, { exit: 1, final: true })
    this.#environment.stdout(formatService(service, await this.#style(command, [service])))
  }

  async #style(command: ListCommand, services: readonly ListedService[]): Promise<ListingStyle> {
    const { columns, exact, sorted, insiders } = command
    return { columns, exact, sorted, insiders, names: await this.#namesOf(services, command.numeric) }
  }

  async #listConnections(command: ListCommand, session: Session): Promise<void> {
    const show = (connections: ReturnType<Session['connections']>, names: NameLookup): void => {
      for (const text of formatConnections(connections, command.engines, names)) this.#environment.stdout(text)
    }
    if (command.numeric) return show(session.connections(), numericNames)
    const connections = [...session.connections()]
    await this.#names.learnNames(
      connections.flatMap(({ client, virtual, server }) => [client.address, virtual.address, server.address]),
    )
    show(connections, this.#names)
  }

  async #save(numeric: boolean, session: Session): Promise<void> {
    const services = session.services()
    this.#environment.stdout(formatSave(services, await this.#namesOf(services, numeric)))
  }

  async #namesOf(services: readonly ListedService[], numeric: boolean): Promise<NameLookup> {
    if (numeric) return numericNames
    const all = services.flatMap(({ servers, insiders = [] }) => [...servers, ...insiders])
    const addresses = all.map((server) => server.address)
    const virtual = services.flatMap((service) => (service.key.kind === 'address' ? [service.key.address] : []))
    await this.#names.learnNames([...virtual, ...addresses])
    return this.#names
  }
}

/** Texts put together to pieces of some size: each costs a system call. */
function* inPieces(texts: Iterable<string>): Generator<string> {
  let piece = ''
  for (const text of texts) {
    piece += text
    if (piece.length < 65536) continue
    yield piece
    piece = ''
  }
  if (piece !== '') yield piece
}
