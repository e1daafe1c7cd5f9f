/** bpvsd's entry point: wires the parts, minds signals, and alone decides about output and exit status. */
import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, hostname } from 'node:os'
import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { HealthCheckPorts } from './api/health-check-ports.ts'
import { type AccessFiles, makeAccess } from './api/admin/access.ts'
import type { AdminTarget } from './api/admin/route.ts'
import { adminServer } from './api/admin/server.ts'
import { serve as serveTcp } from './api/http.ts'
import { endpointOf, startServers } from './api/servers.ts'
import { serveUnix } from './api/unix-socket.ts'
import type { ZPagesSource } from './api/zpages.ts'
import { helpText } from './config/help.ts'
import { toObject } from './config/kube-proxy/render.ts'
import { featuresOf, gatherMs, type KubeProxySettings, nodeName } from './config/kube-proxy/settings.ts'
import { loadConfig } from './config/load.ts'
import type { Config } from './config/schema.ts'
import { version } from './config/version.ts'
import { cleanUp, cleanUpKubeProxy } from './daemon/clean-up.ts'
import { conntrackValues, setKernelValues } from './daemon/conntrack.ts'
import { Daemon, type DaemonParts, type ServiceSource, type SourceCallbacks } from './daemon/daemon.ts'
import { followFile } from './daemon/follow-file.ts'
import { ProxyHealth } from './daemon/health.ts'
import { type KernelHost, kernelHost } from './daemon/kernel-host.ts'
import { choosePorts } from './daemon/masquerade-ports.ts'
import { realTimers } from './daemon/ports.ts'
import { ProxyStatus } from './daemon/status.ts'
import { hooks, verdicts } from './engine/open.ts'
import { HttpApiServer } from './kube/client/api-server.ts'
import { loadCredentials } from './kube/client/credentials.ts'
import { EventRecorder } from './kube/client/event-recorder.ts'
import { KubernetesSource } from './kube/client/kubernetes-source.ts'
import { type EventSink, healthCheckEvent, serverEvent } from './kube/events.ts'
import { ManifestDirectory } from './manifests/directory.ts'
import { errorCodes, LbError } from './model/errors.ts'
import { parsePortRange } from './model/masquerade-ports.ts'
import { endStuckSockets } from './native/stuck-sockets.ts'
import { createLog, type Log } from './observe/log.ts'
import { ProxyMetrics } from './observe/proxy-metrics.ts'
import { syncDaemons } from './sync/control.ts'

/** So long after everything was read for the first time its remains are cleared away: memory would keep that size. */
const tidyMs = 500
/** An API server that cannot be reached in this time is not waited for. */
const longestHeadStartMs = 100
/** Other kinds of objects are asked for right after the first. */
const shortestHeadStartMs = 5
const program = basename(process.env.BPVS_ARGV0 ?? 'bpvsd')

function exitStatus(error: unknown): number {
  return error instanceof LbError ? errorCodes[error.code].exit : 1
}

/** Where services come from, and where their owners are told something. */
interface Origin {
  /** Fulfilled when the source has asked for the first time; absent: it does not wait for answers. */
  readonly asked?: Promise<void>
  readonly makeSource: (callbacks: SourceCallbacks) => ServiceSource
  readonly events?: EventRecorder
}

/** The directory of manifests if there is one, else the Kubernetes API. */
function makeOrigin({ config, kubeProxy }: Serving, metrics: ProxyMetrics, log: Log): Origin {
  const { manifests: directory, maxManifestBytes: maxFileBytes, rescanIntervalMs: rescanMs } = config
  if (directory !== undefined) {
    return { makeSource: (callbacks) => new ManifestDirectory({ directory, maxFileBytes, rescanMs, ...callbacks }) }
  }
  const { configuration, master } = kubeProxy
  const kubeconfig = configuration['clientConnection.kubeconfig']
  const settings = { ...(kubeconfig === '' ? {} : { kubeconfig }), ...(master === undefined ? {} : { master }) }
  const load = () => loadCredentials(settings)
  const api = new HttpApiServer(load, realTimers.now, (request) => metrics.requested(request))
  const clock = { now: realTimers.now, after: realTimers.after, random: Math.random }
  const gathering = { nodeName: nodeName(configuration), gatherMs: gatherMs(configuration) }
  const onTrouble = (err: unknown): void => {
    if (err === undefined) log.info({}, 'events are written again')
    else log.warn({ err }, 'events cannot be written')
  }
  return {
    asked: api.sent,
    makeSource: (callbacks) => new KubernetesSource({ api, clock, ...gathering, ...callbacks }),
    events: new EventRecorder({ api, clock, wallMs: Date.now, host: hostname(), onTrouble }),
  }
}

