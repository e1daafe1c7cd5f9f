/** Who may use the admin API over TCP: with TLS only, clients with a certificate or a bearer token. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { createSecureContext, type TLSSocket } from 'node:tls'
import { LbError } from '../../model/errors.ts'

/** Paths of files. At least one of the last two is there, or nobody could be let in. */
export interface AccessFiles {
  readonly cert: string
  readonly key: string
  /** Whose certificates let clients in. */
  readonly clientCa?: string
  /** Read for each request: it may be replaced. */
  readonly tokenFile?: string
}

export interface Access {
  /** For fastify's `https`. */
  readonly tls: object
  allows(request: IncomingMessage): boolean
}

/** Reads the certificates. CONFIG: a file cannot be read, or is not what it should be. */
export function makeAccess({ cert, key, clientCa, tokenFile }: AccessFiles): Access {
  const pair = { cert: readText(cert), key: readText(key), minVersion: 'TLSv1.2' as const }
  const ca = clientCa === undefined ? {} : { ca: readText(clientCa) }
  try {
    createSecureContext({ ...pair, ...ca })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new LbError('CONFIG', `adminCert, adminKey, adminClientCa: ${reason}`, { cert, key }, error)
  }
  if (tokenFile !== undefined) readText(tokenFile)
  const asks = {
    requestCert: clientCa !== undefined,
    rejectUnauthorized: clientCa !== undefined && tokenFile === undefined,
  }
  return {
    tls: { ...pair, ...ca, ...asks },
    allows: ({ socket, headers }) => {
      if (clientCa !== undefined && (socket as TLSSocket).authorized) return true
      return tokenFile !== undefined && isToken(headers.authorization, tokenFile)
    },
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new LbError('CONFIG', `${path}: ${error instanceof Error ? error.message : String(error)}`, { path }, error)
  }
}

/** An empty file, or one that is gone, lets nobody in. How long the comparison takes tells nothing of the token. */
function isToken(authorization: string | undefined, tokenFile: string): boolean {
  const [, given] = /^Bearer +([^\s]+)$/i.exec(authorization ?? '') ?? []
  if (given === undefined) return false
  let token: string
  try {
    token = readFileSync(tokenFile, 'utf8').trim()
  } catch {
    return false
  }
  return token !== '' && timingSafeEqual(digest(given), digest(token))
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
