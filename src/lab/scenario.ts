/** The scenario of `npm start -- --once`: each step does something to the lab and checks what clients see of it. */
import { LbError } from '../model/errors.ts'
import { editEndpoints, withEndpoint, withoutEndpoint } from './edit.ts'
import type { Outcome } from './host-api.ts'
import type { Host } from './host.ts'
import type { Lab } from './lab.ts'
import { addressesOf, labDnsName, labServers, serverAt } from './network.ts'
import { mergeReports, type Report } from './tally.ts'
import type { LabTarget } from './targets.ts'

/** A step: what it found, in words. It throws what went wrong. */
export interface Step {
  readonly name: string
  readonly run: (lab: Lab) => Promise<string>
}

/** Requests per client and server in the step that looks at the balance. */
const requestsPerServer = 20
/** Requests per second of one client to one service in the background. */
const backgroundRate = 20
/** A change of a manifest has to show in the traffic within this time, however busy the machine is. */
const changeDeadlineMs = 30_000

function fail(message: string, detail: Record<string, unknown> = {}): never {
  throw new LbError('INVALID', message, detail)
}

function failures(report: Report): string {
  const kinds = Object.entries(report.errors).map(([kind, count]) => `${count} ${kind}`)
  return `${report.failed} of ${report.sent} requests failed: ${kinds.join(', ')}`
}

function requireNoFailure(report: Report, where: string): void {
  if (report.failed > 0) fail(`${where}: ${failures(report)}`, { report })
}

/** Names of a target's servers; those that are none of the lab's cannot answer. */
function serverNames(target: LabTarget): string[] {
  return target.servers.map((address) => serverAt(address)?.name ?? fail(`${target.label}: no server has ${address}`))
}

function ask(client: Host, target: LabTarget): Promise<Outcome<{ readonly server: string }>> {
  const { address, port, protocol } = target
  if (target.application === 'http') return client.call('http', { address, port })
  const type = target.family === 4 ? 'A' : 'AAAA'
  return client.call('dns', { address, port, name: labDnsName, type, tcp: protocol === 'tcp' })
}

/** Every client reaches every virtual service, and is answered by one of its servers. */
async function reach(lab: Lab): Promise<string> {
  const { clients } = lab.network
  const pairs = clients.flatMap((client) => lab.targets.map((target) => ({ client, target })))
  const outcomes = await Promise.all(
    pairs.map(async ({ client, target }) => ({ client, target, outcome: await ask(client, target) })),
  )
  for (const { client, target, outcome } of outcomes) {
    if ('error' in outcome) fail(`${client.name} does not reach ${target.label}: ${outcome.error}`)
    const { server } = outcome.value
    if (!serverNames(target).includes(server)) fail(`${target.label}: ${server} answers, which is none of its servers`)
  }
  const kinds = new Set(lab.targets.map(({ protocol, family }) => `${protocol.toUpperCase()} over IPv${family}`))
  return `${clients.length} clients, ${lab.targets.length} virtual services (${[...kinds].sort().join(', ')})`
}

async function load(client: Host, target: LabTarget, count: number): Promise<Report> {
  const { address, port, protocol } = target
  const options = { address, port, count, concurrency: 4 }
  const type = target.family === 4 ? ('A' as const) : ('AAAA' as const)
  const id =
    target.application === 'http'
      ? await client.call('startHttp', options)
      : await client.call('startDns', { ...options, name: labDnsName, type, tcp: protocol === 'tcp' })
  return client.call('loadDone', id)
}

/** All servers of a service get their share of the connections of all clients together. */
async function balance(lab: Lab): Promise<string> {
  const balanced = lab.targets.filter(({ sticky, servers }) => !sticky && servers.length > 1)
  const shares = await Promise.all(
    balanced.map(async (target) => {
      const count = requestsPerServer * target.servers.length
      const report = mergeReports(await Promise.all(lab.network.clients.map((client) => load(client, target, count))))
      requireNoFailure(report, target.label)
      return shareText(target, report)
    }),
  )
  return shares.join('; ')
}

function shareText(target: LabTarget, report: Report): string {
  const names = serverNames(target)
  const fair = report.answered / names.length
  const counts = names.map((name) => report.servers[name] ?? 0)
  const text = `${target.label} ${counts.join(':')}`
  if (counts.some((count) => Math.abs(count - fair) > fair * 0.1))
    fail(`${text}: not balanced over ${names.join(', ')}`)
  return text
}

/** The service whose manifest the scenario edits, as it is now: of those that it can edit, the first by address. */
function editable(lab: Lab): LabTarget {
  const [target] = lab.targets
    .filter(({ application, family, servers }) => application === 'http' && family === 4 && servers.length > 1)
    .sort((one, other) => one.label.localeCompare(other.label))
  return target ?? fail('no HTTP service over IPv4 with two servers in the manifests')
}

/** Asks until `done` is content with who answers; returns how long that took. Failed requests are counted, not fatal. */
async function askUntil(lab: Lab, target: LabTarget, what: string, done: (server: string) => boolean): Promise<number> {
  const start = performance.now()
  const [client] = lab.network.clients
  if (client === undefined) fail('no client')
  for (;;) {
    const outcome = await ask(client, target)
    const ms = performance.now() - start
    if ('value' in outcome && done(outcome.value.server)) return ms
    if (ms > changeDeadlineMs) fail(`${changeDeadlineMs} ms after the edit, ${what}`, { target })
  }
}

