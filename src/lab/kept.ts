/** Connections to echo servers that are kept open, to see whether they survive what happens around them. */
import { connect, type Socket } from 'node:net'
import { defaultTimeoutMs, kindOf } from './clients.ts'
import type { Outcome, Target } from './host-api.ts'

/** One kept connection. */
export class KeptConnection {
  server = ''
  #received = ''
  #ended: string | undefined
  #wake = () => {}
  readonly #socket: Socket

  constructor(target: Target) {
    this.#socket = connect({ host: target.address, port: target.port, noDelay: true })
    this.#socket.setEncoding('utf8')
    this.#socket.on('data', (text: string) => {
      this.#received += text
      this.#wake()
    })
    this.#socket.on('error', (error) => this.#end(kindOf(error)))
    this.#socket.on('close', () => this.#end('CLOSED'))
  }

  /** Waits for the server's first line, its name. */
  async open(timeoutMs = defaultTimeoutMs): Promise<Outcome<string>> {
    const outcome = await this.#until(() => this.#received.includes('\n'), timeoutMs)
    if ('error' in outcome) return outcome
    const split = this.#received.indexOf('\n')
    this.server = this.#received.slice(0, split)
    this.#received = this.#received.slice(split + 1)
    return { value: this.server }
  }

  /** Sends text and waits for it to come back. */
  async ping(text: string, timeoutMs = defaultTimeoutMs): Promise<Outcome<string>> {
    this.#received = ''
    this.#socket.write(text)
    const outcome = await this.#until(() => this.#received.length >= text.length, timeoutMs)
    if ('error' in outcome) return outcome
    return this.#received === text ? { value: this.server } : { error: 'WRONG ANSWER' }
  }

  /** Ends it with a FIN and waits for the server's, or with an RST. */
  async close(reset: boolean): Promise<void> {
    if (reset) this.#socket.resetAndDestroy()
    else this.#socket.end()
    await this.#until(() => false, defaultTimeoutMs)
    this.#socket.destroy()
  }

  #end(kind: string): void {
    this.#ended ??= kind
    this.#wake()
  }

  #until(condition: () => boolean, timeoutMs: number): Promise<Outcome<true>> {
    return new Promise((resolve) => {
      const settle = (outcome: Outcome<true>) => {
        clearTimeout(timer)
        this.#wake = () => {}
        resolve(outcome)
      }
      const timer = setTimeout(() => settle({ error: 'TIMEOUT' }), timeoutMs)
      this.#wake = () => {
        if (condition()) settle({ value: true })
        else if (this.#ended !== undefined) settle({ error: this.#ended })
      }
      this.#wake()
    })
  }
}
