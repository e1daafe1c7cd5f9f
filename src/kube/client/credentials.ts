/**
 * Where the API server is and who we are there: kubeconfig or service account, read by client-node. What it lacks is
 * added here: a kubeconfig's `tokenFile` (kubeadm's kube-proxy has one), read anew for each request as tokens rotate.
 */
import { readFileSync } from 'node:fs'
import type { RequestOptions } from 'node:https'
import { dirname, resolve } from 'node:path'
import type { KubeConfig, User } from '@kubernetes/client-node'
import { parse } from 'yaml'
import { LbError } from '../../model/errors.ts'

/** How to reach the API server. */
export interface ApiSettings {
  /** A kubeconfig file; absent: the service account of the pod that we are in. */
  readonly kubeconfig?: string
  /** URL of the server, in place of the kubeconfig's. */
  readonly master?: string
  /** Of a service account mounted elsewhere than at /; for tests. */
  readonly root?: string
}

/** A server, and how a request to it is made: addresses, TLS, proxy, headers that prove who we are. */
export interface Credentials {
  readonly server: URL
  /** Fills in what the next request needs. Reads files and may run a program; throws API. */
  apply(options: RequestOptions): Promise<void>
}

const inClusterToken = '/var/run/secrets/kubernetes.io/serviceaccount/token'

/** Reads the configuration. Throws CONFIG when there is none, or it names no server. */
export async function loadCredentials(settings: ApiSettings): Promise<Credentials> {
  const config = await loadKubeConfig(settings)
  const cluster = config.getCurrentCluster()
  const where = settings.kubeconfig ?? 'the service account'
  if (cluster === null) throw new LbError('CONFIG', `${where} names no cluster`, { file: where })
  const url = settings.master ?? cluster.server
  const server = URL.canParse(url) ? new URL(url) : undefined
  if (server === undefined || !/^https?:$/.test(server.protocol)) {
    throw new LbError('CONFIG', `${where}: ${JSON.stringify(url)} is not the URL of a server`, { file: where })
  }
  // client-node takes plain HTTP only where TLS would not be verified; with plain HTTP there is nothing to verify.
  const plain = server.protocol === 'http:' ? { skipTLSVerify: true } : {}
  config.clusters = config.clusters.map((each) =>
    each.name === cluster.name ? { ...each, ...plain, server: server.href } : each,
  )
  return { server, apply: (options) => applyTo(config, options) }
}

async function applyTo(config: KubeConfig, options: RequestOptions): Promise<void> {
  try {
    await config.applyToHTTPSOptions(options)
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim() : String(error)
    throw new LbError('API', `no credentials for the API server: ${reason}`, {}, error)
  }
}

async function loadKubeConfig({ kubeconfig, master, root = '' }: ApiSettings): Promise<KubeConfig> {
  const { KubeConfig } = await import('./kube-config.ts')
  const config = new KubeConfig()
  if (kubeconfig !== undefined) {
    loadFile(config, kubeconfig)
  } else if (process.env.KUBERNETES_SERVICE_HOST !== undefined && process.env.KUBERNETES_SERVICE_PORT !== undefined) {
    config.loadFromCluster(root)
    useTokenFile(config, 'inClusterUser', `${root}${inClusterToken}`)
  } else if (master !== undefined) {
    config.loadFromClusterAndUser({ name: 'master', server: master, skipTLSVerify: false }, { name: 'nobody' })
  } else {
    throw new LbError('CONFIG', 'no kubeconfig, and this is no pod with a service account')
  }
  return config
}

function loadFile(config: KubeConfig, file: string): void {
  try {
    const text = readFileSync(file, 'utf8')
    config.loadFromString(text)
    config.makePathsAbsolute(dirname(file))
    for (const [user, tokenFile] of tokenFiles(text)) useTokenFile(config, user, resolve(dirname(file), tokenFile))
  } catch (error) {
    const reason = error instanceof Error ? error.message.trim() : String(error)
    throw new LbError('CONFIG', `${file}: ${reason}`, { file }, error)
  }
}

/** Users of a kubeconfig that have their token in a file, and none in the text (which would win). */
function tokenFiles(text: string): (readonly [user: string, file: string])[] {
  const { users } = (parse(text) ?? {}) as { users?: readonly { name: string; user?: Record<string, unknown> }[] }
  return (users ?? []).flatMap(({ name, user }) => {
    const { tokenFile, token } = user ?? {}
    return typeof tokenFile === 'string' && tokenFile !== '' && !token ? [[name, tokenFile] as const] : []
  })
}

/** Has a user's token read from a file for each request. */
function useTokenFile(config: KubeConfig, user: string, file: string): void {
  config.users = config.users.map((each) => (each.name === user ? withoutProvider(each) : each))
  config.addAuthenticator({
    isAuthProvider: ({ name }) => name === user,
    applyAuthentication: async (_user, options) => {
      const token = readFileSync(file, 'utf8').trim()
      options.headers = { ...options.headers, Authorization: `Bearer ${token}` }
    },
  })
}

/** Without client-node's own way of reading a token, which keeps it for a minute. */
function withoutProvider({ authProvider: _, ...user }: User): User {
  return user
}