/** Waits until a whole round of answers came without the server; returns the time of the last one that it gave. */
async function untilWithout(lab: Lab, target: LabTarget, name: string): Promise<number> {
  const start = performance.now()
  let lastMs = 0
  let without = 0
  await askUntil(lab, target, `${name} still answers for ${target.label}`, (server) => {
    without = server === name ? 0 : without + 1
    if (server === name) lastMs = performance.now() - start
    return without >= 4 * target.servers.length
  })
  return lastMs
}

/** A server is taken out of a manifest: only requests that are open on it at that moment may fail. */
async function removeServer(lab: Lab): Promise<string> {
  const target = editable(lab)
  const address = target.servers.at(-1) ?? fail(`${target.label} has no server`)
  const name = serverAt(address)?.name ?? address
  await lab.traffic.take()
  editEndpoints(lab.manifests, withoutEndpoint(address))
  const lastMs = await untilWithout(lab, target, name)
  await lab.traffic.settle()
  const report = await lab.traffic.take()
  if (report.failed > lab.network.clients.length) fail(`taking out ${name}: ${failures(report)}`)
  const lost = report.failed === 0 ? 'no request lost' : `${report.failed} open on it lost`
  return `${name} (${address}) gets nothing more after ${lastMs.toFixed(0)} ms, ${lost}`
}

/** A server that was in no manifest is put into one. */
async function addServer(lab: Lab): Promise<string> {
  const target = editable(lab)
  const like = target.servers[0] ?? fail(`${target.label} has no server`)
  const used = new Set(lab.targets.flatMap(({ servers }) => servers))
  const spare = labServers.find((server) => {
    const { ipv4, ipv6 } = addressesOf(server)
    return server.application === 'http' && !used.has(ipv4) && !used.has(ipv6)
  })
  if (spare === undefined) fail('every server of the lab is in a manifest already')
  await lab.traffic.take()
  editEndpoints(lab.manifests, withEndpoint(addressesOf(spare).ipv4, like))
  const ms = await askUntil(lab, target, `${spare.name} does not answer`, (server) => server === spare.name)
  requireNoFailure(await lab.traffic.take(), `adding ${spare.name}`)
  return `${spare.name} (${addressesOf(spare).ipv4}) answers after ${ms.toFixed(0)} ms`
}

/** bpvsd is killed and started anew under traffic, with connections open all the while. */
async function killBpvsd(lab: Lab): Promise<string> {
  const { address, port } = editable(lab)
  const { clients } = lab.network
  await lab.traffic.take()
  const open = { address, port, keepAlive: true, concurrency: 4, ratePerSecond: 100 }
  const ids = await Promise.all(clients.map((client) => client.call('startHttp', open)))
  await Promise.all(clients.map((client) => client.call('http', { address, port })))
  await lab.bpvsd.kill('SIGKILL')
  const gone = performance.now()
  const alone = await Promise.all(clients.map((client) => load(client, editable(lab), 50)))
  const aloneMs = performance.now() - gone
  await lab.startBpvsd()
  const after = await Promise.all(clients.map((client) => load(client, editable(lab), 50)))
  const kept = await Promise.all(ids.map((id, i) => clients[i]?.call('stopLoad', id)))
  const report = mergeReports([
    ...alone,
    ...after,
    ...kept.filter((each) => each !== undefined),
    await lab.traffic.take(),
  ])
  requireNoFailure(report, 'with bpvsd killed and restarted')
  return `${report.answered} requests on new and on open connections, none failed (${aloneMs.toFixed(0)} ms without bpvsd)`
}

async function build(lab: Lab): Promise<string> {
  const start = performance.now()
  await lab.network.create()
  const count = lab.network.topology.spec.namespaces.length
  return `${count} namespaces in ${(performance.now() - start).toFixed(0)} ms`
}

async function startBpvsd(lab: Lab): Promise<string> {
  lab.follow()
  if (lab.targets.length === 0) fail(`${lab.manifests}: no virtual service to call`)
  const start = performance.now()
  await lab.startBpvsd()
  return `${lab.targets.length} virtual services in ${(performance.now() - start).toFixed(0)} ms`
}

async function background(lab: Lab): Promise<string> {
  await lab.startTraffic(backgroundRate)
  return `${backgroundRate * lab.targets.length * lab.network.clients.length} requests per second, from here to the end`
}

/** The steps, in their order. */
export const scenario: readonly Step[] = [
  { name: 'the network is built', run: build },
  { name: 'bpvsd is ready', run: startBpvsd },
  { name: 'every client reaches every service', run: reach },
  { name: 'requests are balanced over all servers', run: balance },
  { name: 'steady traffic starts', run: background },
  { name: 'a server is taken out of a manifest', run: removeServer },
  { name: 'a server is put into a manifest', run: addServer },
  { name: 'bpvsd is killed (-9) and started anew', run: killBpvsd },
]
