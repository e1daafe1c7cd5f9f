/** kube-proxy's /statusz and /flagz: what is running, and how it was started; as text, and as objects of config.k8s.io. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { sendJson } from './http.ts'

/** What they tell of. */
export interface ZPagesSource {
  /** When the process began, milliseconds since 1970. */
  readonly startMs: number
  /** The same clock, now. */
  readonly now: () => number
  /** Of bpvs. */
  readonly version: string
  /** Flags of kube-proxy by name. */
  readonly flags: Readonly<Record<string, string>>
  /** Pages that are served: feature gates take them away. */
  readonly pages: { readonly statusz: boolean; readonly flagz: boolean }
}

/** What is asked for as an object, and what as a text. */
interface Page {
  readonly kind: 'Statusz' | 'Flagz'
  readonly text: () => string
  readonly object: () => object
}

const name = 'kube-proxy'
const warning =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.'
/** The release of Kubernetes whose kube-proxy this stands in for. */
const emulated = '1.36'
const group = 'config.k8s.io'
const groupVersion = 'v1beta1'
const others = ['/configz', '/healthz', '/metrics', '/proxyMode']

/** Adds the pages that are wanted, which alone of kube-proxy's say nothing of sniffing. */
export function addZPages(app: FastifyInstance, source: ZPagesSource): void {
  const paths = [...others, ...(source.pages.flagz ? ['/flagz'] : [])].sort()
  app.register(async (scope) => {
    scope.addHook('onSend', async (_request, reply) => {
      reply.removeHeader('x-content-type-options')
    })
    if (source.pages.statusz) addPage(scope, '/statusz', statusz(source, paths))
    if (source.pages.flagz) addPage(scope, '/flagz', flagz(source))
  })
}

function addPage(app: FastifyInstance, path: string, page: Page): void {
  app.all(path, (request, reply) => sendPage(request, reply, page))
}

function sendPage(request: FastifyRequest, reply: FastifyReply, { kind, text, object }: Page): FastifyReply {
  const form = formOf(request.headers.accept ?? '', kind)
  if (form === 'text') return reply.type('text/plain; charset=utf-8').send(text())
  if (form === undefined) return reply.code(406).type('text/plain; charset=utf-8').send('406 not acceptable\n')
  const head = { kind, apiVersion: `${group}/${groupVersion}`, metadata: { name } }
  return sendJson(reply, 200, { ...head, ...object() })
}

/** What the client accepts first; of JSON only the object of this kind. Undefined: nothing of it is to be had. */
function formOf(accept: string, kind: Page['kind']): 'text' | 'object' | undefined {
  if (accept.trim() === '') return 'text'
  for (const range of accept.split(',')) {
    const [type = '', ...rest] = range.split(';').map((part) => part.trim().toLowerCase())
    if (['*/*', 'text/*', 'text/plain'].includes(type)) return 'text'
    const wanted = [`as=${kind.toLowerCase()}`, `v=${groupVersion}`, `g=${group}`]
    if (type === 'application/json' && wanted.every((parameter) => rest.includes(parameter))) return 'object'
  }
  return undefined
}

function statusz({ startMs, now, version }: ZPagesSource, paths: readonly string[]): Page {
  const upS = (): number => Math.floor((now() - startMs) / 1000)
  const runtime = `node ${process.version}`
  const lines = (): string[] => [
    `Started: ${unixDate(startMs)}`,
    `Up: ${upTime(upS())}`,
    `Go version: ${runtime}`,
    `Binary version: ${version}`,
    `Emulation version: ${emulated}`,
    `Paths: ${paths.join(' ')}`,
  ]
  return {
    kind: 'Statusz',
    text: () => `\n${name} statusz\n${warning}\n\n${lines().join('\n')}\n`,
    object: () => ({
      startTime: new Date(startMs).toISOString().replace(/\.\d+/, ''),
      uptimeSeconds: upS(),
      goVersion: runtime,
      binaryVersion: version,
      emulationVersion: emulated,
      paths,
    }),
  }
}

function flagz({ flags }: ZPagesSource): Page {
  const lines = Object.entries(flags).map(([flag, value]) => `${flag}:${value}\n`)
  return {
    kind: 'Flagz',
    text: () => `\n${name} flagz\n${warning}\n${lines.join('')}`,
    object: () => ({ flags }),
  }
}

const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat']
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** `Sat Nov 21 05:55:00 UTC 2026` */
function unixDate(ms: number): string {
  const date = new Date(ms)
  const time = date.toISOString().slice(11, 19)
  const day = String(date.getUTCDate()).padStart(2)
  return `${days[date.getUTCDay()]} ${months[date.getUTCMonth()]} ${day} ${time} UTC ${date.getUTCFullYear()}`
}

/** `0 hr 01 min 12 sec` */
function upTime(seconds: number): string {
  const two = (n: number): string => String(n).padStart(2, '0')
  return `${Math.floor(seconds / 3600)} hr ${two(Math.floor(seconds / 60) % 60)} min ${two(seconds % 60)} sec`
}