interface AdminParts {
  readonly host: KernelHost
  readonly daemon: Daemon
  readonly status: ProxyStatus
}

interface Serving {
  readonly config: Config
  readonly kubeProxy: KubeProxySettings
}

/** What is running, and how it was started. */
function zpagesOf({ configuration, flags }: KubeProxySettings): ZPagesSource {
  const { ComponentStatusz: statusz, ComponentFlagz: flagz } = featuresOf(configuration)
  return { startMs: performance.timeOrigin, now: Date.now, version: version(), flags, pages: { statusz, flagz } }
}

/**
 * The servers that say how we do. A directory of manifests is nobody's Node: there are some only where they are asked for.
 */
function startStatus(serving: Serving, metrics: ProxyMetrics, log: Log, events?: EventSink) {
  const { config, kubeProxy } = serving
  const { configuration, given } = kubeProxy
  const manifests = config.manifests !== undefined
  const wanted = (field: 'healthzBindAddress' | 'metricsBindAddress'): string => {
    return manifests && !given.has(field) ? '' : configuration[field]
  }
  const status = new ProxyStatus(new ProxyHealth(manifests), metrics, Date.now)
  const { after } = realTimers
  const node = nodeName(configuration)
  const healthCheckPorts = new HealthCheckPorts({
    log,
    after,
    healthy: () => status.healthy,
    onTrouble: (check, error) => events?.record(healthCheckEvent(node, check, error)),
  })
  const start = (): void => {
    const addresses = {
      healthzBindAddress: wanted('healthzBindAddress'),
      metricsBindAddress: wanted('metricsBindAddress'),
    }
    startServers({
      configuration: { ...configuration, ...addresses },
      health: { answer: (what) => status.answer(what), asked: (what, code) => metrics.asked(what, code) },
      metrics: () => metrics.registry.text(),
      zpages: zpagesOf(kubeProxy),
      log,
      after,
      onTrouble: (server, address, error) => events?.record(serverEvent(node, server, address, error)),
      onHardFail: (server, err) => {
        log.fatal({ server, err }, 'cannot start')
        process.exit(1)
      },
    })
  }
  const onHealthChecks: DaemonParts['onHealthChecks'] = (checks, addresses) => {
    const of = (family: 4 | 6): string[] => addresses.filter((ip) => ip.family === family).map((ip) => ip.address)
    healthCheckPorts.sync(checks, { 4: of(4), 6: of(6) })
  }
  return { status, onHealthChecks, start }
}

/** Runs until a signal. After an unexpected error it ends, for a supervisor to start it anew; the kernel goes on. */
async function serve(serving: Serving, log: Log): Promise<void> {
  const { config, kubeProxy } = serving
  const metrics = new ProxyMetrics(performance.timeOrigin, featuresOf(kubeProxy.configuration))
  const { makeSource, events, asked } = makeOrigin(serving, metrics, log)
  const { status, onHealthChecks, start } = startStatus(serving, metrics, log, events)
  const host = kernelHost()
  const daemon = new Daemon({
    config,
    kubeProxy,
    host,
    log,
    timers: realTimers,
    makeSource,
    onReady: () => realTimers.after(tidyMs, () => globalThis.gc?.()),
    status,
    onHealthChecks,
    ...(events === undefined ? {} : { events }),
  })
  let admin: { close(): void } | undefined
  const end = (code: number): never => {
    admin?.close()
    events?.close()
    daemon.stop()
    process.exit(code)
  }
  const stop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'stopped; the kernel goes on balancing')
    end(0)
  }
  process.on('uncaughtException', (err) => {
    log.fatal({ err }, 'unexpected error')
    process.exit(1)
  })
  log.info({ version: version(), config, kubeProxy: toObject(kubeProxy.configuration) }, 'starting')
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', () => daemon.reload())
  followFile(kubeProxy.file, realTimers, () => {
    log.fatal({ file: kubeProxy.file?.path }, 'the configuration has changed: ending, to be started anew')
    end(1)
  })
  if (asked !== undefined) await headStart(daemon, asked)
  start()
  admin = startAdmin(serving, { host, daemon, status }, log)
  if (config.manifests === undefined) prepareHost(kubeProxy, log)
  daemon.start()
}

