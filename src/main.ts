/** bpvsd's entry point: wires the parts, minds signals, and alone decides about output and exit status. */
import { basename } from 'node:path'
import { helpText } from './config/help.ts'
import { loadConfig } from './config/load.ts'
import type { Config } from './config/schema.ts'
import { version } from './config/version.ts'
import { Daemon, type ServiceSource, type SourceCallbacks } from './daemon/daemon.ts'
import { kernelHost } from './daemon/kernel-host.ts'
import { realTimers } from './daemon/ports.ts'
import { HttpApiServer } from './kube/client/api-server.ts'
import { loadCredentials } from './kube/client/credentials.ts'
import { KubernetesSource } from './kube/client/kubernetes-source.ts'
import { nodeName } from './kube/node-context.ts'
import { ManifestDirectory } from './manifests/directory.ts'
import { errorCodes, LbError } from './model/errors.ts'
import { createLog, type Log } from './observe/log.ts'

const program = basename(process.env.BPVS_ARGV0 ?? 'bpvsd')

function exitStatus(error: unknown): number {
  return error instanceof LbError ? errorCodes[error.code].exit : 1
}

/** The directory of manifests if there is one, else the Kubernetes API. */
function makeSource(config: Config, callbacks: SourceCallbacks): ServiceSource {
  const { manifests: directory, maxManifestBytes: maxFileBytes, rescanIntervalMs: rescanMs } = config
  if (directory !== undefined) return new ManifestDirectory({ directory, maxFileBytes, rescanMs, ...callbacks })
  const { kubeconfig, master } = config
  const settings = { ...(kubeconfig === undefined ? {} : { kubeconfig }), ...(master === undefined ? {} : { master }) }
  const api = new HttpApiServer(() => loadCredentials(settings))
  const clock = { now: realTimers.now, after: realTimers.after, random: Math.random }
  return new KubernetesSource({ api, clock, nodeName: nodeName(config), gatherMs: 0, ...callbacks })
}

/** Runs until a signal. After an unexpected error it ends, for a supervisor to start it anew; the kernel goes on. */
function serve(config: Config, log: Log): void {
  const daemon = new Daemon({
    config,
    host: kernelHost(),
    log,
    timers: realTimers,
    makeSource: (callbacks) => makeSource(config, callbacks),
  })
  const stop = (signal: NodeJS.Signals): void => {
    daemon.stop()
    log.info({ signal }, 'stopped; the kernel goes on balancing')
    process.exit(0)
  }
  process.on('uncaughtException', (err) => {
    log.fatal({ err }, 'unexpected error')
    process.exit(1)
  })
  log.info({ version: version(), config }, 'starting')
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => daemon.reload())
  daemon.start()
}

function cleanUp(log: Log): void {
  const found = kernelHost().unload()
  log.info({ found }, found ? 'unloaded' : 'nothing to unload')
}

function main(): void {
  let log: Log | undefined
  try {
    const invocation = loadConfig(process.argv.slice(2))
    if (invocation.run === 'help') process.stdout.write(helpText(program))
    else if (invocation.run === 'version') process.stdout.write(`${program} ${version()}\n`)
    else {
      log = createLog('bpvsd', invocation.config.logLevel)
      if (invocation.run === 'cleanup') cleanUp(log)
      else serve(invocation.config, log)
    }
  } catch (error) {
    if (log === undefined) process.stderr.write(`${program}: ${error instanceof Error ? error.message : error}\n`)
    else log.fatal({ err: error }, 'cannot start')
    process.exit(exitStatus(error))
  }
}

main()
