/** Requests over a unix socket, as a client of the admin API makes them. */
import { type IncomingMessage, request } from 'node:http'
import { waitFor } from './wait-for.ts'

export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  /** Of the text; undefined where there is none. */
  readonly json: unknown
}

/** Sends a request and reads the whole answer. A body that is no text goes as JSON. */
export function ask(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<HttpAnswer> {
  const type = body === undefined ? {} : { 'content-type': 'application/json' }
  return new Promise((resolve, reject) => {
    const outgoing = request(
      { socketPath, method, path, headers: { ...type, ...headers }, agent: false },
      (incoming) => {
        let text = ''
        incoming.setEncoding('utf8').on('data', (part: string) => {
          text += part
        })
        incoming.on('error', reject)
        incoming.on('end', () => {
          const json: unknown = text === '' ? undefined : JSON.parse(text)
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, json })
        })
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body === undefined || typeof body === 'string' ? body : JSON.stringify(body))
  })
}

/** Somebody who listens to server-sent events. */
export class Listener {
  readonly type: string | undefined
  readonly #answer: IncomingMessage
  #text = ''

  private constructor(answer: IncomingMessage) {
    this.#answer = answer
    this.type = answer.headers['content-type']
    answer.setEncoding('utf8').on('data', (part: string) => {
      this.#text += part
    })
  }

  static start(socketPath: string): Promise<Listener> {
    return new Promise((resolve, reject) => {
      const outgoing = request({ socketPath, path: '/v1/events', agent: false }, (answer) =>
        resolve(new Listener(answer)),
      )
      outgoing.on('error', reject).end()
    })
  }

  /** Waits until this, and nothing else, has come since it was asked last. */
  async until(text: string): Promise<void> {
    await waitFor(`${JSON.stringify(text)} instead of ${JSON.stringify(this.#text)}`, () => this.#text === text)
    this.#text = ''
  }

  end(): void {
    this.#answer.destroy()
  }
}