/** Has the API server asked first: it answers while we get ready. */
async function headStart(daemon: Daemon, asked: Promise<void>): Promise<void> {
  daemon.ask()
  await Promise.race([asked, delay(longestHeadStartMs)])
  await delay(shortestHeadStartMs)
}

/** The admin API, where it is wanted. CONFIG: its certificates. */
function startAdmin({ config, kubeProxy }: Serving, parts: AdminParts, log: Log): { close(): void } | undefined {
  const { host, daemon, status } = parts
  const target: AdminTarget = {
    table: host.currentTable,
    ownerOf: (key) => daemon.ownerOf(key),
    endSockets: () => endStuckSockets(config.socket === 'all', 0),
    syncs: () => syncDaemons.list().length > 0,
    hooks,
    verdicts,
    healthy: () => status.healthy,
    configuration: { bpvs: config, kubeProxy: toObject(kubeProxy.configuration) },
    version: version(),
  }
  const { after, now, every } = realTimers
  const options = { target, log, now, every }
  const endpoint = config.adminListen === undefined ? undefined : endpointOf(config.adminListen)
  if (endpoint !== undefined) {
    const access = makeAccess(accessFiles(config))
    serveTcp(() => adminServer({ ...options, access }), endpoint, { name: 'admin', log, after })
  }
  if (config.adminSocket === '') return undefined
  return serveUnix(() => adminServer(options), config.adminSocket, { name: 'admin', log, after })
}

function accessFiles({ adminCert: cert = '', adminKey: key = '', adminClientCa, adminTokenFile }: Config): AccessFiles {
  const clientCa = adminClientCa === undefined ? {} : { clientCa: adminClientCa }
  return { cert, key, ...clientCa, ...(adminTokenFile === undefined ? {} : { tokenFile: adminTokenFile }) }
}

/** What kube-proxy does to its host: its place when memory is short, and connection tracking. */
function prepareHost(kubeProxy: KubeProxySettings, log: Log): void {
  const oomScore = { path: '/proc/self/oom_score_adj', value: kubeProxy.configuration.oomScoreAdj }
  setKernelValues([oomScore], kernelFiles, log)
  setConntrack(kubeProxy, log)
}

const kernelFiles = { read: (path: string) => readFileSync(path, 'utf8'), write: writeFileSync }

function setConntrack({ configuration }: KubeProxySettings, log: Log): void {
  setKernelValues(conntrackValues(configuration, availableParallelism()), kernelFiles, log)
}

/** Makes the table and attaches, and sets what only privilege may, for a bpvsd with less of it to find. */
function initialise({ config, kubeProxy }: Serving, log: Log): void {
  if (config.manifests === undefined) setConntrack(kubeProxy, log)
  const policy = { include: config.interfaces, exclude: config.excludeInterfaces, xdp: config.xdp }
  const { maxServices: services, maxServers: servers, maxConnections: connections } = config
  const host = kernelHost()
  const table = host.openTable({ services, servers, connections }, policy)
  host.attachInterfaces(policy)
  const wanted = config.masqueradePorts === undefined ? {} : { wanted: parsePortRange(config.masqueradePorts) }
  choosePorts(table, { host, log, nodePorts: [], ...wanted })
  table.close()
  log.info({}, 'initialised')
}

async function main(): Promise<void> {
  let log: Log | undefined
  try {
    const surroundings = { env: process.env, readFile: (path: string) => readFileSync(path, 'utf8'), program }
    const invocation = loadConfig(process.argv.slice(2), surroundings)
    if (invocation.run === 'help') process.stdout.write(helpText(program))
    else if (invocation.run === 'version') process.stdout.write(`${program} ${version()}\n`)
    else if (invocation.run === 'write-config') writeFileSync(invocation.path, invocation.text)
    else {
      log = createLog('bpvsd', invocation.config.logLevel)
      const options = { config: invocation.config, log, timers: realTimers }
      if (invocation.run === 'cleanup') await cleanUp(options, kernelHost())
      else if (invocation.run === 'cleanup-kube-proxy') await cleanUpKubeProxy(options)
      else if (invocation.run === 'init') initialise(invocation, log)
      else await serve(invocation, log)
    }
  } catch (error) {
    if (log === undefined) process.stderr.write(`${program}: ${error instanceof Error ? error.message : error}\n`)
    else log.fatal({ err: error }, 'cannot start')
    process.exit(exitStatus(error))
  }
}

await main()
