/** Entry point of `npm start`: the lab, live or as a short scenario. Alone prints and decides about the exit status. */
import { cpSync } from 'node:fs'
import { errorCodes, LbError } from '../model/errors.ts'
import { isAtLeast } from './bpvsd.ts'
import { startWatchdog } from './guard.ts'
import { Lab } from './lab.ts'
import { Live } from './live.ts'
import { runDirectory, sweepRuns } from './namespaces.ts'
import { labHelp, type LabOptions, parseLabOptions } from './options.ts'
import { projectFile } from './project.ts'
import { scenario } from './scenario.ts'
import { Screen } from './screen.ts'
import { styleFor } from './style.ts'

const style = styleFor(process.stdout, process.env)

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** What ends the lab from outside: a signal, or an error that nobody awaits. */
class Ending {
  readonly #controller = new AbortController()
  /** Rejects with the first error, resolves at the first signal. */
  readonly came: Promise<void>

  constructor() {
    this.came = new Promise((resolve, reject) => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
        process.on(signal, () => {
          this.#controller.abort()
          resolve()
        })
      }
      const fail = (error: unknown): void => {
        this.#controller.abort()
        reject(error)
      }
      process.on('uncaughtException', fail)
      process.on('unhandledRejection', fail)
    })
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }
}

async function runLive(manifests: string, ending: Ending): Promise<number> {
  const screen = process.stdout.isTTY ? new Screen(process.stdout) : undefined
  const lab = new Lab(manifests, (line) => live.log(line))
  const live = new Live(lab, { style, screen, line: print })
  const work = async (): Promise<void> => {
    print('bpvs lab: building the network ...')
    await lab.network.create()
    ending.signal.throwIfAborted()
    print('bpvs lab: starting bpvsd ...')
    lab.follow()
    await lab.startBpvsd()
    ending.signal.throwIfAborted()
    await live.run(ending.signal)
  }
  try {
    await Promise.race([work(), ending.came])
    return 0
  } finally {
    screen?.close()
    await lab.close()
    print(`bpvs lab: ${live.summary()}; everything is removed again`)
  }
}

async function runSteps(lab: Lab, signal: AbortSignal): Promise<boolean> {
  for (const { name, run } of scenario) {
    if (signal.aborted) return false
    try {
      print(`${style.green('ok')}    ${style.bold(name)}: ${await run(lab)}`)
    } catch (error) {
      print(
        `${style.red('FAIL')}  ${style.bold(name)}: ${error instanceof LbError ? error.message : (error as Error).stack}`,
      )
      return false
    }
  }
  const report = await lab.traffic.take()
  print(['', ...(await lab.listing())].join('\n'))
  return report.failed === 0
}

async function runOnce(manifests: string, ending: Ending): Promise<number> {
  const copy = runDirectory(process.pid)
  cpSync(manifests, copy, { recursive: true, dereference: true })
  const lab = new Lab(copy, ({ level, text }) => {
    if (isAtLeast(level, 'warn')) print(style.yellow(`      bpvsd: ${text}`))
  })
  const start = performance.now()
  let passed = false
  try {
    const interrupted = ending.came.then(() => {
      print('interrupted')
      return false
    })
    passed = await Promise.race([runSteps(lab, ending.signal), interrupted])
  } finally {
    await lab.close()
  }
  const verdict = passed ? style.green('passed') : style.red('failed')
  print(`\nbpvs lab: ${verdict} in ${((performance.now() - start) / 1000).toFixed(1)} s; everything is removed again`)
  return passed ? 0 : 1
}

async function run(options: LabOptions): Promise<number> {
  const manifests = options.manifests ?? projectFile('examples')
  if (process.getuid?.() !== 0) throw new LbError('PERMISSION', 'the lab needs root, for network namespaces and BPF')
  const ending = new Ending()
  const stopWatchdog = startWatchdog()
  try {
    await sweepRuns()
    return await (options.run === 'once' ? runOnce(manifests, ending) : runLive(manifests, ending))
  } finally {
    await stopWatchdog()
  }
}

async function main(): Promise<number> {
  try {
    const options = parseLabOptions(process.argv.slice(2))
    if (options.run !== 'help') return await run(options)
    process.stdout.write(labHelp)
    return 0
  } catch (error) {
    const known = error instanceof LbError
    process.stderr.write(`bpvs lab: ${known ? error.message : (error as Error).stack}\n`)
    return known ? errorCodes[error.code].exit : 1
  }
}

process.exit(await main())
