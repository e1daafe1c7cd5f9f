/** A server on a unix socket that its owner alone may use, in the place of one that a dead process left. */
import { lstatSync, mkdirSync, mkdtempSync, renameSync, rmSync, chmodSync, unlinkSync } from 'node:fs'
import { createConnection } from 'node:net'
import { dirname, join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { LbError } from '../model/errors.ts'
import type { ServeOptions } from './http.ts'

const retryMs = 5_000

/** Listens, again and again until it can. What it returns ends it, at once: the socket is gone when close() returns. */
export function serveUnix(
  make: () => FastifyInstance,
  path: string,
  { name, log, after }: Omit<ServeOptions, 'onRefused'>,
): { close(): void } {
  let bound: { release(): void } | undefined
  let retry: { cancel(): void } | undefined
  let closed = false
  let said = ''
  const listen = async (): Promise<void> => {
    const app = make()
    try {
      const socket = await bind(app, path)
      if (closed) socket.release()
      else bound = socket
      log.info({ server: name, path }, 'listening')
    } catch (err) {
      await app.close()
      const text = err instanceof Error ? err.message : String(err)
      if (text !== said) log.warn({ server: name, path, err }, 'cannot listen')
      said = text
      if (!closed) retry = after(retryMs, () => void listen())
    }
  }
  void listen()
  return {
    close: () => {
      closed = true
      retry?.cancel()
      bound?.release()
    },
  }
}

/**
 * Binds in a directory that nobody else can enter, and moves the socket into place when its mode is right: nobody can
 * connect before.
 */
async function bind(app: FastifyInstance, path: string): Promise<{ release(): void }> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  await checkFree(path)
  const directory = mkdtempSync(join(dirname(path), '.new-'))
  try {
    const draft = join(directory, 's')
    await app.listen({ path: draft })
    chmodSync(draft, 0o600)
    renameSync(draft, path)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  const { ino } = lstatSync(path)
  const release = (): void => {
    if (lstatSync(path, { throwIfNoEntry: false })?.ino === ino) unlinkSync(path)
    void app.close()
  }
  return { release }
}

/** INVALID: there is something else, or somebody answers. */
async function checkFree(path: string): Promise<void> {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (there === undefined) return
  if (!there.isSocket()) throw new LbError('INVALID', `${path} is no socket`, { path })
  if (await answers(path)) throw new LbError('INVALID', `${path} is in use by another process`, { path })
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    const end = (answer: boolean): void => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => end(true))
    socket.once('error', ({ code }: NodeJS.ErrnoException) => end(code !== 'ECONNREFUSED' && code !== 'ENOENT'))
  })
}
